"""Servers: several on one root, the one in the background, the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from hubedit_localhub import LocalHub, connect, hubedit_endpoint, serve
from hubedit_localhub.background import running, stop
from hubedit_localhub.commands import hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

import hubedit

SERVE = """
import sys, pathlib
from hubedit_localhub import serve
with serve(pathlib.Path(sys.argv[1])) as hub:
    print(hub.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root whose background server ends with the test."""
    place = tmp_path / "hub"
    yield place
    stop(place)


@pytest.fixture
def second(localhub: LocalHub) -> Iterator[HfApi]:
    """A client of another process that serves the same root."""
    command = [sys.executable, "-c", SERVE, str(localhub.root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        yield HfApi(endpoint=child.stdout.readline().strip(), token=localhub.token)
        child.stdin.close()


def test_two_processes_on_one_root_lose_no_commit(localhub: LocalHub, second: HfApi) -> None:
    first = localhub.api()
    first.create_repo("me/demo")
    base = first.model_info("me/demo").sha

    def race(number: int) -> int:
        try:
            (first, second)[number % 2].create_commit(
                "me/demo",
                [CommitOperationAdd(f"race/{number}", b"x")],
                commit_message="race",
                parent_commit=base,
            )
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    def push(number: int) -> str:
        operations = [CommitOperationAdd(f"{number}.bin", bytes([number, 0]))]
        api = (first, second)[number % 2]
        return api.create_commit("me/demo", operations, commit_message=f"{number}").oid

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == [200] + [412] * 7
        oids = set(pool.map(push, range(16)))
    for api in (first, second):
        history = [commit.commit_id for commit in api.list_repo_commits("me/demo")]
        assert set(history[:16]) == oids
        assert len(history) == 18


def test_tokens_made_by_one_process_are_known_to_the_other(
    localhub: LocalHub, second: HfApi
) -> None:
    token = localhub.create_user("ada")
    assert second.whoami(token=token)["name"] == "ada"


def test_the_background_server_is_one_and_is_found_again(root: Path) -> None:
    assert running(root) is None
    with ThreadPoolExecutor(3) as pool:
        infos = set(pool.map(lambda _: connect(root), range(3)))
    assert len(infos) == 1
    info = infos.pop()
    assert info.pid != os.getpid()
    HfApi(endpoint=info.url, token=info.token).create_repo("kept")
    assert stop(root)
    assert running(root) is None
    again = connect(root)
    assert again.pid != info.pid
    assert HfApi(endpoint=again.url, token=again.token).repo_exists("me/kept")


def test_a_killed_server_leaves_nothing_in_the_way(root: Path) -> None:
    info = connect(root)
    os.kill(info.pid, signal.SIGKILL)
    assert connect(root).pid != info.pid


def test_an_idle_server_ends_by_itself(root: Path) -> None:
    command = [sys.executable, "-m", "hubedit_localhub", "--root", str(root), "--idle", "0.3"]
    started = time.monotonic()
    assert subprocess.run(command, timeout=20, check=False).returncode == 0
    assert time.monotonic() - started > 0.3
    assert running(root) is None


def test_hook_hubedit_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEDIT_HOME", str(tmp_path))
    assert hubedit_endpoint("huggingface") is None
    try:
        found = hubedit_endpoint("local")
        assert isinstance(found, hubedit.Endpoint)
        assert found.home == tmp_path / "hub" / "client-home"
        assert HfApi(endpoint=found.url, token=found.token).whoami()["name"] == found.user == "me"
    finally:
        stop(tmp_path / "hub")


def test_the_commands_start_show_and_stop_the_server(root: Path) -> None:
    run = CliRunner().invoke
    option = ["--root", str(root)]
    assert "not running" in run(hub, ["status", *option]).output
    shell = run(hub, ["env", *option]).output
    variables = json.loads(run(hub, ["env", "--json", *option]).output)
    for name, value in variables.items():
        assert f"export {name}={value}\n" in shell
    assert set(variables) >= {
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HF_HOME",
        "HF_HUB_DISABLE_XET",
        "NO_PROXY",
    }
    status = json.loads(run(hub, ["status", "--json", *option]).output)
    assert (status["running"], status["url"]) == (True, variables["HF_ENDPOINT"])
    refused = run(hub, ["serve", *option])
    assert isinstance(refused.exception, hubedit.HubEditError)
    assert "served already" in str(refused.exception)
    assert run(hub, ["stop", *option]).output == "stopped\n"
    assert run(hub, ["stop", *option]).output == "not running\n"


def test_serving_in_the_foreground_ends_on_interrupt(root: Path) -> None:
    command = [sys.executable, "-c", "from hubedit_localhub.commands import hub; hub()"]
    with subprocess.Popen(
        [*command, "serve", "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        url = child.stdout.readline().strip()
        assert connect(root).url == url
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        assert child.stderr.read() == f'eval "$(hubedit hub env --root {root})"\n'
    assert not (root / "server.json").exists()


def test_importing_the_plugin_loads_no_server() -> None:
    program = (
        "import sys, hubedit_localhub, hubedit_localhub.commands; heavy = {'starlette', 'pygit2', "
        "'uvicorn', 'huggingface_hub'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_server_in_a_thread_ends_with_its_block(tmp_path: Path) -> None:
    with serve(tmp_path / "hub") as local:
        port = int(local.url.rsplit(":", 1)[1])
        assert local.api().whoami()["name"] == "me"
    with serve(tmp_path / "hub", port=port) as again:
        assert again.url == local.url


def test_serving_on_a_network_says_what_it_means(root: Path) -> None:
    command = [sys.executable, "-c", "from hubedit_localhub.commands import hub; hub()", "serve"]
    with subprocess.Popen(
        [*command, "--root", str(root), "--host", "0.0.0.0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        url = child.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert connect(root).url == url
        assert "nothing is encrypted" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
    refused = CliRunner().invoke(hub, ["serve", "--root", str(root), "--host", "192.0.2.1"])
    assert isinstance(refused.exception, hubedit.HubEditError)


def test_addresses_are_secure_behind_a_proxy_that_is(localhub: LocalHub) -> None:
    localhub.api().create_repo("me/demo")
    headers = {
        "authorization": f"Bearer {localhub.token}",
        "x-forwarded-proto": "https",
        "content-type": "application/json",
    }
    answer = get_session().post(
        f"{localhub.url}/api/repos/create", json={"name": "other"}, headers=headers
    )
    assert answer.json()["url"] == f"{localhub.url.replace('http', 'https')}/me/other"
