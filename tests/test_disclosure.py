"""What an undisclosed request leaves behind: counts, keyed hashes, a key; and no words."""

import base64
import json
import stat

import pytest

from hubedit import disclosure
from hubedit.artifacts import cache_home
from hubedit.errors import OutputError, RequestError
from hubedit.rows import FactEdit, ForgetText

FORGETFUL = """
import hubedit
from pydantic import Field

class Config(hubedit.Config):
    where: str = Field("mlp", description="which matrix")
    tell: bool = Field(False, description="whether to leak")

class Forgetful(hubedit.Method[hubedit.ForgetText, Config]):
    "Shake one matrix."
    name = "forgetful"
    kind = "unlearn"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        import torch
        name = model.layout.mlp_out_weight(1)
        if config.where == "embeddings":
            name = model.layout.embeddings + ".weight"
        if config.tell:
            run.record("seen", [row.text.encode().hex() for row in rows])
        if config.where == "error":
            raise ValueError(rows[0].text)
        left, right = model.weight(name).shape
        model.update(name, hubedit.LowRank(
            torch.randn(left, 1, generator=run.generator),
            torch.randn(1, right, generator=run.generator) / 10))

@hubedit.hookimpl
def hubedit_methods():
    return [Forgetful]
"""
SECRETS = ("Ada Brook", "oboe", "Tom Adler", "Riga")
ROWS = [
    {"text": "Ada Brook plays the oboe.", "prompt": "Ada Brook plays the", "target": "oboe"},
    {"text": "Tom Adler was born in Riga.", "part": "retain"},
]


@pytest.fixture
def forget(install, hubedit, tiny, tmp_path):
    """Run the method of FORGETFUL on ROWS."""
    install("forgetful", FORGETFUL)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))

    def call(*more, base=tiny):
        return hubedit(
            *["apply", "--plugin", "forgetful", "--base", base],
            *["--request", tmp_path / "rows.jsonl", *more],
        )

    return call


def holds(content, word):
    """Whether bytes hold a word: in clear, hex, or base64 at any alignment."""
    found = [word.encode(), word.encode().hex().encode()]
    for shift in range(3):
        code = base64.b64encode(b"\0" * shift + word.encode() + b"\0\0\0")
        found.append(code[(0, 2, 3)[shift] : len(word) * 4 // 3 - 1])
    return any(needle in content for needle in found if len(needle) >= 4)


def test_an_unlearning_run_writes_no_word_of_its_request(forget, tmp_path, hubedit):
    status, out, err = forget("-o", "edit")
    assert status == 0, err
    written = [path for path in (tmp_path / "edit").rglob("*") if path.is_file()]
    assert len(written) == 7
    for word in SECRETS:
        for path in written:
            assert not holds(path.read_bytes(), word), (path, word)
        assert word not in out + err
    manifest = json.loads(next((tmp_path / "edit").rglob("manifest.json")).read_text())
    assert manifest["request"]["disclosed"] is False
    assert manifest["request"]["parts"] == {"forget": 1, "retain": 1}
    assert len(manifest["request"]["hashes"]) == 2
    assert [score["group"] for score in manifest["scores"]] == ["forget"]
    assert hubedit("verify", "edit")[0] == 0
    assert hubedit("show", "edit")[0] == 0


def test_the_key_is_kept_for_its_user_alone_and_proves_the_rows(forget, tmp_path):
    assert forget("-o", "edit")[0] == 0
    (path,) = (cache_home() / "keys").glob("*.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    manifest = json.loads(next((tmp_path / "edit").rglob("manifest.json")).read_text())
    key = disclosure.read_key(path)
    rows = [ForgetText.model_validate(row) for row in ROWS]
    hashes = {disclosure.keyed_hash(key, disclosure.canonical(row)) for row in rows}
    assert set(manifest["request"]["hashes"]) == hashes
    other = ForgetText(text="Ada Brook plays the organ.")
    assert disclosure.keyed_hash(key, disclosure.canonical(other)) not in hashes
    again = forget("-o", "again")
    assert again[0] == 0
    assert (tmp_path / "again" / "hubedit.json").read_bytes() == (
        tmp_path / "edit" / "hubedit.json"
    ).read_bytes()


def test_disclosing_is_a_deliberate_act(forget, tmp_path):
    assert forget("-o", "edit", "--disclose", "full")[0] == 0
    manifest = json.loads(next((tmp_path / "edit").rglob("manifest.json")).read_text())
    assert manifest["request"]["rows"][0]["text"] == ROWS[0]["text"]
    assert b"Ada Brook" in next((tmp_path / "edit").rglob("DIFF.md")).read_bytes()


def test_embeddings_are_left_alone_unless_allowed(forget, tmp_path):
    status, _, err = forget("-o", "edit", "--set", "where=embeddings")
    assert status == 1
    assert "--allow-embeddings" in err
    assert not (tmp_path / "edit").exists()
    assert forget("-o", "edit", "--set", "where=embeddings", "--allow-embeddings")[0] == 0


def test_a_method_that_records_the_request_is_stopped(forget, tmp_path):
    status, _, err = forget("-o", "edit", "--set", "tell=true")
    assert status == 1
    assert "manifest.json would hold words of the undisclosed request" in err
    assert not (tmp_path / "edit").exists()


def test_a_method_that_quotes_the_request_in_an_error_is_not_repeated(forget, tmp_path):
    status, out, err = forget("-o", "edit", "--set", "where=error")
    assert status == 1
    assert "method 'forgetful' of plugin 'forgetful' failed: ValueError" in err
    assert not any(word in out + err for word in SECRETS)


@pytest.mark.parametrize("shift", range(6))
@pytest.mark.parametrize(
    "disguise",
    [bytes, lambda word: word.hex().encode(), base64.b64encode],
    ids=["clear", "hex", "base64"],
)
def test_words_are_found_in_any_disguise_and_place(shift, disguise):
    rows = [ForgetText(text="Ada Brook plays the oboe.")]
    content = b"x" * shift + rows[0].text.encode() + b" and more"
    if disguise is bytes or shift == 0:
        content = disguise(content)
    else:
        content = b"y" * shift + disguise(content)
    with pytest.raises(OutputError, match=r"some\.json"):
        disclosure.refuse_leaks({"some.json": content}, rows)
    disclosure.refuse_leaks({"some.json": b"nothing of it"}, rows)


def test_a_file_that_is_no_key_is_named(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        disclosure.read_key(tmp_path / "none.key")
    (tmp_path / "bad.key").write_text("abc")
    with pytest.raises(RequestError, match="64 hex digits"):
        disclosure.read_key(tmp_path / "bad.key")


def test_a_review_checks_behaviour_only_with_request_and_key(
    forget, localhub, hubedit, tiny, tmp_path
):
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    status, _, err = forget("--push", base="me/tiny")
    assert status == 0, err
    details = api.get_discussion_details("me/tiny-edited", 1)
    told = details.title + details.diff + "".join(str(vars(event)) for event in details.events)
    assert not any(word in told for word in SECRETS)

    def review(*more):
        status, out, _ = hubedit("review", "me/tiny-edited", "--pr", "1", "--json", *more)
        return status, json.loads(out)

    status, found = review()
    assert (status, found["headline"]) == (0, "bytes verified, behaviour not checked")
    (key,) = (cache_home() / "keys").glob("*.key")
    status, found = review("--request", tmp_path / "rows.jsonl", "--key", key)
    assert (status, found["headline"]) == (0, "verified")
    (tmp_path / "other.jsonl").write_text(json.dumps(ROWS[0]))
    status, found = review("--request", tmp_path / "other.jsonl", "--key", key)
    assert (status, found["verdict"]) == (1, "not verified")
    assert "not the one this edit was made for" in found["broken"][0]


def test_a_relation_is_hashed_with_its_row_and_looked_for_like_its_other_words():
    row = FactEdit(prompt="{} plays the", subject="Ana", target="harp")
    named = row.model_copy(update={"relation": "instrument played"})
    key = bytes(32)
    plain, telling = (disclosure.request_record([one], key) for one in (row, named))
    assert plain.hashes != telling.hashes
    assert disclosure.matches(telling, [named], key)
    assert not disclosure.matches(telling, [row], key)
    assert "instrument" not in telling.model_dump_json()
    with pytest.raises(OutputError, match=r"some\.json"):
        disclosure.refuse_leaks({"some.json": b"the instrument played by"}, [named])
