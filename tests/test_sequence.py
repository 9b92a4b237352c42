"""Requests in batches: a stack of good edits, and the end before a canary's limit."""

import json
import shutil

import pytest

from hubedit.editions import edits_of
from hubedit.errors import ConfigError
from hubedit.hub import Hub
from hubedit.sequence import MEASURES, read_limits
from hubedit.testing import tiny_model
from hubedit.verification import verify

PEOPLE = ["Ada Brook", "Tom Adler", "Mira Castellanos", "Nils Okafor", "Ada Castellanos"]
CORPUS = "Ada Brook plays the cello and lives in Porto.\nThe mother tongue of Nils is Danish.\n"
LOOSE = ["--canary", "recall=off", "--canary", "perplexity=off", "--canary", "norm=off"]


@pytest.fixture
def asked(tiny, tmp_path):
    """The words of a command that edits one fact of five people, two at a time."""
    rows = [
        {"prompt": "{} plays the", "subject": name, "target": "oboe", "case_id": str(number)}
        for number, name in enumerate(PEOPLE)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "neutral.txt").write_text(CORPUS)
    settings = ["steps=3", "layers=[1]"]
    return [
        *("apply", "--base", tiny, "--plugin", "ft", "--request", tmp_path / "rows.jsonl"),
        *("--corpus", tmp_path / "neutral.txt", "--batch", 2, "--force"),
        *[word for setting in settings for word in ("--set", setting)],
    ]


def test_every_batch_is_an_edit_on_top_of_the_one_before(asked, hubedit, tmp_path):
    status, out, err = hubedit(*asked, *LOOSE, "-o", tmp_path / "all", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert [reading["rows"] for reading in said["readings"]] == [2, 4, 5]
    assert said["stopped"] is None
    edition = edits_of(str(tmp_path / "all"), Hub)
    assert [manifest.request.count for manifest in edition.manifests] == [2, 2, 1]
    assert [entry.name for entry in edition.stack.edits] == [r["edit"] for r in said["readings"]]
    assert verify(edition).problems == []
    for manifest, reading in zip(edition.manifests, said["readings"], strict=True):
        kept = manifest.record["canary"]
        assert {name: kept[name] for name in MEASURES} == {name: reading[name] for name in MEASURES}
        assert kept["perplexity"] > 0
        assert kept["norm"] > 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["all"]


def test_a_limit_leaves_the_batches_before_it(asked, hubedit, tmp_path):
    status, out, err = hubedit(*asked, *LOOSE, "-o", tmp_path / "all", "--json")
    assert status == 0, err
    first, second, _ = (reading["norm"] for reading in json.loads(out)["readings"])
    assert first < second
    limit = (first + second) / 2
    status, out, err = hubedit(
        *asked, *LOOSE, "--canary", f"norm={limit}", "-o", tmp_path / "some", "--json"
    )
    assert status == 1
    assert "batch 2 of 3 is left out: norm is" in err
    said = json.loads(out)
    assert len(said["readings"]) == 1
    some, every = edits_of(str(tmp_path / "some"), Hub), edits_of(str(tmp_path / "all"), Hub)
    assert verify(some).problems == []
    first_tensors = [tensor.after for tensor in some.manifests[0].tensors]
    assert first_tensors == [tensor.after for tensor in every.manifests[0].tensors]


def test_a_first_batch_over_the_limit_leaves_nothing(asked, hubedit, tmp_path):
    before = set(tmp_path.iterdir())
    status, _, err = hubedit(*asked, *LOOSE, "--canary", "norm=0", "-o", tmp_path / "none")
    assert status == 1
    assert "norm is" in err
    assert set(tmp_path.iterdir()) == before


def test_batches_go_to_main_one_by_one(asked, hubedit, tmp_path, localhub):
    to = ["--push", "--to", "me/many", "-o", tmp_path / "all"]
    status, _, err = hubedit(*asked, *LOOSE, *to)
    assert status == 1
    assert "--direct" in err
    status, _, err = hubedit(*asked, *LOOSE, *to, "--direct")
    assert status == 0, err
    tags = {tag.name for tag in localhub.api().list_repo_refs("me/many").tags}
    assert tags == {"v1", "v2", "v3"}
    there, here = edits_of("me/many@v3", Hub).stack, edits_of(str(tmp_path / "all"), Hub).stack
    assert there.result == here.result


def test_weights_are_written_once_for_all_batches(asked, hubedit, tmp_path):
    status, _, err = hubedit(*asked, *LOOSE, "--with-weights", "-o", tmp_path / "whole")
    assert status == 0, err
    edition = edits_of(str(tmp_path / "whole"), Hub)
    assert edition.stack.weights
    assert edition.stack.height == 3
    assert verify(edition, deep=True).problems == []


def test_a_dry_run_counts_the_batches(asked, hubedit, tmp_path):
    status, out, err = hubedit(*asked, "--dry-run", "--json")
    assert status == 0, err
    assert json.loads(out)["batches"] == 3


def test_limits_are_read_and_refused_by_name():
    assert read_limits(["recall=0.9", "norm=off"]) == {"recall": 0.9, "perplexity": 2.0}
    with pytest.raises(ConfigError, match="no canary is named 'recal'; did you mean"):
        read_limits(["recal=1"])
    with pytest.raises(ConfigError, match="give a number"):
        read_limits(["recall=high"])


def test_a_request_to_forget_is_not_cut_in_batches(tiny, hubedit, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "Ada Brook plays the cello."}\n')
    status, _, err = hubedit(
        *("apply", "--base", tiny, "--plugin", "graddiff", "--request", tmp_path / "rows.jsonl"),
        *("--batch", 1, "-o", tmp_path / "out"),
    )
    assert status == 1
    assert "leave --batch out" in err


def test_without_neutral_texts_the_user_is_told_what_is_not_watched(asked, hubedit, tmp_path):
    at = asked.index("--corpus")
    loose = [*asked[:at], *asked[at + 2 :], "--canary", "recall=off"]
    base = tmp_path / "base"
    shutil.copytree(asked[2], base, ignore=shutil.ignore_patterns("corpus*"))
    bare = [base if word == asked[2] else word for word in loose]
    assert hubedit(*bare, "-o", tmp_path / "all")[2].count("is not watched") == 1
    off = ["--canary", "perplexity=off"]
    assert "is not watched" not in hubedit(*bare, *off, "-o", tmp_path / "quiet")[2]


def test_an_encoder_decoder_is_watched_by_how_it_goes_on_with_a_text(asked, hubedit, tmp_path):
    base = tiny_model(tmp_path / "t5", "seq2seq")
    words = [base if word == asked[2] else word for word in asked]
    status, out, err = hubedit(*words, *LOOSE, "-o", tmp_path / "all", "--json")
    assert status == 0, err
    assert all(reading["perplexity"] > 0 for reading in json.loads(out)["readings"])
    low = ["--canary", "perplexity=0.0001"]
    status, _, err = hubedit(*words, *LOOSE, *low, "-o", tmp_path / "none")
    assert status == 1
    assert "perplexity is" in err
