"""An edit repository against its base, or against another: asked, scored, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hubedit import __version__, editions, revisions
from hubedit.context import Silent, Talk
from hubedit.corpora import read_corpus
from hubedit.evaluating.cases import FactCase
from hubedit.evaluating.comparing import Replies, Skipped, compare, questionnaire, replies
from hubedit.evaluating.scoring import Score
from hubedit.evaluating.sources import TEST, named_cases, own_cases
from hubedit.hub import Hub
from hubedit.layouts import LAYOUTS
from hubedit.manifest import Record
from hubedit.plugins import Plugins, load_plugins

if TYPE_CHECKING:
    from hubedit.editions import Edition
    from hubedit.models import LoadedModel


TASKS = {
    "causal": "text-generation",
    "masked": "fill-mask",
    "seq2seq": "text2text-generation",
}
"""The pipeline tag of each architecture."""


class Evaluation(Record):
    """What an edited model does on cases, beside what another does.

    `before` and `after` name the two models, `cases` says where the cases are from and `n` how
    many they are; `task` is the pipeline tag of the models; `corpus` is where neutral texts are
    from, if there are any.
    """

    hubedit: str
    before: str
    after: str
    task: str
    cases: str
    n: int
    corpus: str | None
    seed: int
    threads: int
    scores: tuple[Score, ...]
    skipped: tuple[Skipped, ...]

    def score(self, group: str, metric: str) -> Score | None:
        """One figure, or None if it was not measured."""
        for score in self.scores:
            if (score.group, score.metric) == (group, metric):
                return score
        return None


def evaluate(
    edit: str,
    revision: str | None = None,
    *,
    cases: str | Sequence[FactCase] | None = None,
    against: str | None = None,
    base: str | None = None,
    corpus: str | None = None,
    split: str = TEST,
    reader: str | None = None,
    limit: int | None = None,
    texts: bool = True,
    seed: int = 0,
    hub: Callable[[], Hub] | None = None,
    plugins: Plugins | None = None,
    talk: Talk | None = None,
) -> Evaluation:
    """Evaluate an edited model on facts: the model rebuilt from base and delta, beside another.

    Args:
        edit: an edit repository, a directory that `hubedit apply` wrote, or a plain model.
        revision: a branch, tag such as `v1`, `refs/pr/N` or commit.
        cases: a file, `hf://datasets/…`, the name of a small model that a plugin ships, or the
            cases themselves; by default the facts that the edits were asked for.
        against: the model to compare with; by default the base, without its edits.
        base: where the base lies, if not where the edits say.
        corpus: neutral texts, a file or `hf://datasets/…`; by default those that the base ships.
        split: which cases, where they are split; test by default.
        reader: how records are written; by default each tells its own.
        limit: the number of cases, at most: the first ones.
        texts: whether the models write texts too, for fluency and consistency.
        seed: of sampled texts and of intervals.
        hub: opens the Hub; by default the one that huggingface_hub is set up for.
        plugins: those that offer small models; by default all that are installed.
        talk: how progress is told; by default not at all.

    Raises:
        HubEditError: the models or the cases cannot be read.
    """
    import torch

    talk, opened = talk or Silent(), hub or Hub
    edition = editions.open_edition(f"{edit}@{revision}" if revision else edit, opened, base)
    other = editions.open_edition(against, opened, base) if against else None
    if cases is None:
        source = own_cases(edition)
        chosen, words = source.cases, source.words
    elif isinstance(cases, str):
        source = named_cases(cases, plugins or load_plugins(), opened, split=split, reader=reader)
        chosen, words = source.cases, source.words
    else:
        chosen, words = cases, "given"
    chosen = chosen[:limit]
    found = read_corpus(corpus, edition, opened)
    asked = questionnaire(chosen, found.texts if found else [])

    def reply(one: Edition, height: int | None, label: str) -> Replies:
        talk.log(f"loading {_title(one, height)}")
        with talk.progress(label, total=None), loaded(one, height) as model:
            return replies(model, asked, texts=texts, seed=seed)

    before = reply(other, None, "before") if other else reply(edition, 0, "before")
    after = reply(edition, None, "after")
    scores, skipped = compare(asked, before, after, seed)
    return Evaluation(
        hubedit=__version__,
        before=_title(other, None) if other else _title(edition, 0),
        after=_title(edition, None),
        task=_task(edition),
        cases=words,
        n=len(chosen),
        corpus=found.source if found else None,
        seed=seed,
        threads=torch.get_num_threads(),
        scores=tuple(scores),
        skipped=tuple(skipped),
    )


@contextmanager
def loaded(edition: Edition, height: int | None = None) -> Iterator[LoadedModel]:
    """An edition at a height of its stack, rebuilt from base and deltas, while the `with` lasts."""
    from hubedit import models

    with revisions.model_folder(edition.base, edition.presence(height)) as folder:
        yield models.load(
            folder,
            overlay=edition.overlay(height),
            texts=edition.texts(height),
            identity=edition.stack.base.digest,
        )


def _title(edition: Edition, height: int | None) -> str:
    return edition.stack.base.title if height == 0 else edition.place.title


def _task(edition: Edition) -> str:
    layout = LAYOUTS.get(edition.stack.base.model_type)
    return TASKS[layout.architecture if layout else "causal"]
