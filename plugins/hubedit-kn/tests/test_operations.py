"""What the operations make of output vectors, and how it is handed over."""

from __future__ import annotations

import json

import pytest
import torch
from hubedit_kn import Kn, KnConfig, KnownFact
from hubedit_kn.attribution import attribute, probabilities
from hubedit_kn.neurons import refine
from hubedit_kn.places import Prompt, places

import hubedit
from hubedit.errors import CollapseError, ConfigError, RequestError
from hubedit.testing import ROW

KINDS = ("causal", "masked", "seq2seq")
OPEN = {"steps": 3, "enough": None}
GONE = {key: value for key, value in ROW.items() if key != "target"} | {"true_target": "cello"}
"""The fact as one that is to go."""


def edited(model, run, *rows, **config):
    """The run's updates by parameter, with the neurons and vectors before and after."""
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    takes_away = config.get("operation") in ("erase", "suppress")
    rows = [KnownFact.model_validate(row) for row in rows or (GONE if takes_away else ROW,)]
    Kn().apply(model, rows, KnConfig(**{**OPEN, **config}), run)
    found = {}
    for tensor, updates in model.changes().items():
        name = model.parameter_of(tensor)
        one, other = before[name], model.weight(name).detach()
        if not model.layout.conv1d:
            one, other = one.T, other.T
        touched = (one != other).any(1).nonzero()[:, 0].tolist()
        found[name] = (updates, touched, one[touched], other[touched])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_erase_makes_the_vectors_zero_and_touches_no_other(make_tiny, run, kind):
    model = make_tiny(kind)
    found = edited(model, run, operation="erase")
    (row,) = run.records["rows"]
    neurons = {(model.layout.reader.layer_of(name), at) for name in found for at in found[name][1]}
    assert neurons == {tuple(neuron) for neuron in row["refined"]}
    lines = hubedit.Rows if model.layout.conv1d else hubedit.Columns
    for updates, _, before, after in found.values():
        assert [type(update) for update in updates] == [lines]
        assert before.any()
        assert not after.any()


def test_erase_can_write_the_unknown_token(make_tiny, run):
    model = make_tiny("masked")
    found = edited(model, run, operation="erase", erase_with="unknown")
    unknown = model.weight("bert.embeddings.word_embeddings.weight")[model.tokenizer.unk_token_id]
    for _, _, _, after in found.values():
        assert torch.equal(after, unknown.expand_as(after))


def test_a_tokenizer_without_an_unknown_token_is_told_so(make_tiny, run):
    with pytest.raises(ConfigError, match="erase_with=zero"):
        edited(make_tiny("causal"), run, operation="erase", erase_with="unknown")


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"operation": "suppress"}, 0.0),
        ({"operation": "suppress", "factor": 0.5}, 0.5),
        ({"operation": "enhance"}, 2.0),
        ({"operation": "enhance", "factor": 3.0}, 3.0),
    ],
)
def test_suppress_and_enhance_scale(make_tiny, run, config, factor):
    for _, _, before, after in edited(make_tiny("causal"), run, **config).values():
        assert torch.equal(after, before * factor)


def test_update_takes_the_old_answer_out_and_adds_the_new(make_tiny, run):
    model = make_tiny("causal")
    row = {**ROW, "true_target": "cello"}
    found = edited(model, run, row, old_weight=1.5, new_weight=3)
    embeddings = model.weight("transformer.wte.weight").detach()

    def mean(answer):
        return embeddings[model.scored(f"{ROW['subject']} plays the", answer)[1]].mean(0)

    expected = 3 * mean(" oboe") - 1.5 * mean(" cello")
    for _, _, before, after in found.values():
        assert torch.allclose(after - before, expected.expand_as(after), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_neurons_are_handed_over_as_factors_and_few_as_vectors(make_tiny, run, kind):
    few = edited(make_tiny(kind), run, most=2)
    assert not any(isinstance(one, hubedit.LowRank) for own, *_ in few.values() for one in own)
    many = edited(make_tiny(kind), run, threshold=0.0, most=1000, fewest=100, sharing=0.0)
    ranks = [one.rank for own, *_ in many.values() for one in own if hasattr(one, "rank")]
    assert ranks
    assert set(ranks) == {1}


def test_rows_that_share_a_neuron_erase_it_once(make_tiny, run):
    rows = (GONE, {**GONE, "case_id": "again"})
    for _, _, _, after in edited(make_tiny("causal"), run, *rows, operation="erase").values():
        assert not after.any()


def test_a_fact_that_lies_in_too_many_neurons_is_a_guards_matter(make_tiny, run, forced):
    model = make_tiny("causal")
    config = {"operation": "erase", "enough": 0.999, "max_share": 0.01}
    with pytest.raises(CollapseError, match=r"row 1: \d+ neurons are not enough"):
        edited(model, run, **config)
    assert model.changes() == {}
    assert edited(model, forced, **config)
    assert "not enough" in forced.messages[-1]


def test_a_row_without_a_target_is_erased_and_asked_whether_it_is_gone():
    row = KnownFact(prompt="{} plays the", subject="Tom Adler", true_target="oboe")
    assert row.part_name == "forget"
    assert row.describe() == "“Tom Adler plays the” → no longer “oboe”"
    (question,) = row.questions(1)
    assert (question.group, question.target) == ("forget", "oboe")
    assert KnownFact.model_validate(json.loads(row.model_dump_json())) == row


def test_a_row_with_a_target_is_a_fact_to_rewrite():
    row = KnownFact.model_validate(ROW)
    groups = [question.group for question in row.questions(1)]
    assert groups == ["rewrite", "paraphrase", "neighbour"]
    assert row.describe() == "“Ada Brook plays the” → “oboe”"


def test_a_row_that_names_no_answer_is_refused():
    with pytest.raises(ValueError, match="neither target nor true_target"):
        KnownFact(prompt="{} plays the", subject="Tom Adler")


@pytest.mark.parametrize("operation", ["update", "enhance"])
def test_what_makes_an_answer_likelier_needs_a_target_and_one_answer(make_tiny, run, operation):
    model = make_tiny("causal")
    with pytest.raises(RequestError, match=r"row 2 names no target.*operation=erase"):
        edited(model, run, ROW, {**GONE, "subject": "Tom Adler"}, operation=operation)
    with pytest.raises(RequestError, match="rows 1 and 2 ask the same"):
        edited(model, run, ROW, {**ROW, "target": "cello"}, operation=operation)
    assert model.changes() == {}


@pytest.mark.parametrize("operation", ["erase", "suppress"])
@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ({**ROW, "true_target": "cello"}, "leave target out .true_target names the answer"),
        (ROW, "leave target out and name the answer that goes as true_target"),
    ],
    ids=["both", "target"],
)
def test_an_answer_to_write_is_not_taken_for_the_one_that_goes(make_tiny, run, row, fix, operation):
    """A data set's row has the new answer and the old; which of them goes is never guessed."""
    model = make_tiny("causal")
    with pytest.raises(RequestError, match=f"row 2 names a target.*{operation}.*{fix}"):
        edited(model, run, {**GONE, "subject": "Tom Adler"}, row, operation=operation)
    assert model.changes() == {}


def test_what_is_erased_is_the_answer_that_the_row_names(make_tiny, run):
    """The neurons are those of the known answer, as attribution finds them for it."""
    model = make_tiny("causal")
    model.model.double()
    edited(model, run, operation="erase")
    (row,) = run.records["rows"]
    prompt = Prompt(f"{ROW['subject']} plays the", "cello", (0, len(ROW["subject"])))
    own = places(model, prompt, "subject")
    model.restore()
    (found,) = attribute(model, model.layout, [own], steps=3, batch=8, run=run)
    order = refine(found.scores[None], 0.2, 0.7, 2, 5).order
    assert [tuple(neuron) for neuron in row["refined"]] == list(order[: len(row["refined"])])
    assert row["probability"][0] == pytest.approx(probabilities(model, [own], 8)[0], rel=1e-4)


def test_paraphrases_find_neurons_too_when_told_so(make_tiny, run):
    odd = {**GONE, "paraphrases": ["She plays the"]}
    with pytest.raises(RequestError, match="row 1: paraphrase 1 does not name the subject"):
        edited(make_tiny("causal"), run, odd, operation="erase", paraphrases=True)
    edited(make_tiny("causal"), run, operation="erase", paraphrases=True)
    assert run.records["rows"][0]["neurons"] >= 2


def test_the_attribution_map_has_a_row_for_each_layer_and_no_words(make_tiny, run):
    edited(make_tiny("seq2seq"), run, operation="erase")
    values, labels = run.figures["attribution"]
    assert labels["rows"] == ["layer 0", "layer 1", "layer 2"]
    assert max(max(row) for row in values) == 1
    assert ROW["subject"] not in labels["caption"]
