"""How far an edited model has forgotten a request, beside its base and a retrained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit import __version__, editions
from hubedit.context import Silent, Talk
from hubedit.errors import RequestError, UnsupportedModelError, near_misses
from hubedit.evaluating import attaching
from hubedit.evaluating.evaluation import loaded
from hubedit.forgetting import cases as asking
from hubedit.forgetting.hearing import STEPS, Heard, hear
from hubedit.forgetting.measures import DEFINITIONS, UTILITIES, kept_numbers, values
from hubedit.forgetting.robustness import TREATMENTS, curves
from hubedit.gathering import Named, gathered
from hubedit.hub import Hub
from hubedit.measured import Forgetting, Gate, Measure, Point
from hubedit.places import LocalPlace
from hubedit.requests import ROW_TYPES
from hubedit.words import base_name

if TYPE_CHECKING:
    from hubedit.editions import Edition
    from hubedit.models import LoadedModel


def limits_of(given: Sequence[str]) -> dict[str, float]:
    """Read gates written NAME=LIMIT.

    Raises:
        RequestError: one is written otherwise, or no figure has that name.
    """
    known = [*DEFINITIONS, *TREATMENTS]
    found: dict[str, float] = {}
    for text in given:
        name, _, limit = text.partition("=")
        if name not in known:
            raise RequestError(f"no gate is called {name!r}; {near_misses(name, known)}")
        try:
            found[name] = float(limit)
        except ValueError as error:
            raise RequestError(f"the gate {text!r} has no limit; write {name}=0.5") from error
    return found


def evaluate_forgetting(
    edit: str,
    request: Named,
    *,
    oracle: str | None = None,
    base: str | None = None,
    robust: bool = False,
    gates: Sequence[str] = (),
    limit: int = asking.LIMIT,
    gradients: bool = True,
    attach: bool = False,
    hub: Callable[[], Hub] | None = None,
    talk: Talk | None = None,
) -> Forgetting:
    """Measure forgetting: the model rebuilt from base and deltas, its base, and a retrained one.

    Args:
        edit: an edit repository, a directory that `hubedit apply` wrote, or a plain model.
        request: where the rows to forget and to keep are: a file or `hf://datasets/…`, or that for
            each part.
        oracle: a model that was trained without the forgotten data.
        base: where the base lies, if not where the edit says.
        robust: whether to draw the curves of quantisation, relearning and other ways of asking;
            also drawn where a gate needs them.
        gates: limits written NAME=LIMIT. A measure that is better high must reach its limit, any
            other must not exceed it; of a curve it is the highest extraction strength.
        limit: cases of a part, at most.
        gradients: whether to take gradient norms, one backward pass for each case.
        attach: write the measurement into the newest edit of the directory that `edit` names.
        hub: opens the Hub; by default the one that huggingface_hub is set up for.
        talk: how progress is told; by default not at all.

    Raises:
        HubEditError: models or request cannot be read, or a gate needs what was not measured.
    """
    import torch

    talk, opened = talk or Silent(), hub or Hub
    wanted = limits_of(gates)
    drawn = robust or any(name in TREATMENTS for name in wanted)
    rows = gathered(ROW_TYPES["ForgetRow"], request, opened)
    asked = asking.cases(rows, limit)
    edition = editions.open_edition(edit, opened, base)
    if attach:
        attaching.check_attachable(edit, edition)
        attaching.check_request(edition.manifests[-1], rows)
    places: dict[str, tuple[Edition, int | None]] = {"before": (edition, 0)}
    if edition.stack.edits:
        places["after"] = (edition, None)
    if oracle is not None:
        places["oracle"] = (editions.open_edition(oracle, opened), None)
    heard: dict[str, list[Heard]] = {}
    drawings: dict[str, tuple[Point, ...]] = {}
    for label, (one, height) in places.items():
        talk.log(f"loading {one.stack.base.title if height == 0 else one.place.title}")
        with loaded(one, height) as model:
            _check(model)
            with talk.progress(label, total=STEPS) as bar:
                heard[label] = hear(
                    model, asked, gradients=gradients, recited=True, tick=bar.advance
                )
            if drawn:
                with talk.progress(f"{label}, treated", total=len(TREATMENTS)) as bar:
                    drawings[label] = tuple(curves(model, asked, bar.advance))
    heard.setdefault("after", heard["before"])
    if drawn:
        drawings.setdefault("after", drawings["before"])
    found = Forgetting(
        hubedit=__version__,
        before=_title(edition, 0),
        after=edition.stack.edits[-1].name if attach else edition.place.title,
        oracle=_title(places["oracle"][0]) if oracle is not None else None,
        parts=asking.counts(asked),
        threads=torch.get_num_threads(),
        measures=_measures(heard),
        curves=drawings,
    )
    kept = tuple(_gate(name, limit, found) for name, limit in wanted.items())
    found = found.model_copy(update={"gates": kept})
    if attach:
        attaching.attach(Path(edit), edition, found, rows)
    return found


def _title(edition: Edition, height: int | None = None) -> str:
    """A model by its repository and commit, or by its directory's name and digest."""
    base = edition.stack.base
    if height != 0 and edition.stack.edits:
        if isinstance(edition.place, LocalPlace):
            return f"{Path(edition.place.title).name} (local, {edition.stack.result[:12]})"
        return edition.place.title
    return base.title if base.repo else f"{base_name(base)} (local, {base.digest[:12]})"


def _check(model: LoadedModel) -> None:
    if model.layout.architecture != "causal":
        raise UnsupportedModelError(
            f"forgetting is measured on causal models; this one is {model.layout.architecture}"
        )


def _measures(heard: dict[str, list[Heard]]) -> tuple[Measure, ...]:
    oracle = heard.get("oracle")
    found = {label: values(said, oracle) for label, said in heard.items()}
    numbers = {name: n for name, (_, n) in kept_numbers(heard["after"]).items()}
    return tuple(
        Measure(
            name=name,
            words=DEFINITIONS[name].words,
            variant=DEFINITIONS[name].variant,
            better=DEFINITIONS[name].better,
            before=found["before"][name],
            after=value,
            oracle=found["oracle"].get(name) if oracle is not None else None,
            made_of=numbers if name in UTILITIES else {},
        )
        for name, value in found["after"].items()
    )


def _gate(name: str, limit: float, found: Forgetting) -> Gate:
    if name in TREATMENTS:
        points = [point.strength for point in found.curves["after"] if point.gate == name]
        if not points:
            raise RequestError(f"the gate {name} cannot be checked: the request has no such cases")
        value, at_least = max(points), False
    else:
        measure = found.measure(name)
        if measure is None:
            missing = "an oracle (--oracle)" if found.oracle is None else "rows of that kind"
            raise RequestError(f"the gate {name} was not measured; it needs {missing}")
        value, at_least = measure.after.value, measure.better == "high"
    passed = value >= limit if at_least else value <= limit
    return Gate(name=name, limit=limit, at_least=at_least, value=value, passed=passed)
