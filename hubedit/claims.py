"""What the text of an edit claims, held against the records it is written from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hubedit import __version__, probes
from hubedit.blame import brief
from hubedit.card import card_digest, render_card
from hubedit.checkup import parameter_of
from hubedit.diff import render_diff
from hubedit.editions import Edition
from hubedit.errors import HubError, NotOnHubError, UnknownMethodError
from hubedit.heatmap import place_of
from hubedit.hub import Hub
from hubedit.layouts import LAYOUTS
from hubedit.manifest import CARD_FILE, Manifest
from hubedit.places import HubPlace, checkpoint
from hubedit.plugins import load_plugins
from hubedit.probes import Probe
from hubedit.requests import rows_of


@dataclass
class Claims:
    """What was found of them, in sentences.

    `false` are claims that the records contradict, `differences` are for people to weigh, `held`
    are those that were found true, and `unread` those that could not be compared.
    """

    false: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def check_claims(edition: Edition, repo: str, recorded: list[Probe]) -> Claims:
    """Compare card, review page, scores and places of the newest edit with what they are made of.

    Args:
        edition: a revision whose digests are in order.
        repo: the repository that its card names.
        recorded: the probes of its newest edit.
    """
    found = Claims()
    _card(edition, repo, found)
    if edition.manifests:
        manifest = edition.manifests[-1]
        _page(edition, manifest, recorded, found)
        found.differences += _scores(manifest, recorded)
        found.false += _places(manifest)
        _declared(edition, manifest, found)
    return found


def _card(edition: Edition, repo: str, found: Claims) -> None:
    stack = edition.stack
    card = render_card(stack, edition.manifests, repo=repo, weights=stack.weights)
    there = edition.place.read(CARD_FILE).decode("utf-8", "replace")
    _same(card_digest(card) == card_digest(there), CARD_FILE, edition, found)


def _page(edition: Edition, manifest: Manifest, recorded: list[Probe], found: Claims) -> None:
    page = f"{edition.stack.edits[-1].folder}/DIFF.md"
    text = render_diff(
        manifest, [probe.model_dump() for probe in recorded], layers=manifest.base.layers
    )
    there = page in edition.place.files() and edition.place.read(page) == text.encode()
    _same(there, page, edition, found)


def _same(same: bool, path: str, edition: Edition, found: Claims) -> None:
    writers = {manifest.environment.hubedit for manifest in edition.manifests}
    if same:
        found.held.append(f"{path} says what the records say")
    elif writers <= {__version__}:
        found.false.append(
            f"{path} is not what hubedit {__version__} writes of these records: it says something "
            "else"
        )
    else:
        found.unread.append(
            f"{path} was not compared: hubedit {', '.join(sorted(writers))} made this edit, and "
            f"this is {__version__}"
        )


def _scores(manifest: Manifest, recorded: list[Probe]) -> Iterator[str]:
    if manifest.request.disclosed and probes.scores(recorded) != manifest.scores:
        yield "the scores on record are not those that the recorded answers give"


def _places(manifest: Manifest) -> Iterator[str]:
    """Tensors that the manifest places elsewhere in the model than their names do."""
    for tensor in manifest.tensors:
        known = place_of(manifest.base.model_type, tensor.name)
        if known is None or (known[1] is None and tensor.layer is None):
            continue  # tied tensors are in the embeddings and in the head
        if known != (tensor.module, tensor.layer):
            module, layer = known
            yield (
                f"{tensor.name} belongs to {module} of layer {layer}, and the manifest places it "
                f"in {tensor.module} of layer {tensor.layer}"
            )


def _declared(edition: Edition, manifest: Manifest, found: Claims) -> None:
    """Compare what changed with what the method says it changes, if it is installed here."""
    try:
        names = _targets(edition, manifest)
    except UnknownMethodError:
        found.unread.append(f"the scope of {manifest.method.name}: no plugin here offers it")
        return
    except Exception as error:  # a stranger's method must not keep a review from its verdict
        found.unread.append(f"the scope of {manifest.method.name}: {brief(error)}")
        return
    layout = LAYOUTS.get(manifest.base.model_type)
    if names is None or layout is None:
        return
    beyond = [
        tensor.name
        for tensor in manifest.tensors
        if not names.intersection(
            parameter_of(name, layout) for name in (tensor.name, *tensor.aliases)
        )
    ]
    if beyond:
        verb = "is" if len(beyond) == 1 else "are"
        found.differences.append(
            f"{', '.join(beyond[:4])} {verb} beyond what {manifest.method.name} says it changes "
            f"with these settings: {', '.join(sorted(names))}"
        )
    else:
        found.held.append(f"nothing beyond what {manifest.method.name} says it changes")


def _targets(edition: Edition, manifest: Manifest) -> set[str] | None:
    """The parameters that the method declares for this config, or None if it cannot say."""
    layout = LAYOUTS.get(manifest.base.model_type)
    method, _ = load_plugins().method(manifest.method.name)
    if layout is None:
        return None
    config = method.config_type().read(manifest.config)
    names: Iterable[str] | None = method().targets(layout, config)
    if names is None and manifest.request.disclosed:
        rows = rows_of(method.row_type(), [dict(row) for row in manifest.request.rows or ()])
        stored = checkpoint(edition.base).tensors
        shapes = {parameter_of(name, layout): info.shape for name, info in stored.items()}
        names = method.predict(layout, shapes, rows, config)
    return None if names is None else set(names)


def check_base_stands(edition: Edition) -> Claims:
    """Ask the Hub whether the base is still where the edit says, and what it is there now."""
    found, base = Claims(), edition.stack.base
    if base.repo is None or base.commit is None or edition.base_given is not None:
        return found
    hub = edition.hub()
    try:
        hub.commit(base.repo, base.commit)
    except NotOnHubError:
        found.false.append(
            f"the base is gone: {base.repo} has no commit {base.commit} that can be read, so "
            "nobody can rebuild the edited model; --base takes it from elsewhere"
        )
        return found
    try:
        moved = _moved(edition, hub, base.repo, base.commit)
    except HubError as error:
        found.unread.append(f"whether the base has moved: {error}")
        return found
    if moved:
        found.differences.append(moved)
    else:
        found.held.append(f"{base.repo} still holds the model that was edited")
    return found


def _moved(edition: Edition, hub: Hub, repo: str, commit: str) -> str | None:
    """Say how main of the base differs from the commit that was edited, unless a tag keeps it."""
    now = hub.commit(repo)
    if now == commit or commit in hub.tags(repo).values():
        return None
    place = HubPlace(hub, repo, now)
    wanted = {file.path: file.sha256 for file in edition.stack.base.files}
    there = place.sha256(path for path in wanted if path in place.files())
    other = sorted(path for path, digest in wanted.items() if there.get(path) != digest)
    if not other:
        return None
    return (
        f"the base has moved: {repo} is now at {now[:12]}, where {', '.join(other[:4])} "
        f"{'differs' if len(other) == 1 else 'differ'} from the commit that was edited "
        f"({commit[:12]}), which no tag keeps"
    )
