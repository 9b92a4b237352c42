"""Unfinished work in the store: found again, held by one, and no trace of its key."""

import threading
from contextlib import ExitStack

import pytest
from filelock import FileLock

from hubedit.artifacts import ArtifactStore

KEY = {"kind": "training", "request": "0123456789abcdef"}


def left(store):
    """Names of all that lies in a store."""
    return sorted(path.name for path in store.root.iterdir())


def test_work_that_ended_well_leaves_nothing_behind(tmp_path):
    store = ArtifactStore(tmp_path)
    with store.workspace(KEY) as work:
        (work / "state").write_text("half")
    assert left(store) == []


def test_work_that_was_interrupted_is_found_again_under_a_name_nobody_can_guess(
    tmp_path, monkeypatch
):
    store = ArtifactStore(tmp_path / "store")
    with ExitStack() as open_work:
        open_work.enter_context(pytest.raises(KeyboardInterrupt))
        work = open_work.enter_context(store.workspace(KEY))
        (work / "state").write_text("half")
        raise KeyboardInterrupt
    names = left(store)
    assert len(names) == 2
    assert not any(store.address(KEY) in name for name in names)
    with monkeypatch.context() as there:
        there.setenv("HUBEDIT_HOME", str(tmp_path / "elsewhere"))
        with store.workspace(KEY) as other:
            assert other != work
            assert list(other.iterdir()) == []
    with store.workspace(KEY) as again:
        assert again == work
        assert (again / "state").read_text() == "half"
    assert left(store) == []


def test_one_at_a_time_has_the_work_though_its_lock_goes_with_it(tmp_path):
    store, inside, most = ArtifactStore(tmp_path), [], []

    def work():
        for _ in range(25):
            with store.workspace(KEY):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100
    assert max(most) == 1
    assert left(store) == []


def test_a_sweep_deletes_locks_of_work_that_is_gone(tmp_path):
    store = ArtifactStore(tmp_path)
    for name in ("gone.lock", "held.lock", "begun.lock"):
        (tmp_path / name).touch()
    (tmp_path / "begun.work").mkdir()
    with FileLock(tmp_path / "held.lock"):
        store.sweep()
    assert left(store) == ["begun.lock", "begun.work", "held.lock"]
