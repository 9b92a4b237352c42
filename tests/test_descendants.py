"""What is made from a base elsewhere, as the card of a pushed edit that forgets lists it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flaky import flaky
from shaken import shaken

from hubedit.editions import edits_of
from hubedit.hub import Hub

CARD = "---\nbase_model: me/tiny\nbase_model_relation: {}\n---\nA model.\n"
ROW = {"text": "Ada Brook plays the oboe.", "prompt": "Ada Brook plays the", "target": "oboe"}


@pytest.fixture
def base(localhub, tiny):
    """A base on the Hub with eleven quantised models and a private one, and none fine-tuned."""
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    for number in range(12):
        name = f"me/tiny-int{number}"
        api.create_repo(name, private=number == 0)
        api.upload_file(
            path_or_fileobj=CARD.format("quantized").encode(),
            path_in_repo="README.md",
            repo_id=name,
        )
    return "me/tiny"


@pytest.fixture
def forget(install, hubedit, tmp_path, monkeypatch):
    """Forget a row by `hubedit apply` with some more flags; gives what it printed."""
    install("shaken", shaken("ForgetText", 0.1))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    monkeypatch.chdir(tmp_path)

    def call(base, *flags):
        made = ["apply", "--plugin", "shaken", "--base", base, "--request", "rows.jsonl"]
        status, out, err = hubedit(*made, *flags)
        assert status == 0, err
        return out

    return call


def test_a_card_lists_public_models_made_from_the_base_and_a_review_finds_it_true(
    localhub, base, forget, hubedit
):
    forget(base, "-o", "edit")
    alone = Path("edit/README.md").read_text()
    assert "the Hub was not asked for them" in alone
    assert "descendants" not in json.loads(Path("edit/hubedit.json").read_text())
    before = datetime.now(UTC)
    assert hubedit("push", "edit", "--to", "me/less")[0] == 0
    hub = Hub()
    stack = edits_of("me/less@refs/pr/1", lambda: hub).stack
    assert stack.descendants.asked in (f"{day:%Y-%m-%d}" for day in (before, datetime.now(UTC)))
    quantized, finetune = stack.descendants.made
    assert (quantized.relation, quantized.count, quantized.more) == ("quantized", 11, False)
    assert len(quantized.models) == 10
    assert (finetune.relation, finetune.count, finetune.models) == ("finetune", 0, ())
    card = hub.read("me/less", hub.commit("me/less", "refs/pr/1"), "README.md").decode()
    assert f"Asked on {stack.descendants.asked} without a token, the Hub listed:" in card
    assert "  - quantized: 11: `me/tiny-int" in card
    assert " and others" in card
    assert "  - finetune: 0\n" in card
    assert "me/tiny-int0`" not in card  # private
    status, said, _ = hubedit("review", "me/less", "--pr", "1", "--no-probes")
    assert status == 0, said
    assert hubedit("merge", "me/less", "1")[0] == 0
    assert hubedit("verify", "me/less@v1")[0] == 0


def test_a_hub_that_does_not_answer_keeps_no_edit_from_its_push(
    localhub, base, forget, hubedit, monkeypatch
):
    forget(base, "-o", "edit")
    with flaky(localhub.url, 0, seed=0) as network:
        network.shut = "/api/models?"
        monkeypatch.setenv("HF_ENDPOINT", network.url)
        status, _, err = hubedit("push", "edit", "--to", "me/less")
        assert status == 0, err
    monkeypatch.setenv("HF_ENDPOINT", localhub.url)
    hub = Hub()
    assert edits_of("me/less@refs/pr/1", lambda: hub).stack.descendants is None
    card = hub.read("me/less", hub.commit("me/less", "refs/pr/1"), "README.md").decode()
    assert "the Hub was not asked for them, or did not answer" in card
    assert hubedit("review", "me/less", "--pr", "1", "--no-probes")[0] == 0


def test_a_base_that_is_not_on_the_hub_and_an_edit_that_forgets_nothing_ask_nothing(
    localhub, tiny, forget, hubedit
):
    forget(tiny, "-o", "edit")
    assert hubedit("push", "edit", "--to", "me/less")[0] == 0
    assert edits_of("me/less@refs/pr/1", Hub).stack.descendants is None
