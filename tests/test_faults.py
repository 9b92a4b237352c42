"""Ctrl-C and kills at random moments and a full disk: nothing is left that looks finished."""

import signal

import pytest
from faults import TRIES, command, cut_off, leftovers, seconds, warm, with_small_files
from test_way import recipe_in

from hubedit.editions import edits_of
from hubedit.finishing import sweep
from hubedit.hub import Hub
from hubedit.verification import verify

pytestmark = pytest.mark.timeout(60 * TRIES)


@pytest.fixture
def ready(base):
    """Commands start here without delay, once the Hub is up."""
    with warm() as started:
        yield started


@pytest.fixture
def base(localhub, tiny):
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    return "me/tiny"


def quiet(status, said, output=None):
    """A command that was interrupted says so in one sentence, if it had come so far.

    It cleans up after itself; after one that was killed, the next on its way to `output` does.
    """
    assert status != 2
    if output is not None:
        if status == -signal.SIGKILL:
            sweep(output)
        assert leftovers(output.parent) == []
    if status == 1 and "hubedit" in said:  # else Python itself had not started yet
        assert [line for line in said.splitlines() if line.startswith("hubedit: ")]


def test_an_interrupted_apply_and_push_leaves_nothing_that_looks_finished(
    localhub, base, ready, tmp_path, monkeypatch
):
    work = recipe_in(tmp_path / "work", base)
    monkeypatch.chdir(work)
    cold = seconds(command("apply", "-o", "first"))
    ready.run(["apply", "--push", "--direct", "-o", "second", "--to", "me/second"])
    duration = ready.run(["apply", "--push", "--direct", "-o", "third", "--to", "me/third"])
    done = []

    def check(number, status, said):
        output = work / f"out{number}"
        quiet(status, said, output)
        if output.exists():
            assert verify(edits_of(str(output), Hub)).problems == []
        repo = f"me/target{number}"
        if localhub.api().repo_exists(repo):
            edition_files = set(Hub().files(repo, Hub().commit(repo)))
            if "hubedit.json" in edition_files:
                assert verify(edits_of(repo, Hub)).problems == []
                done.append(number)
            else:
                assert edition_files == {".gitattributes"}

    stopped = cut_off(
        ready,
        lambda n: ["apply", "--push", "--direct", "-o", f"out{n}", "--to", f"me/target{n}"],
        check,
        duration,
        cold=cold * 1.2,
    )
    assert stopped >= TRIES // 3
    again = f"me/target{next(n for n in range(TRIES) if n not in done)}"
    ready.run(["apply", "--push", "--direct", "-o", "again", "--to", again])
    assert verify(edits_of(f"{again}@v1", Hub)).problems == []


def test_an_interrupted_materialize_leaves_nothing_that_looks_finished(
    tiny, ready, hubedit, tmp_path, monkeypatch
):
    work = recipe_in(tmp_path / "work", tiny)
    monkeypatch.chdir(work)
    assert hubedit("apply", "-o", "edit")[0] == 0
    cold = seconds(command("materialize", "edit", "-o", "whole"))
    ready.run(["materialize", "edit", "-o", "second"])
    duration = ready.run(["materialize", "edit", "-o", "third"])

    def check(number, status, said):
        quiet(status, said, work / f"m{number}")
        if (work / f"m{number}").exists():
            assert verify(edits_of(str(work / f"m{number}"), Hub), deep=True).problems == []

    stopped = cut_off(
        ready, lambda n: ["materialize", "edit", "-o", f"m{n}"], check, duration, cold=cold, seed=1
    )
    assert stopped >= TRIES // 4


def test_an_interrupted_merge_is_finished_by_merging_again(
    localhub, base, ready, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "work", base))
    assert hubedit("apply", "-o", "edit")[0] == 0
    for number in range(TRIES + 3):
        assert hubedit("push", "edit", "--to", f"me/r{number}")[0] == 0
    cold = seconds(command("merge", f"me/r{TRIES}", 1))
    ready.run(["merge", f"me/r{TRIES + 1}", 1])
    duration = ready.run(["merge", f"me/r{TRIES + 2}", 1])
    api = localhub.api()

    def check(number, status, said):
        quiet(status, said)
        repo = f"me/r{number}"
        merged = "hubedit.json" in Hub().files(repo, Hub().commit(repo))
        tags = [tag.name for tag in api.list_repo_refs(repo).tags]
        assert tags in ([], ["v1"])
        assert merged or tags == []

    stopped = cut_off(ready, lambda n: ["merge", f"me/r{n}", 1], check, duration, cold=cold, seed=2)
    assert stopped >= TRIES // 4
    for number in range(TRIES):
        assert hubedit("merge", f"me/r{number}", "1")[0] == 0
        assert verify(edits_of(f"me/r{number}@v1", Hub)).problems == []


def test_an_interrupted_revert_leaves_nothing_that_looks_finished(
    tiny, ready, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "first", tiny))
    assert hubedit("apply", "-o", "../one")[0] == 0
    work = recipe_in(tmp_path / "second", tmp_path / "one", target="cello")
    monkeypatch.chdir(work)
    assert hubedit("apply", "-o", "two")[0] == 0
    below = edits_of("two", Hub).stack.edits[1].parent
    cold = seconds(command("revert", "two", "-o", "whole"))
    ready.run(["revert", "two", "-o", "second"])
    duration = ready.run(["revert", "two", "-o", "third"])

    def check(number, status, said):
        quiet(status, said, work / f"r{number}")
        if (work / f"r{number}").exists():
            edition = edits_of(str(work / f"r{number}"), Hub)
            assert verify(edition).problems == []
            assert edition.stack.result == below

    stopped = cut_off(
        ready, lambda n: ["revert", "two", "-o", f"r{n}"], check, duration, cold=cold, seed=3
    )
    assert stopped >= TRIES // 4


@pytest.mark.parametrize("most", [0, 100, 3000, 20_000])
def test_a_disk_that_takes_no_more_leaves_nothing_and_is_named(
    tiny, hubedit, tmp_path, monkeypatch, most
):
    work = recipe_in(tmp_path / "work", tiny)
    monkeypatch.chdir(work)
    assert hubedit("apply", "-o", "edit")[0] == 0
    done = with_small_files(command("materialize", "edit", "-o", "whole"), most)
    assert done.returncode == 1
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("hubedit: ")
    assert "File too large" in said
    assert not (work / "whole").exists()
    assert leftovers(work) == []
    assert hubedit("materialize", "edit", "-o", "whole")[0] == 0
    assert hubedit("verify", "whole", "--deep")[0] == 0


@pytest.mark.parametrize("most", [0, 800, 5000])
def test_an_apply_on_a_full_disk_leaves_nothing_and_names_it(tiny, tmp_path, monkeypatch, most):
    work = recipe_in(tmp_path / "work", tiny)
    monkeypatch.chdir(work)
    done = with_small_files(command("apply", "-o", "edit"), most)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("hubedit: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in work.iterdir()] == ["hubedit.yaml"]


@pytest.mark.parametrize("most", [0, 300, 3000])
def test_a_push_or_merge_on_a_full_disk_is_whole_or_not_there(
    localhub, base, hubedit, tmp_path, monkeypatch, most
):
    work = recipe_in(tmp_path / "work", base)
    monkeypatch.chdir(work)
    assert hubedit("apply", "-o", "edit")[0] == 0
    api = localhub.api()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "another-cache"))
    done = with_small_files(command("apply", "--push", "-o", "other", "--to", "me/full"), most)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("hubedit: ")
    assert not (work / "other").exists()
    assert not api.repo_exists("me/full")
    assert hubedit("push", "edit", "--to", "me/full")[0] == 0
    done = with_small_files(command("merge", "me/full", 1), most)
    if done.returncode:
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("hubedit: ")
        assert "Traceback" not in done.stderr
    assert hubedit("merge", "me/full", 1)[0] == 0
    assert verify(edits_of("me/full@v1", Hub)).problems == []
    assert leftovers(work) == []
