"""One run of a method on a loaded model, and the model as base and encoded delta make it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubedit.context import Silent, Talk
from hubedit.delta import encode
from hubedit.discretion import UNSAID, Quotations
from hubedit.errors import UnsupportedModelError
from hubedit.run import Job, run_method
from hubedit.updates import StoredTensor

if TYPE_CHECKING:
    from hubedit.models import LoadedModel


@dataclass(frozen=True)
class Rebuilt:
    """The changed tensors as they are stored, the delta's bytes, and the guards overruled."""

    tensors: Mapping[str, StoredTensor]
    nbytes: int
    overruled: tuple[str, ...]


def edited(
    model: LoadedModel, job: Job, *, force: bool = False, talk: Talk | None = None
) -> Rebuilt:
    """Let the method edit the model; the model is put back.

    Raises:
        UnsupportedModelError: the method changes what a bench does not rebuild.
        HubEditError: the method refused or failed.
    """
    try:
        run = run_method(model, job, force, talk or Silent())
        if model.moves() or model.written:
            raise UnsupportedModelError(
                "it writes files or adds tensors, which a bench does not rebuild; make the "
                "edit by `hubedit apply` and score it by `hubedit eval`"
            )
        encoded = encode(
            model.changes(),
            model.start,
            meta={"base": "", "parent": ""},
            aliases={},
        )
    finally:
        model.restore()
    quotations = Quotations(job.rows if job.key is not None else ())
    overruled = tuple(
        f"a guard whose sentence {UNSAID}" if reason in quotations else reason
        for reason in run.overruled
    )
    return Rebuilt(dict(encoded.after), len(encoded.delta.to_bytes()), overruled)


def write(model: LoadedModel, tensors: Mapping[str, StoredTensor]) -> None:
    """Give the model stored tensors."""
    for name, value in tensors.items():
        model.set_tensor(name, value)


def take_back(model: LoadedModel, names: Iterable[str]) -> None:
    """Give the model its own tensors of these names again."""
    write(model, {name: model.start(name) for name in names})
