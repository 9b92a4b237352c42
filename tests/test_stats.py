"""`hubedit stats`: statistics made before they are needed, used by an edit, shared by a dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hubedit.artifacts import ArtifactStore, cache_home
from hubedit.errors import ConfigError
from hubedit.measuring import layers_of
from hubedit.moments import FILE

REQUEST = ("--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe")


def store():
    return cache_home() / "artifacts"


@pytest.fixture
def computed(hubedit, tiny):
    status, out, err = hubedit("stats", "compute", tiny, "--layers", "0-1", "--json")
    assert status == 0, err
    return json.loads(out)


def test_what_was_computed_is_what_an_edit_uses(hubedit, tiny, computed, tmp_path):
    assert [row["module"] for row in computed] == [
        f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)
    ]
    before = sorted(path.name for path in store().iterdir() if path.is_dir())
    status, _, err = hubedit(
        *("apply", "--base", tiny, "--plugin", "rome", *REQUEST, "--set", "layer=1", "--force"),
        *("-o", tmp_path / "out", "--set", "steps=2"),
    )
    assert status == 0, err
    assert sorted(path.name for path in store().iterdir() if path.is_dir()) == before
    (folder,) = (tmp_path / "out" / "edits").iterdir()
    record = json.loads((folder / "manifest.json").read_text())["record"]["statistics"]
    assert record["artifact"] == computed[1]["artifact"]
    assert record["error"] == computed[1]["error"]


def test_the_list_says_what_is_there_and_how_good_it_is(hubedit, computed):
    status, out, _ = hubedit("stats", "list", "--json")
    assert status == 0
    listed = {row["artifact"]: row for row in json.loads(out)}
    assert listed == {row["artifact"]: row for row in computed}
    row = computed[0]
    assert row["finished"]
    assert row["model"].startswith("tiny (local, ")
    assert row["tokens"] > row["width"] == 64
    assert 0 < row["error"] < 1
    assert row["quality"].startswith(f"± {row['error']:.1%}; ")
    status, out, _ = hubedit("stats", "list")
    assert row["artifact"][:12] in out


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(hubedit, tiny, computed):
    before = sorted(store().rglob("*"))
    given = ("stats", "compute", tiny, "--layers", "1-2", "--dry-run")
    status, out, err = hubedit(*given, "--json")
    assert status == 0, err
    here, missing = json.loads(out)
    assert here == computed[1]
    assert set(missing) == set(here)
    assert not missing["finished"]
    assert missing["bytes"] == 8 * missing["width"] ** 2
    assert "to be made" in hubedit(*given)[1]
    assert sorted(store().rglob("*")) == before
    status, out, _ = hubedit("stats", "compute", tiny, "--layers", "2", "--json")
    (made,) = json.loads(out)
    for same in ("artifact", "model", "module", "source", "texts", "length", "width"):
        assert made[same] == missing[same]


def test_fewer_texts_are_an_estimate_with_a_larger_error(hubedit, tiny, computed):
    status, out, _ = hubedit("stats", "compute", tiny, "--layers", "1", "--texts", "12", "--json")
    assert status == 0
    (few,) = json.loads(out)
    assert few["tokens"] < computed[1]["tokens"]
    assert few["error"] > computed[1]["error"]


def test_a_dataset_repository_takes_and_gives_them(hubedit, localhub, computed, tiny, monkeypatch):
    repo = f"{localhub.user}/statistics"
    assert hubedit("stats", "push", "--to", repo, "--dry-run")[0] == 0
    status, out, err = hubedit("stats", "push", "--to", repo, computed[0]["artifact"][:9], "--json")
    assert status == 0, err
    first = json.loads(out)["commit"]
    status, out, err = hubedit("stats", "push", "--to", repo, "--json")
    assert status == 0, err
    assert json.loads(out)["commit"] not in (None, first)
    assert "has them all" in hubedit("stats", "push", "--to", repo)[1]

    kept = {row["artifact"]: (store() / row["artifact"] / FILE).read_bytes() for row in computed}
    shutil.rmtree(store())
    status, out, err = hubedit("stats", "pull", repo, computed[1]["artifact"][:9], "--json")
    assert status == 0, err
    assert json.loads(out) == {"repo": repo, "pulled": [computed[1]["artifact"]], "present": []}
    # the other one is fetched when it is needed, in place of a pass over the texts
    monkeypatch.setenv("HUBEDIT_ARTIFACTS", repo)
    status, out, err = hubedit("stats", "compute", tiny, "--layers", "0-1", "--json")
    assert status == 0, err
    for row in json.loads(out):
        assert (store() / row["artifact"] / FILE).read_bytes() == kept[row["artifact"]]
    status, out, _ = hubedit("stats", "pull", repo, "--json")
    assert json.loads(out)["pulled"] == []


def test_a_file_that_is_not_the_one_listed_is_refused(hubedit, localhub, computed):
    from huggingface_hub import HfApi

    repo = f"{localhub.user}/statistics"
    assert hubedit("stats", "push", "--to", repo)[0] == 0
    address = computed[0]["artifact"]
    api = HfApi(endpoint=localhub.url, token=localhub.token)
    api.upload_file(
        path_or_fileobj=b"{}",
        path_in_repo=f"artifacts/{address}/facts.json",
        repo_id=repo,
        repo_type="dataset",
    )
    shutil.rmtree(store())
    status, _, err = hubedit("stats", "pull", repo, address)
    assert status == 1
    assert "facts.json of artifact" in err
    assert list(ArtifactStore().held("second-moment")) == []


def test_the_card_lists_them_and_says_how_to_use_them(hubedit, localhub, computed):
    from huggingface_hub import hf_hub_download

    repo = f"{localhub.user}/statistics"
    hubedit("stats", "push", "--to", repo)
    card = Path(
        hf_hub_download(
            repo, "README.md", repo_type="dataset", endpoint=localhub.url, token=localhub.token
        )
    ).read_text()
    assert f"hubedit stats pull {repo}" in card
    for row in computed:
        assert row["artifact"][:12] in card


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compute", "{tiny}", "--layers", "7"), "layers 0 to 2"),
        (("compute", "{tiny}", "--layers", "top"), "3-5,8"),
        (("compute", "{bare}"), "--corpus FILE"),
        (("push", "--to", "me/none"), "stats compute"),
    ],
)
def test_what_cannot_be_done_is_said(hubedit, tiny, tmp_path, arguments, said):
    bare = shutil.copytree(tiny, tmp_path / "bare")
    (bare / "corpus.txt").unlink()
    given = [text.format(tiny=tiny, bare=bare) for text in arguments]
    status, _, err = hubedit("stats", *given)
    assert status == 1
    assert said in " ".join(err.split())


def test_layers_are_read_as_numbers_and_ranges():
    assert layers_of("3-5,8", 9) == [3, 4, 5, 8]
    assert layers_of(None, 9) == []
    with pytest.raises(ConfigError, match="cannot be read"):
        layers_of("", 9) or layers_of(",", 9)
