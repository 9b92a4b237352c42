"""Directories that appear finished or not at all, two on the way to one place among them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from hubedit.finishing import finished


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_at_the_end_and_only_then(tmp_path):
    with finished(tmp_path / "out") as work:
        (work / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a"]


def test_a_failure_leaves_nothing_and_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(ValueError, match="no"), finished(tmp_path / "out", replace=True):
        raise ValueError("no")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


def test_a_full_directory_gives_way_only_when_asked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(OSError, match="not empty"), finished(tmp_path / "out") as work:
        (work / "new").write_text("new")
    assert names(tmp_path / "out") == ["old"]
    with finished(tmp_path / "out", replace=True) as work:
        (work / "new").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_what_another_run_still_writes_is_not_swept(tmp_path):
    with finished(tmp_path / "out", replace=True) as first:
        (first / "a").write_text("a")
        with finished(tmp_path / "out", replace=True) as second:
            (second / "b").write_text("b")
            assert first.exists()
        assert names(tmp_path / "out") == ["b"]
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a"]


def test_what_nobody_holds_is_swept_for_the_same_place_alone(tmp_path):
    for left in (".out.12ab34cd.partial", ".other.12ab34cd.partial", ".out.keep"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "large").write_text("large")
    with finished(tmp_path / "out"):
        pass
    assert names(tmp_path) == [".other.12ab34cd.partial", ".out.keep", "out"]


def test_runs_that_sweep_each_other_all_finish(tmp_path):
    def run(number):
        for turn in range(20):
            with finished(tmp_path / "out", replace=True) as work:
                (work / f"{number}-{turn}").write_text("x")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, number) for number in range(8)]:
            done.result()
    assert names(tmp_path) == ["out"]
    assert len(names(tmp_path / "out")) == 1
