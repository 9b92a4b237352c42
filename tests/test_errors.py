"""Every mistake a user can make: one sentence, status 1 or 2, and nothing written."""

import json
import shutil

import pytest

from hubedit.cli import VERBS

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--force"]


def one_sentence(err):
    """The message, if it is one line without a traceback."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines
    assert "Traceback" not in err
    assert lines[-1].startswith("hubedit: "), err
    return lines[-1]


def refused(hubedit, tmp_path, *arguments, status=1):
    """Run a command that must fail and write nothing; its message."""
    output = tmp_path / "out"
    found, out, err = hubedit(*arguments, *(["-o", output] if arguments[0] == "apply" else []))
    assert found == status, (found, out, err)
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []
    return one_sentence(err) if status == 1 else err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--plugin": "rmoe"}, ["'rmoe'", "did you mean 'rome'", "hubedit methods"]),
        ({"--set": "layr=1"}, ["'layr'", "did you mean 'layer'"]),
        ({"--set": "layer=deep"}, ["layer", "number", "deep"]),
        ({"--set": "layer"}, ["key=value"]),
        ({"--prompt": "Tom Adler plays the"}, ["does not name the subject 'Ada Brook'", "{}"]),
        ({"--prompt": "{} and {} play the"}, ["{} 2 times", "once"]),
        ({"--target": " "}, ["target is empty"]),
        ({"--subject": ""}, ["subject is empty"]),
        ({"--base": "./nowhere"}, ["no directory ./nowhere"]),
        ({"--base": "a/b/c"}, ["a/b/c", "owner/name"]),
        ({"--base": "not a name"}, ["neither a directory nor the name"]),
        ({"--corpus": "none.txt"}, ["none.txt does not exist"]),
        ({"--device": "tpu:9"}, ["tpu:9"]),
    ],
)
def test_a_wrong_argument_of_apply_is_named(hubedit, tiny, tmp_path, change, said):
    fact = dict(zip(FACT[::2], FACT[1::2], strict=True))
    given = {"--plugin": "rome", "--base": str(tiny), **fact, **change}
    flags = [text for pair in given.items() for text in pair]
    message = refused(hubedit, tmp_path, "apply", *flags)
    for words in said:
        assert words in message


def test_an_empty_or_missing_request_is_named(hubedit, tiny, tmp_path):
    empty = tmp_path / "rows.jsonl"
    empty.write_text("\n")
    base = ["apply", "--plugin", "rome", "--base", str(tiny)]
    assert "holds no rows" in refused(hubedit, tmp_path, *base, "--request", str(empty))
    assert "does not exist" in refused(hubedit, tmp_path, *base, "--request", "none.jsonl")
    assert "lacks request" in refused(hubedit, tmp_path, *base)


def test_without_a_recipe_the_message_says_what_to_give(hubedit, tmp_path):
    assert "lacks base; give --base" in refused(hubedit, tmp_path, "apply")


def test_wrong_usage_has_status_two(hubedit, tmp_path):
    assert "No such option" in refused(hubedit, tmp_path, "apply", "--bsae", "x", status=2)
    status, _, err = hubedit("aply")
    assert status == 2
    assert "apply" in err


def test_an_unknown_family_is_refused_with_those_known(hubedit, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    message = refused(hubedit, tmp_path, "apply", "--plugin", "rome", "--base", str(other), *FACT)
    assert "'mamba'" in message
    assert "gpt2" in message
    assert "qwen3" in message


def test_a_missing_base_or_revision_is_named(localhub, tiny, hubedit, tmp_path):
    base = ["apply", "--plugin", "rome", *FACT, "--base"]
    assert "no such repository" in refused(hubedit, tmp_path, *base, "me/none")
    localhub.api().create_repo("me/tiny")
    assert "no such revision" in refused(hubedit, tmp_path, *base, "me/tiny@v9")
    assert "config.json" in refused(hubedit, tmp_path, *base, "me/tiny")


def test_a_hub_that_is_not_there_is_named(hubedit, tmp_path):
    message = refused(hubedit, tmp_path, "apply", "--plugin", "rome", *FACT, "--base", "me/model")
    assert "cannot be reached" in message


def test_a_missing_or_read_only_token_is_named_before_anything_is_done(
    localhub, tiny, hubedit, tmp_path, monkeypatch
):
    push = ["apply", "--plugin", "rome", "--base", str(tiny), *FACT, "--push"]
    monkeypatch.setenv("HF_TOKEN", localhub.create_token("read"))
    assert "may only read" in refused(hubedit, tmp_path, *push)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "not valid" in refused(hubedit, tmp_path, *push)
    monkeypatch.delenv("HF_TOKEN")
    assert "needs a token" in refused(hubedit, tmp_path, *push)
    assert list(localhub.api().list_models()) == []


@pytest.fixture
def edit(hubedit, tiny, tmp_path):
    """A finished edit of a copy of the tiny model."""
    base = shutil.copytree(tiny, tmp_path / "base")
    made = ["apply", "--plugin", "rome", "--base", base, *FACT, *LIGHT, "-o", "edit"]
    status, _, err = hubedit(*made)
    assert status == 0, err
    return tmp_path / "edit"


def delta_of(edit):
    return next(edit.glob("edits/*/delta.safetensors"))


def test_a_drifted_base_is_refused_by_name(hubedit, edit, tmp_path):
    weights = tmp_path / "base" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for verb in (["verify", edit], ["materialize", edit, "-o", "whole"]):
        status, _, err = hubedit(*verb)
        assert status == 1
        assert "model.safetensors differs" in one_sentence(err)
    assert not (tmp_path / "whole").exists()


def test_a_base_that_moved_away_is_asked_for(hubedit, edit, tmp_path):
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    status, _, err = hubedit("verify", edit)
    assert status == 1
    assert "--base DIR" in one_sentence(err)
    assert hubedit("verify", edit, "--base", tmp_path / "elsewhere")[0] == 0


def test_a_delta_cut_short_anywhere_is_refused(hubedit, edit, tmp_path):
    delta = delta_of(edit)
    content = delta.read_bytes()
    for length in (0, 4, 8, len(content) // 2, len(content) - 1):
        delta.write_bytes(content[:length])
        status, _, err = hubedit("materialize", edit, "-o", "whole")
        assert status == 1
        assert "delta.safetensors" in one_sentence(err)
        assert hubedit("verify", edit)[0] == 1
    assert not (tmp_path / "whole").exists()


def test_one_flipped_bit_anywhere_in_the_delta_is_found(hubedit, edit, tmp_path):
    delta = delta_of(edit)
    content = delta.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 40)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        delta.write_bytes(flipped)
        status, _, err = hubedit("materialize", edit, "-o", "whole")
        assert status == 1
        one_sentence(err)
    assert not (tmp_path / "whole").exists()


RECORDS = ["README.md", "hubedit.json", "manifest.json", "probes.jsonl", "DIFF.md"]


@pytest.mark.parametrize("name", RECORDS)
def test_an_altered_record_is_found_by_verify(hubedit, edit, name):
    path = next(edit.rglob(name))
    path.write_text(path.read_text().replace("oboe", "cello"))
    status, _, err = hubedit("verify", edit)
    assert status == 1
    assert name in one_sentence(err)


def test_an_added_or_missing_file_is_found_by_verify(hubedit, edit):
    (edit / "extra.txt").write_text("hello")
    assert "extra.txt is not listed" in hubedit("verify", edit)[2]
    (edit / "extra.txt").unlink()
    next(edit.rglob("DIFF.md")).unlink()
    assert "is listed and missing" in hubedit("verify", edit)[2]


def test_a_forged_record_is_found_although_its_digest_was_renewed(hubedit, edit):
    """An attacker who rewrites manifest and stack still cannot change what the bytes give."""
    import hashlib

    manifest = next(edit.rglob("manifest.json"))
    value = json.loads(manifest.read_text())
    value["tensors"][0]["after"] = "0" * 64
    manifest.write_text(json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n")
    stack = json.loads((edit / "hubedit.json").read_text())
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    stack["edits"][0]["manifest"] = digest
    stack["files"][manifest.relative_to(edit).as_posix()] = digest
    (edit / "hubedit.json").write_text(json.dumps(stack))
    status, _, err = hubedit("verify", edit)
    assert status == 1
    assert "rebuilt to other bits" in one_sentence(err)


def test_a_newer_format_is_refused_with_the_way_out(hubedit, edit):
    path = edit / "hubedit.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    status, _, err = hubedit("show", edit)
    assert status == 1
    assert "pip install -U hubedit" in one_sentence(err)


def test_a_path_that_leaves_the_repository_is_refused(hubedit, edit):
    path = edit / "hubedit.json"
    stack = json.loads(path.read_text())
    stack["edits"][0]["name"] = "../../../etc"
    path.write_text(json.dumps(stack))
    status, _, err = hubedit("verify", edit)
    assert status == 1
    assert "damaged" in one_sentence(err)


def test_an_output_that_exists_is_refused_before_any_work(hubedit, tiny, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    status, _, err = hubedit("apply", "--plugin", "rome", "--base", tiny, *FACT, "-o", "full")
    assert status == 1
    assert "not empty" in one_sentence(err)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_a_plain_directory_is_no_edit(hubedit, tiny):
    for verb in ("show", "verify", "log"):
        status, _, err = hubedit(verb, tiny)
        assert status == 1
        assert "hubedit apply" in one_sentence(err)


def test_an_unknown_pull_request_or_repository_is_named(localhub, hubedit):
    localhub.api().create_repo("me/some")
    assert "no pull request 7" in hubedit("merge", "me/some", "7")[2]
    assert "no such repository" in hubedit("merge", "me/none", "1")[2]
    assert "no such repository" in hubedit("log", "me/none")[2]


def test_a_change_of_nothing_is_an_error(tiny):
    from hubedit.delta import encode
    from hubedit.errors import EmptyDeltaError
    from hubedit.places import LocalPlace, checkpoint

    stored = checkpoint(LocalPlace(tiny))
    name = "transformer.wte.weight"
    with pytest.raises(EmptyDeltaError):
        encode({name: stored.read(name)}, stored.read)


def test_every_verb_explains_itself_with_an_example(hubedit):
    for verb in VERBS:
        status, out, _ = hubedit(verb, "--help")
        assert status == 0
        assert "Example: hubedit" in out


def test_a_revision_is_named_once_and_of_a_repository(hubedit, tiny):
    status, _, err = hubedit("show", tiny, "--revision", "v1")
    assert (status, "has no revisions" in err) == (2, True)
    status, _, err = hubedit("verify", "me/tiny@v1", "--revision", "v2")
    assert (status, "names a revision already" in err) == (2, True)
