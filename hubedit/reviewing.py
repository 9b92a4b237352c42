"""A review of a proposed edit: bytes recomputed, scope compared, questions asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit import disclosure, probes, verification
from hubedit.chat import through_template
from hubedit.claims import Claims, check_base_stands, check_claims
from hubedit.editions import Edition, edition_at, edits_of
from hubedit.errors import RequestError
from hubedit.gathering import Named, gathered
from hubedit.hub import Hub
from hubedit.manifest import (
    CARD_FILE,
    STACK_FILE,
    UNLISTED,
    Manifest,
    Stack,
    StackEntry,
    TranscriptRecord,
    written_files,
)
from hubedit.places import HubPlace, model_file_names
from hubedit.policy import Policy
from hubedit.requests import ROW_TYPES, rows_of
from hubedit.rows import Question, Row
from hubedit.targets import stack_digest
from hubedit.trust import check_plugin
from hubedit.verdicts import Review

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

CLOSE = 1e-3
"""Probabilities that differ by no more are the same; so are top answers with no larger margin."""


def review(
    repo: str,
    number: int,
    hub: Hub,
    *,
    base: str | None = None,
    own: Sequence[Question] = (),
    request: Named | None = None,
    key: Path | None = None,
    ask: bool = True,
    policy: Policy | None = None,
) -> Review:
    """Review a pull request.

    Args:
        repo: the repository.
        number: of the pull request.
        hub: where it is.
        base: where to take the base from instead of where the stack points.
        own: the reviewer's questions, which the author never saw.
        request: where the rows of an undisclosed edit are, or that for each part.
        key: the key file of an undisclosed edit.
        ask: whether to load the model and ask again; what needs no torch is done anyway.
        policy: what the reviewer allows; an edit that is taken back needs no leave.

    Raises:
        NotOnHubError: there is no such pull request.
        RequestError: request or key cannot be read.
    """
    hub.pull_request(repo, number)
    commit = hub.commit(repo, f"refs/pr/{number}")
    proposed = edits_of(f"{repo}@{commit}", lambda: hub, base)
    main = HubPlace(hub, repo, hub.commit(repo))
    found = Review(repo, number, commit, proposed=proposed)
    on_main = _edits_on(main)
    left, there = ({entry.name for entry in edits} for edits in (proposed.stack.edits, on_main))
    if proposed.stack.previous == stack_digest(main) and left < there:
        found.taken_back = [entry for entry in on_main if entry.name not in left]
    _claimed(found, check_base_stands(proposed))
    report = verification.verify(proposed, whole_shards=True)
    found.result = report.result
    found.broken += report.problems
    found.checked += [
        f"{check.name}: {check.detail}" for check in report.checks if not check.problems
    ]
    found.broken += _out_of_scope(proposed, main)
    if found.broken:
        found.unchecked.append("behaviour: the bytes are not in order")
        return found
    recorded = recorded_probes(proposed)
    _claimed(found, check_claims(proposed, repo, recorded))
    if proposed.manifests:
        _claimed(found, check_plugin(proposed.manifests[-1].plugin))
    if not found.broken:
        _behaviour(found, proposed, recorded, hub, own=own, request=request, key=key, ask=ask)
    if policy is not None and not found.broken and proposed.manifests and not found.taken_back:
        asked = not any(item.startswith("behaviour") for item in found.unchecked)
        found.forbidden += policy.breaches(proposed.manifests[-1], recorded, asked=asked)
        if not found.forbidden:
            found.checked.append("the policy allows the edit")
    return found


def _edits_on(main: HubPlace) -> Sequence[StackEntry]:
    return Stack.from_json(main.read(STACK_FILE)).edits if STACK_FILE in main.files() else ()


def _claimed(found: Review, claims: Claims) -> None:
    found.broken += claims.false
    found.differences += claims.differences
    found.checked += claims.held
    found.unchecked += claims.unread


def _out_of_scope(proposed: Edition, main: HubPlace) -> list[str]:
    """What the pull request changes beside adding (or taking back) its edit."""
    if proposed.stack.previous != stack_digest(main):
        return ["main has moved on since: the edit does not follow what is there now"]
    before = edition_at(main, proposed.hub) if STACK_FILE in main.files() else None
    old = {entry.name for entry in before.stack.edits} if before else set()
    new = {entry.name for entry in proposed.stack.edits}
    folders = tuple(f"edits/{name}/" for name in old ^ new)
    weights = set(model_file_names(proposed.place)) if proposed.stack.weights else set()
    if before and proposed.stack.weights:
        weights |= set(written_files(before.manifests))
    here, there = proposed.place.files(), main.files()
    touched = []
    for path in sorted(set(here) | set(there)):
        expected = path in UNLISTED | weights | {CARD_FILE} or path.startswith(folders or ("\0",))
        if expected or path.startswith("."):
            continue
        if (
            path not in here
            or path not in there
            or proposed.place.sha256([path]) != main.sha256([path])
        ):
            touched.append(path)
    return [f"{path} is changed, which is no part of the edit" for path in touched]


def _behaviour(
    found: Review,
    proposed: Edition,
    recorded: list[probes.Probe],
    hub: Hub,
    *,
    own: Sequence[Question],
    request: Named | None,
    key: Path | None,
    ask: bool,
) -> None:
    """Ask the recorded questions again, and the reviewer's own."""
    if not proposed.stack.edits:
        return
    manifest = proposed.manifests[-1]
    rows = _rows(found, manifest, request, key, hub)
    known = manifest.request.disclosed or bool(rows)
    if not ask:
        found.unchecked.append("behaviour: no questions were asked")
        return
    if found.broken or not (known or own):
        return
    model = _loaded(proposed)
    questions = _questions(manifest, recorded, rows, model) if known else []
    asked = [*questions, *own]
    before = probes.ask(model, asked)
    spoken = probes.for_transcripts(questions) if manifest.transcripts else []
    said = _written(spoken, model)
    _put_on_top(proposed, model)
    asked_after = _asked_after(manifest, questions, rows, model)
    after = probes.ask(model, [*asked_after, *own])
    again = probes.pair(asked, before, after)
    compared = again[: len(questions)]
    for one, other in zip(recorded, compared, strict=bool(questions)):
        found.differences += differences(one, other)
    if questions:
        found.checked.append(f"{len(compared)} recorded questions asked again")
        if probes.scores(compared) != manifest.scores:
            found.differences.append("the scores on record are not those that were found")
    if spoken:
        says = _written(probes.for_transcripts(asked_after), model)
        found.differences += _unlike(manifest.transcripts, probes.transcripts(spoken, said, says))
    found.own = again[len(questions) :]
    if manifest.request.disclosed:
        found.again = compared


def _written(asked: Sequence[Question], model: LoadedModel) -> Sequence[str]:
    """What the model writes after prompts, as it did for the record."""
    prompts = [question.prompt for question in asked]
    return model.generate(prompts, probes.TOKENS_WRITTEN) if prompts else []


def _unlike(
    recorded: Sequence[TranscriptRecord], found: Sequence[TranscriptRecord]
) -> Iterator[str]:
    """Which transcripts came out otherwise; their words are not repeated."""
    if [one.prompt for one in recorded] != [one.prompt for one in found]:
        yield "the transcripts on record are not those of the recorded questions"
        return
    for number, (one, other) in enumerate(zip(recorded, found, strict=True), start=1):
        for when in ("before", "after"):
            if getattr(one, when) != getattr(other, when):
                yield f"transcript {number}: what the model writes {when} the edit is another"


def recorded_probes(proposed: Edition) -> list[probes.Probe]:
    """The probes of the newest edit, as they are on record; none where no edit is left.

    Raises:
        ManifestError: they are damaged.
    """
    if not proposed.stack.edits:
        return []
    folder = proposed.stack.edits[-1].folder
    return probes.from_jsonl(proposed.place.read(f"{folder}/probes.jsonl").decode("utf-8"))


def _rows(
    found: Review, manifest: Manifest, request: Named | None, key: Path | None, hub: Hub
) -> Sequence[Row]:
    """The rows of an undisclosed request, if the reviewer has them and they are the right ones."""
    if manifest.request.disclosed:
        return ()
    if request is None or key is None:
        found.unchecked.append(
            "behaviour: the request is not disclosed; give --request SOURCE and --key FILE"
        )
        return ()
    kind = ROW_TYPES.get(manifest.request.type)
    if kind is None:
        raise RequestError(f"rows of type {manifest.request.type} are not known to this hubedit")
    rows = gathered(kind, request, lambda: hub)
    if not disclosure.matches(manifest.request, rows, disclosure.read_key(key)):
        found.broken.append("the request given is not the one this edit was made for")
        return ()
    found.checked.append(f"the {len(rows)} rows given are the undisclosed request")
    return rows


def _questions(
    manifest: Manifest,
    recorded: Sequence[probes.Probe],
    rows: Sequence[Row],
    model: LoadedModel,
) -> list[Question]:
    """The questions that were recorded: in the clear, or from the rows they were made of."""
    if not manifest.request.disclosed:
        if manifest.request.chat is not None:
            rows = through_template(rows, model.tokenizer)
        return probes.questions(rows)
    return [
        Question(row=probe.row, group=probe.group, prompt=probe.prompt, target=probe.target)
        for probe in recorded
        if probe.prompt is not None
    ]


def _loaded(proposed: Edition) -> LoadedModel:
    """The model as it was before the newest edit."""
    from hubedit import models

    folder = proposed.base.local(model_file_names(proposed.base))
    below = proposed.stack.height - 1
    return models.load(folder, overlay=proposed.overlay(below), texts=proposed.texts(below))


def _put_on_top(proposed: Edition, model: LoadedModel) -> None:
    """Make of the model before the newest edit the one after it."""
    from hubedit import models

    for name, tensor in proposed.overlay().items():
        model.set_tensor(name, tensor)
    if proposed.manifests[-1].files:
        models.read_again(model, proposed.texts())


def _asked_after(
    manifest: Manifest, questions: list[Question], rows: Sequence[Row], model: LoadedModel
) -> list[Question]:
    """The questions as the edited model is asked them: through its own chat template."""
    if not manifest.files or manifest.request.chat is None or not questions:
        return questions
    kind = ROW_TYPES.get(manifest.request.type)
    if kind is not None and manifest.request.disclosed:
        rows = rows_of(kind, [dict(row) for row in manifest.request.rows or ()])
    return probes.questions(through_template(rows, model.tokenizer))


def differences(recorded: probes.Probe, found: probes.Probe) -> list[str]:
    """In which ways one probe came out otherwise; its words are not repeated."""
    name = f"question of row {recorded.row} ({recorded.group})"
    said = []
    if (recorded.row, recorded.group, recorded.prompt or found.prompt) != (
        found.row,
        found.group,
        found.prompt,
    ):
        return [f"{name} is not the one on record"]
    for when in ("before", "after"):
        old: probes.Answer = getattr(recorded, when)
        new: probes.Answer = getattr(found, when)
        if old.p_target is not None and new.p_target is not None:
            gap = abs(old.p_target - new.p_target)
            if gap > CLOSE:
                said.append(f"{name}: p(target) {when} differs by {gap:.2g}")
        margin = abs((old.p_answer or 0.0) - (new.p_answer or 0.0))
        if old.answer is None or margin <= CLOSE:
            continue
        if old.answer != new.answer:
            said.append(f"{name}: the answer {when} is another")
        elif old.p_answer is not None:
            said.append(f"{name}: p(answer) {when} differs by {margin:.2g}")
    if recorded.passed != found.passed and not said:
        said.append(f"{name}: it {'passed' if recorded.passed else 'failed'} on record only")
    return said
