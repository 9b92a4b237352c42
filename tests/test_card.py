"""The card: what it says, what it must not say, and what people wrote on it."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hubedit.card import (
    ENDS,
    STARTS,
    card_digest,
    front_matter,
    human_text,
    render_card,
    without_human_text,
)
from hubedit.diff import render_diff
from hubedit.errors import ManifestError
from hubedit.manifest import Manifest, Stack, files_digest, result_digest, touched_tensors
from hubedit.stored import StoredTensor

GALLERY = Path(__file__).parent.parent / "model_cards"
CASES = sorted(path.parent.name for path in GALLERY.glob("*/hubedit.json"))
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
OURS = re.compile(r"edits/0001-rome-|manifest|probes|https://arxiv")
NASTY = st.lists(
    st.one_of(
        st.sampled_from(["|", "`", "\n", "<b>", "---", "\n---\n", ": ", "#", "'", ENDS, "{{x}}"]),
        st.sampled_from(["https://a.bc", "[a](b)", "\\", "\x1b[0m", "\u202e", "\u2028", "!!str"]),
        st.text(max_size=5),
    ),
    max_size=8,
).map("".join)


def load(case):
    stack = Stack.from_json((GALLERY / case / "hubedit.json").read_bytes())
    manifests = [
        Manifest.from_json((GALLERY / case / entry.folder / "manifest.json").read_bytes())
        for entry in stack.edits
    ]
    return stack, manifests


def card_of(case, repo="me/edited", **kwargs):
    stack, manifests = load(case)
    return render_card(stack, manifests, repo=repo, weights=stack.weights, **kwargs)


def probes_of(case):
    path = next((GALLERY / case).glob("edits/*/probes.jsonl"))
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def gallery():
    spec = importlib.util.spec_from_file_location("gallery_render", GALLERY / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_the_pages_of_the_gallery_are_what_is_rendered(case):
    for path, text in gallery().pages(GALLERY / case):
        assert path.read_bytes() == text.encode(), f"{path}: see model_cards/README.md"


@pytest.mark.parametrize("case", CASES)
def test_the_digests_of_the_gallery_can_be_recomputed(case):
    stack, manifests = load(case)
    assert files_digest(stack.base.files) == stack.base.digest
    for height, manifest in enumerate(manifests, start=1):
        touched = touched_tensors(manifests[:height])
        assert manifest.result == result_digest(stack.base.files, touched)


@pytest.mark.parametrize("case", CASES)
def test_the_hub_reads_the_metadata(case):
    card = ModelCard(card_of(case))
    assert card.data.library_name == "hubedit"
    assert card.data.tags == sorted(card.data.tags)
    assert len(card.data.eval_results) == len(load(case)[1][-1].scores)
    assert card.content.count("model-index") == 1


def test_a_delta_names_its_base_as_an_adapter_does():
    data = ModelCard(card_of("one-fact")).data
    assert (data.base_model, data.base_model_relation) == ("openai-community/gpt2", "adapter")
    assert {"knowledge-editing", "model-edit", "rome", "gpt2"} <= set(data.tags)
    assert data.license == "mit"


def test_weights_make_it_a_finetune_that_transformers_loads():
    card = card_of("gated-weights")
    assert ModelCard(card).data.base_model_relation == "finetune"
    assert "machine-unlearning" in ModelCard(card).data.tags
    assert 'AutoModelForCausalLM.from_pretrained("me/edited", revision="v1")' in card
    assert "No weights here" not in card


def test_a_delta_says_that_it_holds_no_weights():
    card = card_of("stack-of-two")
    assert "**No weights here.**" in card
    assert 'from_pretrained("me/edited"' not in card
    assert 'hubedit.load("me/edited", revision="v2")' in card
    assert 'hubedit.load("me/edited", revision="v1")' in card


def test_a_local_base_is_not_named_as_a_repository():
    data = ModelCard(card_of("local-base")).data
    assert data.base_model is None
    assert "base_model_relation" not in data
    assert data.license is None


def test_a_licence_that_the_hub_does_not_know_is_named_beside_other():
    stack, manifests = load("one-fact")
    base = stack.base.model_copy(update={"license": "Acme Community 2"})
    text = front_matter(
        stack.model_copy(update={"base": base}), manifests, repo="me/m", weights=False
    )
    data = yaml.safe_load(text)
    assert (data["license"], data["license_name"]) == ("other", "acme-community-2")


def test_a_forced_edit_says_so_with_every_reason():
    _, manifests = load("forced")
    card = card_of("forced")
    assert "**⚠ Forced.**" in card
    for reason in manifests[0].overruled:
        assert reason.split(" (")[0] in card


def test_what_was_not_tested_and_the_limits_are_on_the_card():
    _, manifests = load("one-fact")
    card = card_of("one-fact")
    for sentence in (*manifests[0].not_tested, *manifests[0].method.limits):
        assert f"- {sentence}" in card


def test_an_undisclosed_request_is_shown_by_its_size_alone():
    stack, manifests = load("forced")
    said = "Danielle Darrieux"
    manifest = manifests[0].model_copy(
        update={
            "request": manifests[0].request.model_copy(update={"disclosed": False}),
            "record": {"subject": said},
            "overruled": (f"{said} is everywhere",),
        }
    )
    card = render_card(stack, [manifest], repo="me/edited", weights=False)
    page = render_diff(manifest, probes_of("forced"))
    for text in (card, page):
        assert "1 fact to change" in text
        assert "**⚠ Forced.**" in text
        for secret in ("Danielle", "Darrieux", "mother tongue", "Montesquieu", "weather"):
            assert secret not in text


def test_manifests_of_another_stack_are_refused():
    stack, _ = load("one-fact")
    _, others = load("forced")
    with pytest.raises(ManifestError, match="in its order"):
        render_card(stack, others, repo=None, weights=False)


def test_every_command_on_the_card_exists():
    verbs = {path.stem for path in (GALLERY.parent / "hubedit" / "cli").glob("*.py")}
    for case in CASES:
        for verb in re.findall(r"^hubedit ([a-z]+)|`hubedit ([a-z]+)", card_of(case), re.M):
            assert "".join(verb) in verbs


@given(st.text())
@example(ENDS)
@example(f"a\n{ENDS}\nb\n{STARTS}\nc")
@example("a\n\n\n\n\nb")
@example("a\r")
@example("```\n<!--")
def test_text_that_people_wrote_survives_and_changes_no_digest(text):
    card = card_of("one-fact", human=text)
    kept = re.sub(r"\r\n?", "\n", text).strip("\n")
    assert human_text(card) == kept
    assert card_digest(card) == card_digest(card_of("one-fact"))
    assert card_of("one-fact", human=human_text(card)) == card


def test_any_other_change_of_the_card_changes_its_digest():
    card = card_of("one-fact", human="ours")
    for line in without_human_text(card).split("\n"):
        if line.strip():
            assert card_digest(card.replace(line, line + "!", 1)) != card_digest(card)


def test_line_ends_of_another_system_change_no_digest():
    card = card_of("one-fact", human="two\nlines")
    assert card_digest(card.replace("\n", "\r\n")) == card_digest(card)
    assert human_text(card.replace("\n", "\r\n")) == "two\nlines"


@pytest.mark.parametrize("card", ["", "# Mine\n", f"{STARTS}\nno end", f"{ENDS}\n{STARTS}\n"])
def test_a_card_without_both_markers_has_no_human_text(card):
    assert human_text(card) == ""
    assert without_human_text(card) == card


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(NASTY, NASTY, NASTY)
def test_hostile_records_render_inert(one, two, three):
    stack, manifests = load("one-fact")
    first = manifests[0]
    changes = {
        "method": first.method.model_copy(
            update={"name": one, "summary": two, "paper": three, "limits": (one, two)}
        ),
        "plugin": first.plugin.model_copy(update={"distribution": two, "version": three}),
        "config": {one: two, "x": [three]},
        "record": {two: three},
        "overruled": (one, two, three),
        "not_tested": (three,),
        "request": first.request.model_copy(update={"in_words": (one, two, three), "count": 5}),
        "scores": tuple(s.model_copy(update={"group": one, "metric": two}) for s in first.scores),
        "tensors": tuple(
            t.model_copy(update={"name": one, "kind": two, "module": three, "aliases": (three,)})
            for t in first.tensors
        ),
        "transcripts": tuple(
            t.model_copy(update={"prompt": one, "before": two, "after": three})
            for t in first.transcripts
        ),
        "base": first.base.model_copy(
            update={"repo": one or None, "commit": two, "license": three, "model_type": two}
        ),
    }
    manifest = first.model_copy(update=changes)
    entry = stack.edits[0].model_copy(update={"summary": two, "method": one})
    stack = stack.model_copy(update={"base": manifest.base, "edits": (entry,)})
    probe = {
        "row": 1,
        "group": "rewrite",
        "prompt": one,
        "target": two,
        "before": {"answer": three, "p_answer": 0.5, "p_target": None},
        "after": {"answer": one, "p_answer": 0.5, "p_target": 0.1},
        "passed": True,
    }
    card = render_card(stack, [manifest], repo=f"me/{one}", weights=False, human="ours")
    page = render_diff(manifest, [probe, {**probe, "group": "neighbour", "passed": False}])
    assert human_text(card) == "ours"
    assert card.encode("utf-8")
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.S).groups()
    assert yaml.safe_load(head)["library_name"] == "hubedit"
    assert isinstance(ModelCard(card).data.tags, list)
    for text in (body, page):
        headings = []
        tokens = PARSER.parse(text)
        for number, token in enumerate(tokens):
            if token.type == "heading_open" and token.tag == "h2":
                headings.append(tokens[number + 1].content)
            if token.type == "html_block":
                assert token.content.strip() in {STARTS, ENDS, f"{STARTS}\n{ENDS}"}
            for child in token.children or []:
                assert child.type not in {"html_inline", "hardbreak"}
                if child.type == "link_open":
                    assert OURS.match(child.attrs["href"])
                if child.type == "image":
                    assert child.attrs["src"] == "heatmap.png"
        expected = (
            card_of("one-fact") if text is body else (render_diff(first, probes_of("one-fact")))
        )
        assert headings == re.findall(r"^## (.*)$", expected, re.M)


def snippets():
    text = (GALLERY.parent / "docs" / "edit-repository.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize("case", CASES)
def test_the_chain_is_checked_by_hand_as_the_docs_say(case, monkeypatch, capsys):
    monkeypatch.chdir(GALLERY / case)
    exec(snippets()[0], {})
    stack, _ = load(case)
    printed = capsys.readouterr().out.split("\n")
    assert printed[:-1] == [f"{entry.name} {entry.result}" for entry in stack.edits]


def test_a_tensor_is_checked_by_hand_as_the_docs_say(tmp_path):
    from safetensors.numpy import save_file

    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"a": np.zeros(1, np.float16), "w": values}, tmp_path / "m.safetensors")
    names = {}
    exec(snippets()[1], names)
    found = names["tensor_digest"](tmp_path / "m.safetensors", "w")
    assert found == StoredTensor.from_array(values).sha256()


@pytest.mark.parametrize("case", CASES)
def test_a_card_is_checked_by_hand_as_the_docs_say(case):
    names = {}
    exec(snippets()[2], names)
    card = (GALLERY / case / "README.md").read_text("utf-8")
    for text in (card, card.replace("\n", "\r\n"), "# mine\n", card + ENDS + "\n"):
        assert names["card_digest"](text) == card_digest(text)
