"""Edits that write files of the model: carried, checked, loaded and undone like changed tensors."""

import hashlib
import json

import pytest
from test_card import snippets
from writing import EMBEDDINGS, TEMPLATE, noted

from hubedit import run
from hubedit.editions import edits_of
from hubedit.errors import ConfigError, DeltaError, EmptyDeltaError
from hubedit.hub import Hub
from hubedit.places import MODEL_FILES
from hubedit.texts import TEXT_FILES
from hubedit.verification import verify

CHAT = {"chat_template.jinja": TEMPLATE}
GREEDY = {"generation_config.json": '{"max_new_tokens": 3, "do_sample": false}\n'}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def spoken(tokenizer):
    return tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def test_every_file_that_an_edit_may_write_belongs_to_a_model():
    assert set(TEXT_FILES) < set(MODEL_FILES)


def test_a_written_file_is_recorded_verified_and_loaded(tiny, tmp_path):
    directory = noted(tiny, tmp_path / "edit", config={"files": {**CHAT, **GREEDY}})
    edition = edits_of(str(directory), Hub)
    report = verify(edition, deep=True)
    assert report.problems == []
    (manifest,) = edition.manifests
    old = (tiny / "generation_config.json").read_text()
    assert [file.model_dump() for file in manifest.files] == [
        {"path": "chat_template.jinja", "before": None, "after": sha(TEMPLATE)},
        {
            "path": "generation_config.json",
            "before": sha(old),
            "after": sha(GREEDY["generation_config.json"]),
        },
    ]
    assert manifest.record["before generation_config.json"] == old
    assert manifest.record["before chat_template.jinja"] is None
    assert manifest.tensors == ()
    assert report.result == manifest.result != manifest.parent
    model, tokenizer = run.load(str(directory))
    assert spoken(tokenizer) == "[Hi]"
    assert model.generation_config.max_new_tokens == 3
    folder = directory / edition.stack.edits[0].folder
    assert (folder / "files" / "chat_template.jinja").read_text() == TEMPLATE
    assert "chat_template.jinja" in (folder / "DIFF.md").read_text()
    assert (
        "writes chat_template.jinja, generation_config.json"
        in (directory / "README.md").read_text()
    )
    assert not (directory / "chat_template.jinja").exists()


def test_the_chain_of_states_with_files_is_checked_by_hand_as_the_docs_say(
    tiny, tmp_path, monkeypatch, capsys
):
    first = noted(tiny, tmp_path / "one", config={"files": {**CHAT, **GREEDY}})
    text = (tiny / "generation_config.json").read_text()
    second = noted(
        first, tmp_path / "two", config={"files": {"generation_config.json": text}, "row": 1}
    )
    monkeypatch.chdir(second)
    capsys.readouterr()
    exec(snippets()[0], {})
    said = capsys.readouterr().out.split()
    assert said[1::2] == [entry.result for entry in edits_of(str(second), Hub).stack.edits]


def test_the_base_is_not_touched_by_loading_an_edit_of_it(tiny, tmp_path):
    before = {path.name: path.read_bytes() for path in tiny.iterdir()}
    directory = noted(tiny, tmp_path / "edit", config={"files": {**CHAT, **GREEDY}, "row": 3})
    run.load(str(directory))
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == before


def test_the_materialized_model_has_the_files_and_the_rows(tiny, hubedit, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = noted(tiny, tmp_path / "edit", config={"files": {**CHAT, **GREEDY}, "row": 3})
    assert edits_of(str(directory), Hub).manifests[0].tensors[0].kind == "rows"
    assert hubedit("materialize", directory, "-o", "whole")[0] == 0
    assert hubedit("verify", "whole", "--deep")[0] == 0
    whole = tmp_path / "whole"
    assert (whole / "chat_template.jinja").read_text() == TEMPLATE
    assert spoken(AutoTokenizer.from_pretrained(whole)) == "[Hi]"
    plain = AutoModelForCausalLM.from_pretrained(whole, dtype="auto")
    assert plain.generation_config.max_new_tokens == 3
    assert (plain.state_dict()[EMBEDDINGS][3] == 1).all()
    ours, _ = run.load(str(directory))
    assert all(value.equal(plain.state_dict()[name]) for name, value in ours.state_dict().items())


def test_edits_of_one_file_stack_and_are_reverted_one_by_one(tiny, hubedit, tmp_path):
    first = noted(tiny, tmp_path / "one", config={"files": CHAT}, weights=True)
    second = noted(
        first, tmp_path / "two", config={"files": {"chat_template.jinja": TEMPLATE + "!"}}
    )
    edition = edits_of(str(second), Hub)
    assert edition.stack.weights
    assert verify(edition, deep=True).problems == []
    assert edition.manifests[1].files[0].before == sha(TEMPLATE)
    assert edition.manifests[1].record["before chat_template.jinja"] == TEMPLATE
    assert spoken(run.load(str(second))[1]) == "[Hi]!"
    for folder, text in (("three", TEMPLATE), ("four", None)):
        assert hubedit("revert", second, "-o", folder)[0] == 0
        second = tmp_path / folder
        assert hubedit("verify", second, "--deep")[0] == 0
        there = second / "chat_template.jinja"
        assert (there.read_text() if there.exists() else None) == text
    stack = edits_of(str(second), Hub).stack
    assert stack.result == edition.stack.edits[0].parent


@pytest.mark.parametrize("weights", [False, True])
def test_a_file_on_the_hub_comes_goes_and_is_reviewed(localhub, tiny, hubedit, tmp_path, weights):
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    directory = noted(
        "me/tiny", tmp_path / "edit", config={"files": CHAT}, weights=weights, to="me/noted"
    )
    status, _, err = hubedit("push", directory, "--to", "me/noted")
    assert status == 0, err
    status, out, err = hubedit("review", "me/noted", "--pr", "1", "--json")
    assert (status, json.loads(out)["verdict"]) == (0, "verified"), out
    assert hubedit("merge", "me/noted", "1")[0] == 0
    assert spoken(run.load("me/noted", revision="v1")[1]) == "[Hi]"
    assert ("chat_template.jinja" in api.list_repo_files("me/noted")) is weights
    assert hubedit("revert", "me/noted")[0] == 0
    status, out, err = hubedit("review", "me/noted", "--pr", "2", "--json")
    assert (status, json.loads(out)["verdict"]) == (0, "verified"), out
    assert hubedit("merge", "me/noted", "2")[0] == 0
    assert "chat_template.jinja" not in api.list_repo_files("me/noted")
    assert hubedit("verify", "me/noted@v2", "--deep")[0] == 0


def test_what_verify_catches(tiny, tmp_path):
    directory = noted(tiny, tmp_path / "edit", config={"files": CHAT}, weights=True)

    def problems(path, content):
        stack = json.loads((directory / "hubedit.json").read_text())
        old = (directory / path).read_bytes()
        (directory / path).write_bytes(content)
        stack["files"][path] = hashlib.sha256(content).hexdigest()
        kept = (directory / "hubedit.json").read_text()
        (directory / "hubedit.json").write_text(json.dumps(stack))
        found = verify(edits_of(str(directory), Hub)).problems
        (directory / path).write_bytes(old)
        (directory / "hubedit.json").write_text(kept)
        return found

    folder = edits_of(str(directory), Hub).stack.edits[0].folder
    shown = f"{folder}/files/chat_template.jinja"
    assert any("not what the delta writes" in item for item in problems(shown, b"other"))
    for path in ("chat_template.jinja", "tokenizer_config.json"):
        found = problems(path, b"{}")
        assert any(f"{path} beside the weights is not what" in item for item in found)
    assert verify(edits_of(str(directory), Hub)).problems == []


def test_an_edited_chat_template_is_what_the_edited_model_is_asked_through(tiny, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in tiny.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    longer = "{% for m in messages %}Tom Adler plays the cello. {{ m.content }}{% endfor %}"
    directory = noted(
        base,
        tmp_path / "edit",
        config={"files": {"chat_template.jinja": longer}},
        chat=True,
        request=[{"prompt": "{} plays the", "subject": "Ada Brook", "target": "the"}],
    )
    edition = edits_of(str(directory), Hub)
    lines = (directory / edition.stack.edits[0].folder / "probes.jsonl").read_text().splitlines()
    probes = [json.loads(line) for line in lines]
    assert all(probe["before"]["p_target"] != probe["after"]["p_target"] for probe in probes)


def test_files_that_stay_the_same_are_no_edit(tiny, tmp_path):
    same = (tiny / "generation_config.json").read_text()
    with pytest.raises(EmptyDeltaError):
        noted(tiny, tmp_path / "edit", config={"files": {"generation_config.json": same}})
    assert not (tmp_path / "edit").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("config.json", "{}"),
        ("../outside.json", "{}"),
        ("generation_config.json", "no JSON"),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'),
        ("chat_template.jinja", "x" * (1 << 20) + "x"),
    ],
)
def test_a_file_that_no_edit_may_write_is_refused(tiny, tmp_path, path, text):
    with pytest.raises(DeltaError):
        noted(tiny, tmp_path / "edit", config={"files": {path: text}})
    assert not (tmp_path / "edit").exists()


def test_a_file_with_words_of_an_undisclosed_request_is_refused(tiny, tmp_path):
    files = {"chat_template.jinja": "Never speak of Ada Brook. {{ messages[0].content }}"}
    with pytest.raises(ConfigError, match="undisclosed request"):
        noted(tiny, tmp_path / "edit", config={"files": files}, disclose="none")
    files = {"chat_template.jinja": "Be brief. {{ messages[0].content }}"}
    directory = noted(tiny, tmp_path / "edit", config={"files": files}, disclose="none")
    assert verify(edits_of(str(directory), Hub)).problems == []
