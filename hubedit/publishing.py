"""The way of a revision to the Hub: what is sent, and how it becomes a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from hubedit.card import card_digest, human_text, render_card
from hubedit.descendants import RELATIONS, Descendants, Made
from hubedit.editions import Edition, edits_of
from hubedit.errors import (
    AccessError,
    HubEditError,
    HubError,
    PushConflictError,
    RecipeError,
)
from hubedit.hub import Hub, Pushed
from hubedit.manifest import CARD_FILE, STACK_FILE, Stack, StackEntry, written_files
from hubedit.places import HubPlace, LocalPlace
from hubedit.refusals import worded
from hubedit.targets import Target, chained, find_target, stack_digest

COUNTED, NAMED = 1000, 10
"""Models made from a base that are counted and that are named, of each relation at most."""


@dataclass(frozen=True)
class PushPlan:
    """What a push would send."""

    target: Target
    pr: bool
    files: Mapping[str, int]
    """Sizes of the files that are new or other than on the Hub."""
    gone: tuple[str, ...]
    """Files on the Hub that the revision no longer has."""
    kept: Mapping[str, str]
    """Digests of files that the target keeps beside those of this directory."""
    title: str

    @property
    def repo(self) -> str:
        """The repository it goes to."""
        return self.target.repo

    @property
    def parent(self) -> str | None:
        """The commit it goes on top of, or None where the repository does not exist yet."""
        return self.target.head

    @property
    def creates(self) -> bool:
        """Whether the repository is made first."""
        return self.target.head is None


def plan_push(directory: Path, hub: Hub, to: str | None, *, direct: bool, force: bool) -> PushPlan:
    """Work out what a push of a directory would do, and refuse what it must not.

    Raises:
        PushConflictError: the target has moved on since the edit was made.
        RecipeError: the edit does not fit the target.
        AccessError: gated weights would become public.
    """
    stack = edits_of(str(directory), lambda: hub).stack
    target = find_target(to, stack.base.repo or stack.base.directory or "model", hub)
    title = _title(stack, target, directory)
    if target.weights and not stack.weights:
        raise RecipeError(
            f"{target.repo} holds weights, and a delta beside them would leave the unedited model "
            "for plain transformers to load; run `hubedit apply --with-weights` or push with --to "
            "another repository"
        )
    private = target.head is None or hub.is_private(target.repo)
    if stack.weights and stack.base.gated and not private and not force:
        raise AccessError(
            f"the base {stack.base.title} is gated and {target.repo} is public; make it private, "
            "or insist with --force"
        )
    present = _digests_on(target)
    here = LocalPlace(directory)
    own = [path for path in here.files() if path in stack.files or path == STACK_FILE]
    digests = here.sha256(own)
    sending = {path: here.files()[path].size for path in own if present.get(path) != digests[path]}
    edits = {path for path in present if path.startswith("edits/")}
    if target.edition is not None and target.weights:
        edits |= set(written_files(target.edition.manifests)) & set(present)
    gone = tuple(sorted(edits - set(own)))
    kept = {path: digest for path, digest in present.items() if path not in own}
    kept = {path: digest for path, digest in kept.items() if path not in gone}
    return PushPlan(target, not direct, sending, gone, kept, title)


def _title(stack: Stack, target: Target, directory: Path) -> str:
    """The title of the commit, once it is clear that the stack follows what the target holds.

    Raises:
        RecipeError: it is another model's, or is there already.
        PushConflictError: it follows something else.
    """
    there: tuple[StackEntry, ...] = ()
    if target.edition is not None:
        base = target.edition.stack.base
        there = target.edition.stack.edits
        if stack.previous == stack_digest(target.edition.place) and (
            restacked := _restacked(stack, target.edition.stack)
        ):
            return restacked
        if base.digest != stack.base.digest:
            raise RecipeError(
                f"{target.repo} stacks edits of {base.title}, and {directory} is an edit of "
                f"{stack.base.title}; push with --to another repository"
            )
    if target.edition is not None and there == stack.edits:
        raise RecipeError(f"{target.repo} already holds this edit; there is nothing to push")
    if there and stack.edits == there[:-1]:
        return f"revert {there[-1].name}"
    if there != stack.edits[:-1] or not stack.edits:
        raise PushConflictError(target.repo, f"a stack of {stack.height - 1}", target.head)
    title = f"{stack.edits[-1].method}: {stack.edits[-1].summary}".replace("\n", " ")
    return title if len(title) <= 100 else title[:99] + "…"


def _restacked(stack: Stack, there: Stack) -> str | None:
    """The title of a commit that puts a stack's edits on another start, or None if it does not."""
    if stack.base.digest != there.base.digest:
        return f"rebase onto {stack.base.title}"
    if stack.height != there.height - 1:
        return None
    pairs = zip(stack.edits, there.edits, strict=False)
    same = next((at for at, (new, old) in enumerate(pairs) if new != old), stack.height)
    return f"revert {there.edits[same].name}"


def _digests_on(target: Target) -> dict[str, str]:
    if target.edition is None:
        return dict(target.files)
    files = target.edition.stack.files
    return {path: digest for path, digest in files.items() if path != CARD_FILE}


def publish(directory: Path, hub: Hub, plan: PushPlan, *, body: str) -> Pushed:
    """Push a directory as planned, in one commit.

    Raises:
        PushConflictError: somebody else pushed in between; nothing was written.
    """
    parent = plan.parent
    if parent is None:
        hub.create(plan.repo, private=True)
        parent = hub.commit(plan.repo)
    edition = edits_of(str(directory), lambda: hub)
    stack = chained(edition.stack, plan.target)
    stack = stack.model_copy(update={"descendants": _descendants(edition, hub, plan.repo)})
    card = render_card(
        stack,
        edition.manifests,
        repo=plan.repo,
        weights=stack.weights,
        human=_written_by_people(plan.target) or human_text(edition.place.read(CARD_FILE).decode()),
    )
    listed = {**plan.kept, **stack.files, CARD_FILE: card_digest(card)}
    stack = stack.model_copy(update={"files": dict(sorted(listed.items()))})
    files: dict[str, Path | bytes] = {path: directory / path for path in plan.files}
    files |= {CARD_FILE: card.encode(), STACK_FILE: stack.to_json().encode()}
    pushed = hub.push(
        plan.repo,
        files,
        gone=plan.gone,
        parent=parent,
        title=plan.title,
        description=body,
        pr=plan.pr,
    )
    if not plan.pr:
        hub.tag(plan.repo, f"v{stack.version}", pushed.commit)
    return pushed


def _descendants(edition: Edition, hub: Hub, repo: str) -> Descendants | None:
    """What the Hub lists as made from the base, where something was to be forgotten of it.

    It is asked without a token: what only some may see is not to be named on a card. None if it
    does not answer.
    """
    base = edition.stack.base.repo
    if base is None or not any(one.method.kind == "unlearn" for one in edition.manifests):
        return None
    found = []
    try:
        with worded(f"models made from {base}", hub.url):
            for relation in RELATIONS:
                listed = hub.api.list_models(
                    filter=f"base_model:{relation}:{base}", sort="downloads", token=False
                )
                models = [model.id for model in islice(listed, COUNTED + 2) if model.id != repo]
                found.append(
                    Made(
                        relation=relation,
                        count=min(len(models), COUNTED),
                        more=len(models) > COUNTED,
                        models=tuple(models[:NAMED]),
                    )
                )
    except HubEditError:
        return None
    return Descendants(asked=f"{datetime.now(UTC):%Y-%m-%d}", made=tuple(found))


def _written_by_people(target: Target) -> str:
    """What people wrote on the card that the target has, if it is one of hubedit's."""
    if target.edition is None or CARD_FILE not in target.edition.place.files():
        return ""
    return human_text(target.edition.place.read(CARD_FILE).decode("utf-8", "replace"))


def merge(repo: str, number: int, hub: Hub, *, check_only: bool = False) -> tuple[str, str]:
    """Merge a pull request and tag the new version; returns the commit and the tag.

    A merge that was interrupted before its tag is finished by merging again.

    Raises:
        PushConflictError: main is no longer what the pull request was made on.
        HubError: it is closed.
    """
    details = hub.pull_request(repo, number)
    main = HubPlace(hub, repo, hub.commit(repo))
    if details.status == "merged":
        merged = str(details.merge_commit_oid or main.commit)
        tag = f"v{edits_of(f'{repo}@{merged}', lambda: hub).stack.version}"
        hub.tag(repo, tag, merged)
        return merged, tag
    if details.status == "closed":
        raise HubError(
            f"pull request {number} of {repo} is closed; reopen it on {hub.url}/{repo}, or "
            "apply again"
        )
    proposed = edits_of(f"{repo}@refs/pr/{number}", lambda: hub).stack
    if proposed.previous != stack_digest(main):
        raise PushConflictError(repo, f"version {proposed.version - 1}", main.commit)
    tag = f"v{proposed.version}"
    if check_only:
        return main.commit, tag
    hub.merge(repo, number, f"Merged by hubedit as {tag}.")
    commit = str(hub.pull_request(repo, number).merge_commit_oid or hub.commit(repo))
    hub.tag(repo, tag, commit)
    return commit, tag
