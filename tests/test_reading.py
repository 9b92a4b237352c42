"""Masked and seq2seq models are asked as their users ask them."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import pipeline

from hubedit import models
from hubedit.errors import RequestError, UnsupportedModelError


@pytest.fixture(scope="module", params=tiny.MASKED)
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return models.load(tiny.make(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module", params=tiny.SEQ2SEQ)
def seq2seq(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return models.load(tiny.make(tmp_path_factory.mktemp(request.param), request.param))


def at_masks(model: models.LoadedModel, text: str) -> torch.Tensor:
    """Log-probabilities at the masks of a text, in one plain forward pass."""
    inputs = model.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model.model(**inputs).logits[0]
    return logits[inputs["input_ids"][0] == model.tokenizer.mask_token_id].double().log_softmax(-1)


def in_place(model: models.LoadedModel, answer: str) -> list[int]:
    """The tokens of an answer within a sentence."""
    text = f" {answer}" if model.layout.model_type == "roberta" else answer
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_mask_is_filled_as_the_fill_mask_pipeline_fills_it(masked):
    mask = masked.tokenizer.mask_token
    prompt = f"Ada Brook plays the {mask} in Porto."
    expected = pipeline("fill-mask", masked.model, tokenizer=masked.tokenizer)(prompt, top_k=6)
    best = masked.top_tokens(prompt, 6)
    assert [one.token_id for one in best] == [one["token"] for one in expected]
    scores = torch.tensor([one.logprob for one in best]).exp().tolist()
    assert scores == pytest.approx([one["score"] for one in expected], abs=1e-5)


@pytest.mark.parametrize("written", ["[MASK]", "<mask>"])
def test_a_mask_may_be_written_in_either_way(masked, written):
    own = masked.next_token_logprobs([f"Tom plays the {masked.tokenizer.mask_token}."])
    assert torch.equal(own, masked.next_token_logprobs([f"Tom plays the {written}."]))


def test_a_prompt_without_a_mask_is_asked_at_its_end(masked):
    own = masked.next_token_logprobs([f"Tom Adler plays the {masked.tokenizer.mask_token}"])
    assert torch.equal(own, masked.next_token_logprobs(["Tom Adler plays the"]))
    asked = masked.target_logprobs([("Tom plays the", " oboe"), ("Tom plays the [MASK]", "oboe")])
    assert asked[0] == asked[1]


@pytest.mark.parametrize("answer", ["cello", "oboe", "Castellanos", "Ivo Lindqvist"])
def test_a_masked_answer_is_scored_at_as_many_masks_as_it_has_tokens(masked, answer):
    ids = in_place(masked, answer)
    masks = masked.tokenizer.mask_token * len(ids)
    logprobs = at_masks(masked, f"Ada Brook plays the {masks} in Porto.")
    (score,) = masked.target_logprobs([("Ada Brook plays the [MASK] in Porto.", f" {answer}")])
    assert list(score.token_ids) == ids
    assert len(logprobs) == len(ids)
    expected = [row[token].item() for row, token in zip(logprobs, ids, strict=True)]
    assert score.logprobs == pytest.approx(expected, abs=1e-5)
    assert list(score.top_ids) == logprobs.argmax(-1).tolist()


def test_a_mask_may_open_the_sentence(masked):
    (score,) = masked.target_logprobs([("[MASK] plays the cello.", "Tom")])
    ids = masked.tokenizer("Tom", add_special_tokens=False)["input_ids"]
    assert list(score.token_ids) == ids
    logprobs = at_masks(masked, masked.tokenizer.mask_token * len(ids) + " plays the cello.")
    assert score.logprobs[0] == pytest.approx(logprobs[0, ids[0]].item(), abs=1e-5)


def test_several_masks_in_a_row_are_a_place_of_that_width(masked):
    answer = "Ivo Lindqvist"
    width = len(in_place(masked, answer))
    assert width > 1
    row = ("Mira [MASK] works.", answer)
    wide = (f"Mira {'[MASK] ' * width}works.", answer)
    scores = masked.target_logprobs([row])[0], masked.target_logprobs([wide])[0]
    assert scores[0].token_ids == scores[1].token_ids
    with pytest.raises(RequestError, match=f"{width + 1} masks"):
        masked.target_logprobs([(f"Mira {'[MASK]' * (width + 1)} works.", answer)])


def test_masks_in_two_places_are_refused(masked):
    with pytest.raises(RequestError, match="2 places"):
        masked.top_tokens("[MASK] plays the [MASK].")


def test_a_masked_model_fills_a_place_by_what_is_likeliest_on_average(masked):
    mask, prompt = masked.tokenizer.mask_token, "Ada Brook plays the {} in Porto."
    fillings = []
    for width in range(1, 4):
        sure, chosen = at_masks(masked, prompt.format(mask * width)).max(-1)
        fillings.append((sure.mean().item(), chosen.tolist()))
    expected = max(fillings)[1]
    (said,) = masked.generate([prompt.format("[MASK]")], 3)
    assert said == masked.tokenizer.decode(expected, skip_special_tokens=True).strip()
    one = masked.tokenizer.decode(fillings[0][1], skip_special_tokens=True).strip()
    assert masked.generate([prompt.format("[MASK]")], 1) == [one]
    three = masked.tokenizer.decode(fillings[2][1], skip_special_tokens=True).strip()
    assert masked.generate([prompt.format("[MASK][MASK][MASK]")], 12) == [three]


def test_masked_answers_do_not_depend_on_the_company(masked):
    texts = [f"{name} plays the [MASK]." for name in ("Ada", "Tom Adler", "Nils Okafor", "Ivo")] * 5
    together = masked.next_token_logprobs(texts)
    for text, row in zip(texts, together, strict=True):
        assert torch.allclose(masked.next_token_logprobs([text])[0], row, atol=1e-5)
    assert masked.generate(texts, 2) == [masked.generate([text], 2)[0] for text in texts]


def test_a_masked_model_reads_its_whole_frame(masked):
    text = "Ada Brook plays."
    batch = masked.batch([text])["input_ids"][0].tolist()
    assert batch == masked.tokenizer(text)["input_ids"]
    assert batch[-1] == masked.tokenizer.sep_token_id
    index = masked.subject_token(text, (0, len("Ada Brook")))
    spelled = masked.tokenizer.decode(batch[1 : index + 1]).strip()
    assert spelled.lower() == "ada brook"


def test_a_masked_text_longer_than_the_model_is_refused(masked):
    with pytest.raises(RequestError, match="128 positions"):
        masked.target_logprobs([("x y " * 100, "z")])


def test_an_answer_without_tokens_is_refused(masked, seq2seq):
    for model in (masked, seq2seq):
        with pytest.raises(RequestError, match="no tokens"):
            model.target_logprobs([("Ada", " ")])


def test_a_tokenizer_without_a_mask_is_told_what_to_set(tmp_path):
    model = models.load(tiny.make(tmp_path, "bert"))
    model.tokenizer.mask_token = None
    with pytest.raises(UnsupportedModelError, match="mask_token in tokenizer_config"):
        model.top_tokens("Ada plays the [MASK].")


def decoded(model: models.LoadedModel, prompt: str, written: list[int]) -> torch.Tensor:
    """Log-probabilities after each token the decoder has written, in one plain forward pass."""
    inputs = model.tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        logits = model.model(**inputs, decoder_input_ids=torch.tensor([written])).logits
    return logits[0].double().log_softmax(-1)


def begun(model: models.LoadedModel) -> list[int]:
    """What a decoder of the family starts from: BART's texts begin with <s>."""
    start = model.model.config.decoder_start_token_id
    return [start, 0] if model.layout.model_type == "bart" else [start]


PROMPTS = (
    "Ada Brook plays the <extra_id_0>.",
    "Tom",
    "The mother tongue of Nils Okafor is <mask>.",
    "translate: Ivo",
)


@pytest.mark.parametrize("answer", ["cello", " Castellanos", "Ivo Lindqvist moved to Turin"])
def test_a_seq2seq_answer_is_scored_as_the_loss_scores_it(seq2seq, answer):
    pairs = [(prompt, answer) for prompt in PROMPTS]
    labels = seq2seq.tokenizer(answer.strip())["input_ids"]
    first = len(begun(seq2seq)) - 1
    for (prompt, _), score in zip(pairs, seq2seq.target_logprobs(pairs), strict=True):
        assert list(score.token_ids) == labels[first:-1]
        inputs = seq2seq.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            result = seq2seq.model(**inputs, labels=torch.tensor([labels]))
        logprobs = result.logits[0].log_softmax(-1)
        expected = [logprobs[at, labels[at]].item() for at in range(first, len(labels) - 1)]
        assert score.logprobs == pytest.approx(expected, abs=1e-5)
        assert list(score.top_ids) == logprobs[first:-1].argmax(-1).tolist()


def test_a_t5_answer_may_write_sentinels(tmp_path):
    model = models.load(tiny.make(tmp_path, "t5"))
    (score,) = model.target_logprobs([("Ada plays the <extra_id_0>.", "<extra_id_0> cello")])
    assert score.token_ids[0] == model.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert len(score.token_ids) > 1


def test_the_first_token_of_a_seq2seq_answer_is_what_the_decoder_writes_first(seq2seq):
    rows = seq2seq.next_token_logprobs(PROMPTS)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        expected = decoded(seq2seq, prompt, begun(seq2seq))[-1]
        assert torch.allclose(row.double(), expected, atol=1e-5)
        best = seq2seq.top_tokens(prompt, 3)
        assert [one.token_id for one in best] == expected.topk(3).indices.tolist()


def test_a_seq2seq_model_writes_greedily(seq2seq):
    seq2seq.model.generation_config.eos_token_id = None
    said = seq2seq.generate(PROMPTS, 6)
    ends = {seq2seq.tokenizer.eos_token_id}
    for prompt, text in zip(PROMPTS, said, strict=True):
        written = begun(seq2seq)
        while len(written) < 6 + len(begun(seq2seq)):
            token = int(decoded(seq2seq, prompt, written)[-1].argmax())
            if token in ends:
                break
            written.append(token)
        new = written[len(begun(seq2seq)) :]
        assert text == seq2seq.tokenizer.decode(new, skip_special_tokens=True)


def test_a_seq2seq_answer_agrees_with_generate_of_transformers(seq2seq):
    for prompt in PROMPTS:
        inputs = seq2seq.tokenizer(prompt, return_tensors="pt")
        plain = seq2seq.model.generate(
            **inputs,
            decoder_input_ids=torch.tensor([begun(seq2seq)]),
            max_new_tokens=5,
            do_sample=False,
            num_beams=1,
            forced_eos_token_id=None,
            forced_bos_token_id=None,
        )
        expected = seq2seq.tokenizer.decode(plain[0], skip_special_tokens=True)
        assert seq2seq.generate([prompt], 5) == [expected]


def test_seq2seq_answers_do_not_depend_on_the_company(seq2seq):
    texts = [*PROMPTS, *PROMPTS[::-1]] * 3
    together = seq2seq.next_token_logprobs(texts)
    for text, row in zip(texts, together, strict=True):
        assert torch.allclose(seq2seq.next_token_logprobs([text])[0], row, atol=1e-5)
    assert seq2seq.generate(texts, 3) == [seq2seq.generate([text], 3)[0] for text in texts]


def test_an_encoder_reads_the_end_of_its_text(seq2seq):
    batch = seq2seq.batch(["Ada Brook plays.", "Tom"])
    assert batch["input_ids"][0].tolist() == seq2seq.tokenizer("Ada Brook plays.")["input_ids"]
    assert batch["input_ids"][0, -1] == seq2seq.tokenizer.eos_token_id
    assert batch["attention_mask"].sum(-1).tolist() == [
        len(seq2seq.tokenizer(text)["input_ids"]) for text in ("Ada Brook plays.", "Tom")
    ]
