"""A network that drops, delays, cuts short and answers 429, 500 and 503: all or nothing."""

import os

import pytest
from faults import leftovers
from flaky import FAULTS, flaky
from test_way import recipe_in

from hubedit.editions import edits_of
from hubedit.hub import Hub
from hubedit.verification import verify

TRIES = int(os.environ.get("HUBEDIT_NETWORK_TRIES", "3"))
pytestmark = pytest.mark.timeout(200 * TRIES)


def spoken(status, err):
    """A command that failed said why in one sentence, without a traceback."""
    assert status in (0, 1), err
    assert "Traceback" not in err
    if status:
        assert err.strip().splitlines()[-1].startswith("hubedit: "), err
    return status == 0


def test_every_command_gives_the_right_result_or_none(
    localhub, tiny, hubedit, tmp_path, monkeypatch
):
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    work = recipe_in(tmp_path / "work", "me/tiny")
    monkeypatch.chdir(work)
    assert hubedit("apply", "-o", "right")[0] == 0
    right = edits_of("right", Hub).stack.result
    failed = 0
    for number in range(TRIES):
        repo, made = f"me/r{number}", work / f"e{number}"
        with flaky(localhub.url, 0.25, seed=number) as network:
            monkeypatch.setenv("HF_ENDPOINT", network.url)
            monkeypatch.setenv("HF_HOME", str(tmp_path / f"cache{number}"))
            commands = {
                "apply": ("apply", "--push", "-o", made, "--to", repo),
                "merge": ("merge", repo, 1),
                "verify": ("verify", repo, "--deep"),
                "materialize": ("materialize", repo, "-o", work / f"m{number}"),
                "diff": ("diff", "me/tiny", repo, "--json"),
            }
            for name, command in commands.items():
                status, _, err = hubedit(*command)
                assert leftovers(work) == []
                if spoken(status, err):
                    continue
                failed += 1
                network.calm = True
                again = command
                if name == "apply" and made.exists():
                    assert verify(edits_of(str(made), Hub)).problems == []
                    again = ("push", made, "--to", repo)
                status, _, err = hubedit(*again)
                assert status == 0, err
                network.calm = False
            network.calm = True
            assert edits_of(f"{repo}@v1", Hub).stack.result == right
            assert verify(edits_of(str(work / f"m{number}"), Hub), deep=True).problems == []
    assert failed
    assert set(network.did) <= {"nothing", *FAULTS}
