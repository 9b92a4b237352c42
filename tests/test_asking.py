"""What a model says does not depend on who else is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from hubedit import models
from hubedit.errors import (
    RequestError,
)

MLP = "transformer.h.1.mlp.c_proj.weight"
EMBEDDINGS = "transformer.wte.weight"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def model(gpt2: Path) -> models.LoadedModel:
    return models.load(gpt2)


SUBJECTS = (
    ("{} plays the", "Ada Brook"),
    ("{} plays the", "Zbigniew Wojciechowski-Ölmez"),
    ("The mother tongue of {} is", "Nils Okafor"),
    ('In 1999, "{}" moved to', "Ivo Lindqvist"),
    ("said “{}” on", "Ada Brook"),
    ("({}) lives in", "Tom"),
    ("The home of {}'s friend is", "Mira Castellanos"),
    ("Where does {}", "Émile Đorđević"),
    ("Ada Brook met Ada Brooks and {}", "Ada Brook"),
    ("emoji 🎻🎻 {} plays", "東京タワー"),
    ("\n\t{}\n plays", "U.S.S. Enterprise (1999)"),
)


@pytest.fixture(scope="module", params=["plain", "bos", "trimmed"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    directory = tiny.make(
        tmp_path_factory.mktemp(request.param),
        "llama",
        bos=request.param == "bos",
        trim_offsets=request.param == "trimmed",
    )
    return models.load(directory)


@pytest.mark.parametrize(("prompt", "subject"), SUBJECTS)
def test_the_subject_ends_at_its_last_token(asked, prompt, subject):
    start = prompt.index("{}")
    text = prompt.replace("{}", subject)
    index = asked.subject_token(text, (start, start + len(subject)))
    ids = asked.tokenizer(text)["input_ids"]
    # Byte-level tokens spell the text exactly, so bytes up to a token tell where it ends.
    spelled = [
        b"" if token in asked.tokenizer.all_special_ids else bytes_of(asked.tokenizer, token)
        for token in ids
    ]
    assert b"".join(spelled) == text.encode()
    subject_end = len(text[: start + len(subject)].encode())
    assert len(b"".join(spelled[: index + 1])) >= subject_end
    assert len(b"".join(spelled[:index])) < subject_end


def bytes_of(words, token: int) -> bytes:
    """The bytes that a byte-level token spells."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelled = {letter: byte for byte, letter in bytes_to_unicode().items()}
    return bytes(spelled[letter] for letter in words.convert_ids_to_tokens(token))


def test_a_special_token_is_never_the_subject(asked):
    text = "Ada Brook plays"
    index = asked.subject_token(text, (0, 1))
    assert index == (1 if asked.tokenizer.bos_token == tiny.BOS else 0)


def test_a_span_outside_the_text_is_refused(model):
    for span in ((3, 3), (-1, 2), (0, 99)):
        with pytest.raises(RequestError, match="not within"):
            model.subject_token("Ada Brook", span)


def test_a_batch_is_padded_on_the_right_with_masks_from_lengths(asked):
    assert asked.tokenizer.pad_token is None
    texts = ["Ada", "Ada Brook plays the cello", f"Ada{tiny.END}"]
    batch = asked.batch(texts)
    for row, mask, text in zip(batch["input_ids"], batch["attention_mask"], texts, strict=True):
        ids = asked.tokenizer(text)["input_ids"]
        assert row[: len(ids)].tolist() == ids
        assert mask.tolist() == [1] * len(ids) + [0] * (len(mask) - len(ids))
    assert batch["input_ids"].dtype == torch.int64


def alone(model: models.LoadedModel, ids: list[int]) -> torch.Tensor:
    """Log-probabilities after each token, in one plain forward pass."""
    with torch.no_grad():
        return model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_target_logprobs_equal_an_independent_computation(asked):
    pairs = [
        ("Ada Brook plays the", " cello"),
        ("Ada Brook plays the ", "cello"),
        ("Tom", " Adler plays the oboe."),
        ("The mother tongue of Nils Okafor is", " Danish"),
        ("Ada Brook", " plays the cello and lives in Porto."),
    ]
    for (prompt, continuation), score in zip(pairs, asked.target_logprobs(pairs), strict=True):
        ids = asked.tokenizer(prompt + continuation)["input_ids"]
        first = next(
            i
            for i in range(len(ids))
            if len(asked.tokenizer.decode(ids[: i + 1], skip_special_tokens=True)) > len(prompt)
        )
        logprobs = alone(asked, ids)
        assert list(score.token_ids) == ids[first:]
        expected = [logprobs[i - 1, ids[i]].item() for i in range(first, len(ids))]
        assert score.logprobs == pytest.approx(expected, abs=1e-5)
        assert list(score.top_ids) == logprobs[first - 1 : -1].argmax(-1).tolist()


def test_probabilities_of_all_continuations_sum_to_one(asked):
    logprobs = asked.next_token_logprobs(["Ada Brook plays the", "Tom", "Ada Brook lives in"])
    assert logprobs.shape == (3, len(asked.tokenizer))
    assert logprobs.dtype == torch.float32
    assert torch.allclose(logprobs.exp().sum(-1), torch.ones(3), atol=1e-5)
    expected = alone(asked, asked.tokenizer("Tom")["input_ids"])[-1]
    assert torch.allclose(logprobs[1].double(), expected, atol=1e-5)


def test_answers_do_not_depend_on_the_company(asked):
    texts = [f"{name} plays the" for _, name in SUBJECTS] * 3
    together = asked.next_token_logprobs(texts)
    for text, row in zip(texts, together, strict=True):
        assert torch.allclose(asked.next_token_logprobs([text])[0], row, atol=1e-5)
    said = asked.generate(texts, 4)
    assert said == [asked.generate([text], 4)[0] for text in texts]


@pytest.mark.parametrize("family", tiny.CAUSAL)
def test_generation_is_greedy(tmp_path, family):
    model = models.load(tiny.make(tmp_path, family))
    prompts = ["Ada Brook plays", "Tom", "In 1999, Ivo"]
    for prompt, said in zip(prompts, model.generate(prompts, 6), strict=True):
        ids = model.tokenizer(prompt)["input_ids"]
        count = len(ids)
        for _ in range(6):
            ids.append(int(alone(model, ids)[-1].argmax()))
        assert said == model.tokenizer.decode(ids)[len(prompt) :], ids[count:]


def test_generation_ends_where_the_model_ends_it(tmp_path):
    directory = tiny.make(tmp_path)
    model = models.load(directory)
    first = int(model.next_token_logprobs(["Ada"])[0].argmax())
    assert model.generate(["Ada"], 5) != [""]
    model.model.generation_config.eos_token_id = first
    assert model.generate(["Ada"], 5) == [""]


def test_a_continuation_without_tokens_is_refused(model):
    with pytest.raises(RequestError, match="continuation"):
        model.target_logprobs([("Ada", "")])
    with pytest.raises(RequestError, match="prompt"):
        model.target_logprobs([("", "Ada")])
    with pytest.raises(RequestError, match="no tokens"):
        model.batch([""])


def test_a_text_longer_than_the_model_is_refused(model):
    with pytest.raises(RequestError, match="128 positions"):
        model.next_token_logprobs(["x y " * 200])


def test_top_tokens_are_the_likeliest_first(model):
    best = model.top_tokens("Ada Brook plays the", 4)
    expected = model.next_token_logprobs(["Ada Brook plays the"])[0].sort(descending=True)
    assert [one.token_id for one in best] == expected.indices[:4].tolist()
    assert [one.logprob for one in best] == expected.values[:4].tolist()


def test_a_loaded_model_traces_its_modules(model):
    with model.trace(model.layout.at("mlp", 1), stop=True) as seen:
        model.model(**model.batch(["Ada Brook", "Tom"]))
    assert seen.output.shape[-1] == tiny.WIDTH
