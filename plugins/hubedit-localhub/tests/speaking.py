"""Short forms of what the conformance tests say to a Hub: commits, by the client and raw."""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session, hf_raise_for_status


def add(path: str, data: bytes = b"x") -> CommitOperationAdd:
    return CommitOperationAdd(path, data)


def commit(c: HfApi, repo: str, *operations: Any, **more: Any) -> Any:
    return c.create_commit(repo, list(operations), commit_message="Do", **more)


def post(c: HfApi, path: str, *lines: dict[str, Any]) -> Any:
    answer = get_session().post(
        f"{c.endpoint}/api/{path}",
        content="\n".join(map(json.dumps, lines)).encode(),
        headers={"authorization": f"Bearer {c.token}", "content-type": "application/x-ndjson"},
    )
    hf_raise_for_status(answer)
    return answer


def line(path: str, key: str = "file") -> tuple[dict[str, Any], dict[str, Any]]:
    value = {"path": path, "content": "eA==", "encoding": "base64"}
    return {"key": "header", "value": {"summary": "raw"}}, {"key": key, "value": value}
