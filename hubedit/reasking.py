"""An edit's questions, asked again on another start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hubedit import probes
from hubedit.manifest import BaseRecord, Manifest, ReplayRecord, TranscriptRecord
from hubedit.places import Place, model_file_names
from hubedit.rows import Question

if TYPE_CHECKING:
    from hubedit.models import LoadedModel
    from hubedit.updates import StoredTensor

UNASKED = "what the model answers since this edit was put on another start (nobody asked)"
WORDS = 12
"""Tokens of a transcript."""


class State(Protocol):
    """Tensors and small files that are other than the base's, at one height."""

    tensors: dict[str, StoredTensor]
    texts: dict[str, bytes]


class Asker:
    """A model that is brought from one height of a stack to another, loaded when first asked."""

    def __init__(self, place: Place, base: BaseRecord) -> None:
        self._place, self._base = place, base
        self._model: LoadedModel | None = None
        self._now: dict[str, StoredTensor] = {}

    def at(self, tensors: Mapping[str, StoredTensor], texts: Mapping[str, bytes]) -> LoadedModel:
        """The model with these tensors and files in the place of the base's."""
        from hubedit import models

        if self._model is None:
            folder = self._place.local(model_file_names(self._place))
            self._model = models.load(folder, identity=self._base.digest)
        model = self._model
        for name in self._now.keys() - tensors.keys():
            model.set_tensor(name, model.start(name))
        for name, tensor in tensors.items():
            if self._now.get(name) is not tensor:
                model.set_tensor(name, tensor)
        self._now = dict(tensors)
        if texts:
            models.read_again(model, texts)
        return model


@dataclass(frozen=True)
class Again:
    """A manifest with the figures of its new start, and the questions that gave them."""

    manifest: Manifest
    probes: Sequence[probes.Probe]


def ask_again(
    draft: Manifest,
    recorded: bytes,
    asker: Asker | None,
    below: tuple[Mapping[str, StoredTensor], Mapping[str, bytes]],
    state: State,
) -> Again:
    """Replace the figures that an edit had where it was made by those it has where it lies now.

    Questions that are not disclosed, or that nobody is to ask, leave no figures, and the manifest
    says so.

    Args:
        draft: the manifest on the new start.
        recorded: its probes.jsonl.
        asker: asks, if anybody does.
        below: tensors and files under the edit.
        state: the same with the edit.
    """
    known = probes.from_jsonl(recorded.decode("utf-8"))
    questions = [
        Question(row=probe.row, group=probe.group, prompt=probe.prompt, target=probe.target)
        for probe in known
        if probe.prompt is not None
    ]
    assert draft.replayed is not None
    if asker is None or not questions:
        missing = draft.not_tested if UNASKED in draft.not_tested else (UNASKED, *draft.not_tested)
        update: dict[str, Any] = {"scores": (), "transcripts": (), "not_tested": missing}
        return Again(draft.model_copy(update=update), [])
    spoken = [transcript.prompt for transcript in draft.transcripts]
    model = asker.at(*below)
    before, said = probes.ask(model, questions), model.generate(spoken, WORDS)
    model = asker.at(state.tensors, state.texts)
    found = probes.pair(questions, before, probes.ask(model, questions))
    says = model.generate(spoken, WORDS)
    replayed = ReplayRecord.model_validate({**draft.replayed.model_dump(), "asked": True})
    update = {
        "scores": probes.scores(found),
        "transcripts": tuple(
            TranscriptRecord(prompt=prompt, before=old, after=new)
            for prompt, old, new in zip(spoken, said, says, strict=True)
        ),
        "not_tested": tuple(text for text in draft.not_tested if text != UNASKED),
        "replayed": replayed,
    }
    return Again(draft.model_copy(update=update), found)
