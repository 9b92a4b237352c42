"""What a model recites of a request: whole texts from their prefixes, texts and answers by MUSE."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubedit.forgetting import choices, likeness, memorised, muse
from hubedit.forgetting.cases import Case, spread

if TYPE_CHECKING:
    from hubedit.asking import Asking

RUN = 10
"""Tokens of the n-grams of extraction likelihood (Jang et al. 2022)."""
TEXT_TOKENS = 200
"""Tokens of a text that memorisation is counted in; Jang's targets are so long."""
TEXTS = 32
"""Texts of a part whose every prefix is continued, at most; one of the sizes of Jang's sets."""
EXAMPLES = 10
"""Questions with answers that a question of KnowMem follows, at most."""
OPTIONS = 4
"""Options of a question, at most; WMDP and MMLU have four."""
AT_ONCE = 256
"""Answers whose log-probabilities are held at once."""
SUBJECT = "general knowledge"
"""What the prompt of multiple choice says the questions are about."""


@dataclass(frozen=True)
class Recital:
    """What a model recites of one case; None is what the case has no room for.

    `accuracy` and `likelihood` are memorisation accuracy and extraction likelihood of its whole
    text. `verbatim` (of texts) and `knowledge` (of questions) are ROUGE-L F1. `letters` are
    log-probabilities of the letters of its options, of which number `right` is right.
    """

    accuracy: float | None = None
    likelihood: float | None = None
    verbatim: float | None = None
    knowledge: float | None = None
    letters: tuple[float, ...] = ()
    right: int = 0


NOTHING = Recital()


def recite(model: Asking, asked: Sequence[Case]) -> list[Recital]:
    """Let a causal model recite the cases; the recitals come in the same order.

    Memorisation is counted in forgotten and held-out texts, the rest in forgotten and retained
    cases.
    """
    accuracies, likelihoods = _memorised(model, asked)
    verbatim = _verbatim(model, asked)
    knowledge = _knowledge(model, asked)
    letters = _letters(model, asked)
    return [
        Recital(
            accuracy=accuracies.get(index),
            likelihood=likelihoods.get(index),
            verbatim=verbatim.get(index),
            knowledge=knowledge.get(index),
            letters=letters.get(index, ((), 0))[0],
            right=letters.get(index, ((), 0))[1],
        )
        for index in range(len(asked))
    ]


def _chosen(asked: Sequence[Case], *parts: str) -> list[int]:
    """Places of the cases of some parts."""
    return [index for index, case in enumerate(asked) if case.part in parts]


def _memorised(model: Asking, asked: Sequence[Case]) -> tuple[dict[int, float], dict[int, float]]:
    """Memorisation accuracy, and of texts that are long enough extraction likelihood, by place."""
    limit = min(TEXT_TOKENS, model.layout.positions(model.model.config) or TEXT_TOKENS)
    texts: dict[int, list[int]] = {}
    for index in _chosen(asked, "forget", "holdout"):
        ids = model.tokens(asked[index].text)[0][:limit]
        if len(ids) > 1:
            texts[index] = ids
    tops = dict(zip(texts, model.greedy(list(texts.values())), strict=True))
    long: dict[str, list[int]] = defaultdict(list)
    for index, ids in texts.items():
        if len(ids) > RUN:
            long[asked[index].part].append(index)
    some = [index for part in long.values() for index in spread(part, TEXTS)]
    said = continuations(model, [texts[i] for i in some], [tops[i] for i in some])
    return (
        {i: memorised.memorisation_accuracy(ids, tops[i]) for i, ids in texts.items()},
        {
            i: memorised.extraction_likelihood(texts[i], each, RUN)
            for i, each in zip(some, said, strict=True)
        },
    )


def continuations(
    model: Asking, texts: Sequence[Sequence[int]], tops: Sequence[Sequence[int]], n: int = RUN
) -> list[list[list[int]]]:
    """The greedy continuation of every text after its first 1 … T − n tokens, up to T tokens.

    Where the likeliest token is the text's own, the continuation is that token and then what
    follows one token later: only the prefixes after which the model errs are generated from.

    Args:
        model: a causal one.
        texts: token ids [T], more than n each.
        tops: the likeliest token after each prefix of the text [T − 1].
        n: how many tokens the shortest continuation has.
    """
    errs: dict[int, list[int]] = defaultdict(list)  # lengths of prefixes -> texts
    for number, (ids, top) in enumerate(zip(texts, tops, strict=True)):
        wrong = [t for t in range(1, len(ids)) if top[t - 1] != ids[t]]
        last = len(ids) - n
        for t in [*(t for t in wrong if t <= last), *[t for t in wrong if t > last][:1]]:
            errs[t].append(number)
    said: dict[tuple[int, int], list[int]] = {}
    for t, members in sorted(errs.items()):
        longest = max(len(texts[number]) for number in members)
        new = model.continued([texts[number][:t] for number in members], longest - t)
        for number, tokens in zip(members, new, strict=True):
            said[number, t] = tokens[: len(texts[number]) - t]
    found = []
    for number, ids in enumerate(texts):
        after: list[int] = []
        every: list[list[int]] = []
        for t in range(len(ids) - 1, 0, -1):
            after = said.get((number, t)) or [ids[t], *after]
            every.append(after)
        found.append(every[::-1][: len(ids) - n])
    return found


def _verbatim(model: Asking, asked: Sequence[Case]) -> dict[int, float]:
    """ROUGE-L F1 of what follows the beginning of each forgotten text, by place."""
    lengths: dict[int, list[int]] = defaultdict(list)
    truths: dict[int, str] = {}
    for index in _chosen(asked, "forget"):
        case = asked[index]
        if case.asks:
            continue
        ids = model.scored(case.prompt, case.answer)[1]
        cut = ids[: muse.VERBATIM_TOKENS]
        truths[index] = case.answer if cut == ids else str(model.tokenizer.decode(cut))
        lengths[len(cut)].append(index)
    found = {}
    for length, members in sorted(lengths.items()):
        said = model.generate([asked[index].prompt for index in members], length)
        for index, text in zip(members, said, strict=True):
            found[index] = likeness.f_measure(truths[index], text)
    return found


def _knowledge(model: Asking, asked: Sequence[Case]) -> dict[int, float]:
    """ROUGE-L F1 of the answers to forgotten and retained questions after examples, by place.

    The examples are retained questions, else normal ones, that are not asked then; as many as all
    questions have room for.
    """
    own = [index for index in _chosen(asked, "retain") if asked[index].asks]
    own = own or [index for index in _chosen(asked, "normal") if asked[index].asks]
    shown = spread(own, min(EXAMPLES, len(own) // 2))
    members = [index for index in _chosen(asked, "forget", "retain") if asked[index].asks]
    members = [index for index in members if index not in shown]
    while True:
        examples = [(asked[index].prompt, asked[index].answer.strip()) for index in shown]
        prompts = [muse.question_prompt(examples, asked[index].prompt) for index in members]
        fits = [_fits(model, prompt, muse.KNOWLEDGE_TOKENS) for prompt in prompts]
        if all(fits) or not shown:
            break
        shown = shown[:-1]
    room = [
        (index, prompt) for index, prompt, fit in zip(members, prompts, fits, strict=True) if fit
    ]
    said = model.generate([prompt for _, prompt in room], muse.KNOWLEDGE_TOKENS)
    return {
        index: likeness.f_measure(asked[index].answer, muse.answer_of(text))
        for (index, _), text in zip(room, said, strict=True)
    }


def _letters(model: Asking, asked: Sequence[Case]) -> dict[int, tuple[tuple[float, ...], int]]:
    """Log-probabilities of the letters of each case's options, and the place of the right one.

    The right option is the one that has the form of the wrong ones. Over the cases it stands at
    every place equally often.
    """
    members = [index for index in _chosen(asked, "forget", "retain") if asked[index].wrong]
    count = min((1 + len(asked[index].wrong) for index in members), default=0)
    count = min(count, OPTIONS)
    answers = [f" {letter}" for letter in choices.LETTERS[:count]]
    prompts: dict[int, str] = {}
    right: dict[int, int] = {}
    for turn, index in enumerate(members):
        case = asked[index]
        right[index] = turn % count
        options = [text.strip() for text in case.wrong[: count - 1]]
        options.insert(right[index], case.correct.strip())
        prompt = choices.prompt(SUBJECT, case.prompt, options)
        if _fits(model, prompt, max(map(len, answers))):
            prompts[index] = prompt
    pairs = [(prompt, answer) for prompt in prompts.values() for answer in answers]
    said = summed(model, pairs)
    return {
        index: (tuple(said[number * count : (number + 1) * count]), right[index])
        for number, index in enumerate(prompts)
    }


def summed(model: Asking, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The log-probability of each answer to its prompt; what is read alike is read once."""
    found: list[float] = []
    for start in range(0, len(pairs), AT_ONCE):
        scored = [model.scored(*pair) for pair in pairs[start : start + AT_ONCE]]
        keys = [(tuple(reading.ids), len(target)) for reading, target in scored]
        readings = dict(zip(keys, (reading for reading, _ in scored), strict=True))
        told = dict(model.logprobs(list(readings.values())))
        place = {key: number for number, key in enumerate(readings)}
        for key, (_, target) in zip(keys, scored, strict=True):
            picked = told[place[key]][range(len(target)), target]
            found.append(float(picked.double().sum()))
    return found


def _fits(model: Asking, prompt: str, more: int) -> bool:
    """Whether the model has positions for a prompt and so many tokens after it."""
    limit = model.layout.positions(model.model.config)
    return limit is None or len(model.tokenizer(prompt, verbose=False)["input_ids"]) + more <= limit
