"""The `hf` command and the libraries, each in a process of its own, as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hubedit_localhub.background import environment
from huggingface_hub import HfApi

Hf = Callable[..., str]


@pytest.fixture
def variables(hub: SimpleNamespace, tmp_path: Path) -> dict[str, str]:
    """The environment in which a program talks to this Hub alone."""
    direct = environment(hub.url, hub.token, tmp_path / "hf")
    found = {**os.environ, **direct, "HOME": str(tmp_path), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in found.items() if not name.startswith("XDG_")}


# Starting Python costs more than what a command does: this runs one after another.
COMMANDS = """
import contextlib, io, json, sys
from huggingface_hub.cli.hf import main
for line in sys.stdin:
    sys.argv = ["hf", *json.loads(line)]
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as done:
            code = done.code or 0
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


@pytest.fixture
def hf(variables: dict[str, str]) -> Iterator[Hf]:
    """Run the `hf` command's own entry point; `ok` False wants it to fail."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    ) as process:
        sent, answers = process.stdin, process.stdout
        assert sent is not None
        assert answers is not None

        def run(*words: str, ok: bool = True) -> str:
            sent.write(json.dumps(words) + "\n")
            sent.flush()
            code, said = json.loads(answers.readline())
            assert (code == 0) == ok, said
            return str(said)

        yield run
        sent.close()


def test_the_command_as_installed_knows_who_it_is(
    variables: dict[str, str], shelf: SimpleNamespace
) -> None:
    command = Path(sys.executable).with_name("hf")
    done = subprocess.run(
        [command, "auth", "whoami"], capture_output=True, text=True, env=variables, check=True
    )
    assert shelf.user in done.stdout


def _json(hf: Hf, *words: str) -> Any:
    return json.loads(hf(*words, "--format", "json"))


def test_the_command_makes_changes_and_deletes_repositories(
    hf: Hf, client: HfApi, new_id: Callable[..., str]
) -> None:
    repo, copy, moved = (new_id(create=False) for _ in range(3))
    user, name = repo.split("/")
    assert user in hf("auth", "whoami")
    hf("repos", "create", name, "--private")
    assert client.model_info(repo).private
    hf("repos", "settings", repo, "--public", "--gated", "auto")
    assert (client.model_info(repo).private, client.model_info(repo).gated) == (False, "auto")
    hf("repos", "settings", repo, "--gated", "false")
    hf("repos", "duplicate", repo, copy)
    hf("repos", "move", copy, moved)
    hf("repos", "delete", moved, "--yes")
    assert not client.repo_exists(moved)
    assert repo in hf("repos", "list", "--format", "json")
    hf("repos", "branch", "create", repo, "dev")
    hf("repos", "tag", "create", repo, "v1", "--revision", "dev")
    assert "v1" in hf("repos", "tag", "list", repo)
    hf("repos", "tag", "delete", repo, "v1", "--yes")
    hf("repos", "branch", "delete", repo, "dev")
    refs = client.list_repo_refs(repo)
    assert ([ref.name for ref in refs.branches], refs.tags) == (["main"], [])


def test_the_command_uploads_reviews_and_downloads(
    hf: Hf, client: HfApi, fresh: str, folder: Path, tmp_path: Path
) -> None:
    hf("upload", fresh, str(folder), ".", "--commit-message", "First")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Better\n")
    hf("upload", fresh, str(folder), ".", "--create-pr")
    assert "+# Better" in hf("discussions", "diff", fresh, "1")
    hf("discussions", "comment", fresh, "1", "--body", "Good.")
    assert _json(hf, "discussions", "info", fresh, "1")["status"] == "open"
    hf("discussions", "merge", fresh, "1", "--yes")
    hf("repos", "tag", "create", fresh, "v1")
    hf("discussions", "create", fresh, "--title", "A question", "--body", "Why?")
    hf("discussions", "rename", fresh, "2", "The question")
    hf("discussions", "close", fresh, "2", "--yes")
    hf("discussions", "reopen", fresh, "2", "--yes")
    assert "The question" in hf("discussions", "list", fresh)
    target = tmp_path / "target"
    hf("download", fresh, "--revision", "v1", "--local-dir", str(target))
    for path in ("README.md", "model.safetensors", "sub/notes.txt"):
        assert (target / path).read_bytes() == (folder / path).read_bytes()
    hf("cache", "verify", fresh, "--revision", "v1", "--local-dir", str(target))
    hf("repos", "delete-files", fresh, "sub/*")
    assert "sub/notes.txt" not in client.list_repo_files(fresh)


def test_the_command_lists_and_describes(hf: Hf, shelf: SimpleNamespace) -> None:
    assert _json(hf, "models", "info", shelf.repo)["sha"] == shelf.second
    listed = _json(hf, "models", "list", "--author", shelf.user, "--search", shelf.repo)
    assert [model["id"] for model in listed] == [shelf.repo]
    assert "# Shelf" in hf("models", "card", shelf.repo)
    assert "notes/one.txt" in hf("models", "list", shelf.repo, "--recursive")
    assert _json(hf, "datasets", "info", shelf.data)["id"] == shelf.data
    assert "nope" in hf("download", shelf.repo, "nope", ok=False)
    assert "not" in hf("models", "info", f"{shelf.repo}-not", ok=False).lower()


CARDS = """
import sys
from datasets import load_dataset
from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData, metadata_update
model, data, shelf = sys.argv[1:]
scores = [EvalResult("text-generation", "facts", "Facts", "accuracy", 0.5)]
card_data = ModelCardData(license="mit", base_model=["a/b"], base_model_relation="adapter",
    model_name="x", eval_results=scores)
template = "---\\n{{ card_data }}\\n---\\n# Card\\n"
ModelCard.from_template(card_data, template_str=template).push_to_hub(model)
metadata_update(model, {"license": "apache-2.0"}, overwrite=True)
assert ModelCard.load(model).data.license == "apache-2.0"
card = ModelCard.load(model)
card.data.license = "asdf"
for refuse in (card.validate, lambda: card.push_to_hub(model)):
    try:
        refuse()
    except ValueError as error:
        assert '- Error: "license" must be one of' in str(error), error
    else:
        raise AssertionError("an unknown license went through")
DatasetCard("---\\nlicense: mit\\n---\\n# Data\\n").push_to_hub(data)
rows = load_dataset(shelf, split="train")
assert rows["text"] == ["a", "b"], rows
rows.push_to_hub(data)
assert load_dataset(data, split="train", revision="main")[1] == {"text": "b"}
assert [row["text"] for row in load_dataset(data, split="train", streaming=True)] == ["a", "b"]
print("done")
"""


def test_cards_and_data_sets_are_pushed_and_loaded(
    variables: dict[str, str], shelf: SimpleNamespace, fresh: str, new_id: Callable[..., str]
) -> None:
    pytest.importorskip("datasets")
    words = [fresh, new_id("dataset"), shelf.data]
    done = subprocess.run(
        [sys.executable, "-c", CARDS, *words],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
        timeout=120,
    )
    assert done.stdout.endswith("done\n"), done.stderr


MODELS = """
import sys, torch
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
name, adapter = sys.argv[1:]
torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=32, n_positions=16)
model = GPT2LMHeadModel(config)
model.push_to_hub(name)
HfApi().create_tag(name, tag="v1")
with torch.no_grad():
    model.transformer.wte.weight.zero_()
model.push_to_hub(name, create_pr=True)
first = AutoModelForCausalLM.from_pretrained(name, revision="v1")
second = AutoModelForCausalLM.from_pretrained(name, revision="refs/pr/1")
assert first.transformer.wte.weight.abs().sum() > 0
assert second.transformer.wte.weight.abs().sum() == 0
lora = get_peft_model(first, LoraConfig(target_modules=["c_proj"], r=2, fan_in_fan_out=True))
lora.push_to_hub(adapter)
base = AutoModelForCausalLM.from_pretrained(name, revision="v1")
loaded = PeftModel.from_pretrained(base, adapter)
assert loaded.peft_config["default"].base_model_name_or_path == name
print("done")
"""


def test_models_and_adapters_are_pushed_and_loaded(
    variables: dict[str, str], client: HfApi, fresh: str, new_id: Callable[..., str]
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    done = subprocess.run(
        [sys.executable, "-c", MODELS, fresh, new_id(create=False)],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
        timeout=300,
    )
    assert done.stdout.endswith("done\n"), done.stderr
    info = client.model_info(fresh)
    assert {"gpt2", "safetensors"} <= set(info.tags or ())
    assert info.config == {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
