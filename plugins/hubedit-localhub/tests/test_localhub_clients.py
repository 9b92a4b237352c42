"""The `hf` command and transformers, each in a process of its own, as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hubedit_localhub import LocalHub
from huggingface_hub import HfApi


def _hf(hub: LocalHub, home: Path, *words: str) -> str:
    command = Path(sys.executable).with_name("hf")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "NO_COLOR": "1", **hub.env(home / "hf")}
    done = subprocess.run(
        [str(command), *words], capture_output=True, text=True, env=env, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_hf_command_makes_uploads_reviews_and_downloads(
    localhub: LocalHub, folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert "me" in _hf(localhub, home, "auth", "whoami")
    _hf(localhub, home, "repos", "create", "demo", "--private")
    _hf(localhub, home, "upload", "me/demo", str(folder), ".", "--commit-message", "First")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Better\n")
    _hf(localhub, home, "upload", "me/demo", str(folder), ".", "--create-pr")
    assert "+# Better" in _hf(localhub, home, "discussions", "diff", "me/demo", "1")
    _hf(localhub, home, "discussions", "merge", "me/demo", "1", "--yes")
    _hf(localhub, home, "repos", "tag", "create", "me/demo", "v1")
    target = tmp_path / "target"
    _hf(localhub, home, "download", "me/demo", "--revision", "v1", "--local-dir", str(target))
    assert (target / "README.md").read_text() == (folder / "README.md").read_text()
    weights = "model.safetensors"
    assert (target / weights).read_bytes() == (folder / weights).read_bytes()
    listed = json.loads(_hf(localhub, home, "models", "list", "--author", "me", "--format", "json"))
    assert [model["id"] for model in listed] == ["me/demo"]


TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
torch.manual_seed(0)
config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=32, n_positions=16)
model = GPT2LMHeadModel(config)
model.push_to_hub("me/tiny")
from huggingface_hub import HfApi
HfApi().create_tag("me/tiny", tag="v1")
with torch.no_grad():
    model.transformer.wte.weight.zero_()
model.push_to_hub("me/tiny", create_pr=True)
first = AutoModelForCausalLM.from_pretrained("me/tiny", revision="v1")
second = AutoModelForCausalLM.from_pretrained("me/tiny", revision="refs/pr/1")
assert first.transformer.wte.weight.abs().sum() > 0
assert second.transformer.wte.weight.abs().sum() == 0
print("loaded")
"""


def test_transformers_pushes_and_loads_a_model(localhub: LocalHub, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    env = {**os.environ, **localhub.env(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRANSFORMERS],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=300,
    )
    assert done.stdout.endswith("loaded\n"), done.stderr
    info = HfApi(endpoint=localhub.url, token=localhub.token).model_info("me/tiny")
    assert {"gpt2", "safetensors"} <= set(info.tags or ())
    assert info.config == {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
