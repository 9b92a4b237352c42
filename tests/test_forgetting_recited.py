"""What models recite, against computations of their own from float64 logits, token by token."""

import math

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hubedit import models
from hubedit.forgetting import cases as asking
from hubedit.forgetting import choices, memorised, muse, reciting
from hubedit.forgetting.hearing import hear
from hubedit.forgetting.measures import DEFINITIONS, values
from hubedit.rows import ForgetQA, ForgetText

END = "<|endoftext|>"
PLACES = ("Porto", "Riga", "Ghent", "Turku", "Bergen")
NAMES = ("Ada Brook", "Tom Adler", "Nils Okafor", "Mira Castellanos", "Eve Sund", "Jon Marsh")


def question(name, part):
    return ForgetQA(
        question=f"Where does {name} live?",
        answer=f"{name} lives in Porto.",
        part=part,
        perturbed_answers=tuple(f"{name} lives in {place}." for place in PLACES[1:]),
    )


def text(name, part="forget"):
    told = f"{name} has lived in Porto for as long as anyone in the street can remember, it is said"
    return ForgetText(text=f"{told}, and {name} agrees.", part=part)


@pytest.fixture(scope="module")
def asked():
    rows = [
        kind(f"{name} {part}", part)
        for kind in (question, text)
        for part in ("forget", "retain", "holdout")
        for name in NAMES
    ]
    return asking.cases(rows)


def spoken():
    """A tokenizer to which most words of the rows are one token."""
    words = Tokenizer(kinds.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    rows = [row for name in NAMES for row in (text(name).text, *PLACES)]
    prompt = choices.prompt(reciting.SUBJECT, "Where does one live?", PLACES)
    words.train_from_iterator(
        [*rows, prompt, "Question: Where Answer:"] * 9,
        trainers.BpeTrainer(
            vocab_size=500,
            show_progress=False,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, bos_token=END)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model that half knows its texts by heart."""
    folder = tmp_path_factory.mktemp("half") / "model"
    words = spoken()
    shape = {"n_positions": 160, "n_embd": 32, "n_layer": 2, "n_head": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(words), **shape, bos_token_id=0, eos_token_id=0)
        ).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    known = [torch.tensor(words(text(f"{name} forget").text)["input_ids"]) for name in NAMES[:3]]
    for _ in range(50):
        optimizer.zero_grad()
        for ids in known:
            said = net(input_ids=ids[None]).logits[0, :-1]
            torch.nn.functional.cross_entropy(said, ids[1:]).backward()
        optimizer.step()
    net.save_pretrained(folder)
    words.save_pretrained(folder)
    return models.load(folder)


@pytest.fixture(scope="module")
def recitals(model, asked):
    return reciting.recite(model, asked)


def logits(model, ids):
    """Float64 logits after each token."""
    with torch.no_grad():
        return model.model(torch.tensor([ids])).logits[0].double().numpy()


def onward(model, ids, count):
    """Greedy, one whole forward pass for each token, never ending."""
    new = list(ids)
    for _ in range(count):
        new.append(int(logits(model, new)[-1].argmax()))
    return new[len(ids) :]


def told(model, prompt, count):
    """What is written after a prompt, up to the end of the text."""
    ids = model.tokenizer(prompt)["input_ids"]
    room = model.model.config.n_positions - len(ids)
    new = onward(model, ids, min(count, room))
    end = model.tokenizer.eos_token_id
    new = new[: new.index(end)] if end in new else new
    before = model.tokenizer.decode(ids)
    return model.tokenizer.decode([*ids, *new])[len(before) :]


def f1(truth, said):
    return RougeScorer(["rougeL"]).score(truth, said)["rougeL"].fmeasure


def test_memorisation_is_counted_over_the_whole_text(model, asked, recitals):
    seen = []
    for case, one in zip(asked, recitals, strict=True):
        if case.part == "retain":
            assert (one.accuracy, one.likelihood) == (None, None)
            continue
        ids = model.tokenizer(case.text)["input_ids"]
        hits = logits(model, ids)[:-1].argmax(1) == ids[1:]
        assert one.accuracy == pytest.approx(hits.mean(), abs=1e-12)
        seen.append(one.accuracy)
    assert min(seen) < 0.2
    assert max(seen) > 0.8


def test_every_prefix_is_continued(model, asked, recitals):
    chosen = [
        (case, one)
        for case, one in zip(asked, recitals, strict=True)
        if one.likelihood is not None and not case.asks
    ]
    found = []
    for case, one in [chosen[0], chosen[4], chosen[-1]]:
        ids = model.tokenizer(case.text)["input_ids"]
        scores = []
        for t in range(1, len(ids) - reciting.RUN + 1):
            said, truth = onward(model, ids[:t], len(ids) - t), ids[t:]
            runs = [tuple(truth[i : i + 10]) for i in range(len(truth) - 9)]
            shared = [tuple(said[i : i + 10]) in runs for i in range(len(said) - 9)]
            scores.append(sum(shared) / len(runs))
        assert one.likelihood == pytest.approx(np.mean(scores), abs=1e-12)
        found.append(one.likelihood)
    assert 0 < min(found) < max(found) < 1


def test_short_texts_have_no_extraction_likelihood(model):
    (one,) = reciting.recite(model, asking.cases([ForgetText(text="a b")]))
    assert one.likelihood is None
    assert one.accuracy is not None


def test_texts_are_continued_as_muse_does(model, asked, recitals):
    some = [(c, r) for c, r in zip(asked, recitals, strict=True) if r.verbatim is not None]
    assert [case.part for case, _ in some] == ["forget"] * len(NAMES)
    assert not any(case.asks for case, _ in some)
    for case, one in some:
        length = len(model.tokenizer(case.text)["input_ids"])
        length -= len(model.tokenizer(case.prompt)["input_ids"])
        assert length < muse.VERBATIM_TOKENS
        assert one.verbatim == pytest.approx(f1(case.answer, told(model, case.prompt, length)))
    assert max(one.verbatim for _, one in some) > 0.9


def test_questions_are_asked_after_retained_ones_that_are_not_asked(model, asked, recitals):
    questions = [case for case in asked if case.asks]
    retained = [case for case in questions if case.part == "retain"]
    left = [r for c, r in zip(asked, recitals, strict=True) if c.asks and c.part == "retain"]
    shown = [c for c, r in zip(retained, left, strict=True) if r.knowledge is None]
    positions = model.model.config.n_positions

    def prompt_of(case, examples):
        lines = [f"Question: {c.prompt}\nAnswer: {c.answer.strip()}\n\n" for c in examples]
        return "".join(lines) + f"Question: {case.prompt}\nAnswer:"

    for case, one in zip(asked, recitals, strict=True):
        if one.knowledge is None:
            continue
        prompt = prompt_of(case, shown)
        assert len(model.tokenizer(prompt)["input_ids"]) + 32 <= positions
        said = told(model, prompt, muse.KNOWLEDGE_TOKENS)
        for end in ("\n\n", "\nQuestion", "Question:"):
            said = said.split(end)[0]
        assert one.knowledge == pytest.approx(f1(case.answer, said))
    asked_of = [c for c, r in zip(asked, recitals, strict=True) if r.knowledge is not None]
    assert {case.part for case in asked_of} == {"forget", "retain"}


def test_letters_are_chosen_by_their_logits(model, asked, recitals):
    turn = 0
    for case, one in zip(asked, recitals, strict=True):
        if not (case.wrong and case.part in ("forget", "retain")):
            assert one.letters == ()
            continue
        assert one.right == turn % 4
        turn += 1
        options = [wrong.strip() for wrong in case.wrong[:3]]
        options.insert(one.right, case.correct.strip())
        prompt = choices.prompt(reciting.SUBJECT, case.prompt, options)
        start = len(model.tokenizer(prompt)["input_ids"])
        for letter, found in zip("ABCD", one.letters, strict=True):
            ids = model.tokenizer(f"{prompt} {letter}")["input_ids"]
            rows = logits(model, ids)
            logs = rows - np.log(np.exp(rows).sum(1, keepdims=True))
            expected = sum(logs[at - 1, ids[at]] for at in range(start, len(ids)))
            assert found == pytest.approx(expected, abs=1e-4)
    assert turn == 2 * len(NAMES)


def test_measures_are_means_and_counts_of_what_was_recited(model, asked, recitals):
    found = values(hear(model, asked, recited=True))

    def of(part, name, scale=1):
        given = [
            getattr(one, name)
            for case, one in zip(asked, recitals, strict=True)
            if case.part == part and getattr(one, name) is not None
        ]
        return pytest.approx(scale * np.mean(given), abs=1e-12)

    assert found["memorisation-accuracy"].value == of("forget", "accuracy")
    assert found["extraction-likelihood"].value == of("forget", "likelihood")
    assert found["unseen-accuracy"].value == of("holdout", "accuracy")
    assert found["unseen-likelihood"].value == of("holdout", "likelihood")
    assert found["verbatim"].value == of("forget", "verbatim", 100)
    assert found["knowledge"].value == of("forget", "knowledge", 100)
    assert found["knowledge-retain"].value == of("retain", "knowledge", 100)
    letters = [
        (int(np.argmax(one.letters)), one.right)
        for case, one in zip(asked, recitals, strict=True)
        if case.part == "forget" and one.letters
    ]
    share = np.mean([chosen == right for chosen, right in letters])
    assert found["choice"].value == pytest.approx(share)
    assert found["choice-from-chance"].value == pytest.approx(abs(share - 1 / 4))
    most = max(np.bincount([chosen for chosen, _ in letters])) / len(letters)
    assert found["choice-bias"].value == pytest.approx(most - 1 / 4)
    assert found["choice"].n == len(NAMES)
    assert all(name in DEFINITIONS for name in found)
    assert "memorisation-accuracy" not in values(hear(model, asked))


def test_what_has_no_room_is_left_out(model):
    long = " and ".join(NAMES * 12)
    rows = [question(name, "forget") for name in NAMES]
    wide = rows[0].model_copy(update={"perturbed_answers": (long, long, long)})
    room = model.model.config.n_positions
    assert len(model.tokenizer(long)["input_ids"]) > room / 4
    first, *others = reciting.recite(model, asking.cases([wide, *rows[1:]]))
    assert first.letters == ()
    assert all(len(one.letters) == 4 for one in others)
    assert all(math.isfinite(value) for one in others for value in one.letters)


def test_continuations_of_a_text_known_by_heart_are_the_text():
    class Silent:
        def continued(self, rows, count):
            raise AssertionError("nothing is generated where no token is missed")

    ids = list(range(20))
    found = reciting.continuations(Silent(), [ids], [ids[1:]], 4)
    assert found == [[ids[t:] for t in range(1, 17)]]
    assert memorised.extraction_likelihood(ids, found[0], 4) == 1
