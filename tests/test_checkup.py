"""What is told about an installation and about models, without loading any weights."""

import json
import shutil
import subprocess
import sys

import pytest

from hubedit.checkup import shown_url


@pytest.fixture
def model(tiny, tmp_path):
    """A copy of the tiny model to take apart."""
    return shutil.copytree(tiny, tmp_path / "model")


def changed_config(model, **keys):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return model


def bad(hubedit, model):
    """The findings that are bad, by name; the verb must fail exactly if there are some."""
    status, out, _ = hubedit("doctor", model, "--json")
    found = json.loads(out)
    assert status == (0 if found["healthy"] else 1)
    return {item["name"]: item["detail"] for item in found["findings"] if item["state"] == "bad"}


def test_doctor_names_the_methods_that_can_edit_a_model(hubedit, tiny):
    status, out, _ = hubedit("doctor", tiny, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["editable"]
    assert {"graddiff", "memit", "rome"} <= set(found["methods"])
    assert bad(hubedit, tiny) == {}


@pytest.mark.parametrize(
    ("keys", "name", "said"),
    [
        ({"model_type": "mamba"}, "family", "'mamba'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised", "awq"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "code", "never runs"),
        ({"model_type": "llama"}, "layout", "model.layers.0.mlp.down_proj.weight"),
    ],
)
def test_doctor_says_why_a_model_cannot_be_edited(hubedit, model, keys, name, said):
    found = bad(hubedit, changed_config(model, **keys))
    assert said in found[name]
    status, out, _ = hubedit("doctor", model)
    assert status == 1
    assert "cannot be edited" in out


def test_doctor_refuses_pickles_and_missing_tokenizers(hubedit, model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (model / "tokenizer.json").unlink()
    found = bad(hubedit, model)
    assert "pickle" in found["weights"]
    assert "tokenizer" in found


def test_doctor_reads_a_model_on_the_hub_without_its_weights(localhub, hubedit, tiny):
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    before = localhub.bytes_served("/me/tiny/resolve/")
    status, out, _ = hubedit("doctor", "me/tiny", "--json")
    assert status == 0
    assert "the card names none" in out
    size = (tiny / "model.safetensors").stat().st_size
    assert localhub.bytes_served("/me/tiny/resolve/") - before < min(size, 70_000)


def test_doctor_looks_at_the_base_of_an_edit(hubedit, model, tmp_path):
    fact = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
    light = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--force", "-o", "edit"]
    status, _, err = hubedit("apply", "--plugin", "rome", "--base", model, *fact, *light)
    assert status == 0, err
    status, out, _ = hubedit("doctor", "edit")
    assert status == 0
    assert "1 edit of model" in out
    model.rename(tmp_path / "moved")
    assert "--base DIR" in hubedit("doctor", "edit")[2]
    assert hubedit("doctor", "edit", "--base", "moved")[0] == 0


def test_doctor_names_a_model_that_is_not_there(localhub, hubedit):
    status, out, err = hubedit("doctor", "me/none")
    assert (status, out) == (1, "")
    assert "no such repository" in err


def test_doctor_of_an_installation_looks_at_hub_token_and_plugins(localhub, hubedit, monkeypatch):
    status, out, _ = hubedit("doctor")
    assert status == 0
    assert f"{localhub.url} answers" in out
    assert "of me, and may write" in out
    assert "plugin rome" in out
    monkeypatch.setenv("HF_TOKEN", localhub.create_token("read"))
    status, out, _ = hubedit("doctor", "--json")
    states = {item["name"]: item["state"] for item in json.loads(out)["findings"]}
    assert (status, states["token"]) == (0, "note")


def test_doctor_finds_a_hub_that_is_not_there(hubedit):
    status, out, _ = hubedit("doctor")
    assert status == 1
    assert "BAD   hub" in out
    assert "cannot be reached" in out


def test_env_says_what_a_report_needs_and_never_a_token(localhub, hubedit):
    status, out, _ = hubedit("env", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["libraries"]["torch"]
    assert found["endpoint"] == localhub.url
    assert found["token"] == "set"
    assert found["plugins"]["rome"]["methods"] == ["rome"]
    assert localhub.token not in out
    status, text, _ = hubedit("env")
    assert localhub.token not in text
    assert f"endpoint: {localhub.url} (token: set)" in text


def test_an_address_is_shown_without_what_logs_in():
    assert shown_url("https://me:secret@hub.example:8/x") == "https://hub.example:8/x"


def test_doctor_and_env_load_no_torch(tiny):
    for arguments in (["doctor", str(tiny)], ["env"]):
        code = (
            "import sys; from hubedit.cli import run; "
            f"status = run({arguments!r}); "
            "sys.exit(status or 'torch' in sys.modules or 'transformers' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
