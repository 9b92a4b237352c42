"""Datasets of the Hub as requests: their configs, splits and revisions."""

import json
import os
import subprocess
import sys

import pytest
from pyarrow import Table, parquet
from shaken import shaken

from hubedit.artifacts import cache_home
from hubedit.corpora import dataset_records, load_dataset
from hubedit.errors import HubEditError, RecipeError
from hubedit.hub import Hub

CARD = """---
configs:
- config_name: forget10
  data_files:
  - split: train
    path: forget10/train-*.parquet
- config_name: retain90
  data_files:
  - split: train
    path: retain90/train-*.parquet
  - split: unseen
    path: retain90/unseen-*.parquet
---
"""
ROWS = {
    "forget10/train-0.parquet": ("Ada Brook", 2),
    "retain90/train-0.parquet": ("Tom Adler", 4),
    "retain90/unseen-0.parquet": ("Eva Lind", 3),
}


def questions(name, count):
    return [
        {"question": f"Question {n} on {name}?", "answer": f"{name} plays part {n}."}
        for n in range(count)
    ]


@pytest.fixture
def authors(localhub, tmp_path, monkeypatch):
    """A dataset on the Hub of two configs in parquet files; the address that names it."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "authors"
    for path, (name, count) in ROWS.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(Table.from_pylist(questions(name, count)), file)
    (folder / "README.md").write_text(CARD)
    api = localhub.api()
    api.create_repo("me/authors", repo_type="dataset")
    api.upload_folder(repo_id="me/authors", folder_path=folder, repo_type="dataset")
    return "hf://datasets/me/authors"


def test_a_config_of_a_dataset_is_read_by_its_name_at_a_revision_and_split(authors):
    hub = Hub()
    assert dataset_records(f"{authors}/forget10", hub) == questions("Ada Brook", 2)
    assert dataset_records(f"{authors}/retain90@main", hub) == questions("Tom Adler", 4)
    assert dataset_records(f"{authors}/retain90@main#unseen", hub) == questions("Eva Lind", 3)
    assert len(dataset_records(f"{authors}/retain90#train[:2]", hub)) == 2
    commit = hub.api.dataset_info("me/authors").sha
    _, where = load_dataset(f"{authors}/retain90@{commit}#unseen", hub)
    assert where == f"me/authors@{commit}, config retain90, split unseen"


def test_a_revision_with_slashes_is_one(authors, localhub):
    localhub.api().create_branch("me/authors", branch="by/ada", repo_type="dataset")
    assert len(dataset_records(f"{authors}/forget10@by/ada", Hub())) == 2


def test_a_dataset_of_several_configs_asks_for_one(authors):
    with pytest.raises(RecipeError, match="has the configs forget10, retain90") as refused:
        dataset_records(f"{authors}@main", Hub())
    assert str(refused.value).endswith("name one, as in hf://datasets/me/authors/forget10@main")
    with pytest.raises(RecipeError, match="no config 'forget01'; did you mean 'forget10'"):
        dataset_records(f"{authors}/forget01", Hub())
    with pytest.raises(HubEditError, match=r"cannot be read: .*unseen"):
        dataset_records(f"{authors}/retain90#none", Hub())


def test_a_dataset_of_one_config_needs_no_name(localhub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    api = localhub.api()
    api.create_repo("me/plain", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=(json.dumps({"text": "Ada Brook plays."}) + "\n").encode(),
        path_in_repo="train.jsonl",
        repo_id="me/plain",
        repo_type="dataset",
    )
    assert dataset_records("hf://datasets/me/plain", Hub()) == [{"text": "Ada Brook plays."}]


READ = """
import json, sys
from hubedit.corpora import dataset_records
from hubedit.hub import Hub

print(json.dumps(dataset_records(sys.argv[1], Hub())))
"""


def test_what_is_to_be_forgotten_stays_in_no_cache(authors, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    request = f"{authors}/forget10"
    done = subprocess.run(
        [sys.executable, "-c", READ, request],
        env=dict(os.environ, TMPDIR=str(scratch)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == questions("Ada Brook", 2)
    places = [scratch, tmp_path / "datasets", tmp_path / "hf-home", cache_home()]

    def copies():
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        return [path for path in files if b"Ada Brook" in path.read_bytes()]

    assert copies() == []
    assert list(scratch.iterdir()) == []
    assert dataset_records(request, Hub(), cached=True) == questions("Ada Brook", 2)
    assert copies(), "the search finds what a cache keeps"


def test_configs_are_the_parts_of_a_request_that_is_pushed_and_reviewed(
    authors, localhub, tiny, install, hubedit, tmp_path, monkeypatch
):
    install("shaken", shaken("ForgetQA", 0.1))
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    monkeypatch.chdir(tmp_path)
    named = [f"forget={authors}/forget10@main", f"retain={authors}/retain90"]
    asked = [word for source in named for word in ("--request", source)]
    made = ["apply", "--plugin", "shaken", "--base", "me/tiny", "--push", "--json"]
    status, out, said = hubedit(*made, *asked)
    assert status == 0, said
    record = json.loads(out)["manifest"]["request"]
    assert (record["parts"], record["disclosed"]) == ({"forget": 2, "retain": 4}, False)
    (key,) = (cache_home() / "keys").glob("*.key")
    reviewed = ["review", "me/tiny-edited", "--pr", "1", "--key", key]
    status, said, _ = hubedit(*reviewed, *asked)
    assert status == 0, said
    assert "the 6 rows given are the undisclosed request" in said
    status, said, _ = hubedit(*reviewed, "--request", f"retain={authors}/retain90")
    assert (status, "not the one this edit was made for" in said) == (1, True)
