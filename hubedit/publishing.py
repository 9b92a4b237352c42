"""The way of an edit to the Hub: where it goes, what is sent, and how it becomes a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hubedit.card import card_digest, human_text, render_card
from hubedit.editions import Edition, OpenHub, edition_at, edits_of, open_edition
from hubedit.errors import AccessError, HubError, NotOnHubError, PushConflictError, RecipeError
from hubedit.hub import Hub, Pushed
from hubedit.manifest import CARD_FILE, STACK_FILE, UNLISTED, Stack, StackEntry
from hubedit.places import HubPlace, LocalPlace


@dataclass(frozen=True)
class Target:
    """Where a push goes, as it was when the run began."""

    repo: str
    head: str | None
    """Commit of main, or None where the repository does not exist yet."""
    edition: Edition | None
    """What main holds, if it is a stack of edits."""
    weights: bool
    """Whether main holds weights, so that a delta alone may not go there."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digests of what main holds beside an edit's own files."""


def find_target(repo: str | None, base: str, hub: Hub) -> Target:
    """Look at the repository a push goes to; `repo` None stands for `{user}/{base}-edited`.

    Raises:
        AccessError: there is no token that may write.
    """
    user = hub.user()
    name = repo or f"{user}/{_base_name(base)}-edited"
    if "/" not in name:
        name = f"{user}/{name}"
    try:
        head = hub.commit(name)
    except NotOnHubError:
        return Target(name, None, None, weights=False)
    place = HubPlace(hub, name, head)
    names = place.files()
    weights = any("/" not in path and path.endswith(".safetensors") for path in names)
    if STACK_FILE in names:
        return Target(name, head, edition_at(place, lambda: hub), weights)
    others = [path for path in names if path not in UNLISTED and path != CARD_FILE]
    return Target(name, head, None, weights, place.sha256(others))


def _base_name(base: str) -> str:
    path = Path(base).expanduser()
    name = path.resolve().name if path.is_dir() else base.partition("@")[0].rpartition("/")[2]
    return name.removesuffix("-edited")


def open_start(base: str, hub: OpenHub, target: Target | None) -> Edition:
    """The edition an edit starts from: the base, or what the target already stacks on that base.

    Raises:
        RecipeError: the target holds something that this base cannot follow.
    """
    start = open_edition(base, hub)
    if target is None:
        return start
    if target.edition is not None:
        there = target.edition.stack
        if start.stack.edits and start.stack.edits == there.edits[: start.stack.height]:
            return target.edition
        if there.base.digest != start.stack.base.digest:
            raise RecipeError(
                f"{target.repo} stacks edits of {there.base.title}, and the base here is "
                f"{start.stack.base.title} with other files; use --base {there.base.repo or 'DIR'}"
                f"{'@' + there.base.commit if there.base.commit else ''}, or --to another "
                "repository"
            )
        if start.stack.edits:
            raise RecipeError(
                f"{base} and {target.repo} hold different stacks of edits; "
                f"use --base {target.repo}, or --to another repository"
            )
        return target.edition
    if target.weights:
        wanted = {file.path: file.sha256 for file in start.stack.base.files}
        if any(target.files.get(path) != digest for path, digest in wanted.items()):
            raise RecipeError(
                f"{target.repo} holds the weights of another model than {base}; use --to "
                "another repository"
            )
    return start


@dataclass(frozen=True)
class PushPlan:
    """What a push would send."""

    repo: str
    parent: str | None
    creates: bool
    pr: bool
    files: Mapping[str, int]
    """Sizes of the files that are new or other than on the Hub."""
    kept: Mapping[str, str]
    """Digests of files that the target keeps beside those of this directory."""
    card: str
    """The card that the target has, if it is one of hubedit's: what people wrote on it stays."""
    title: str


def plan_push(
    directory: Path, hub: Hub, to: str | None, *, direct: bool, force: bool
) -> tuple[PushPlan, Target]:
    """Work out what a push of a directory would do, and refuse what it must not.

    Raises:
        PushConflictError: the target has moved on since the edit was made.
        RecipeError: the edit does not fit the target.
        AccessError: gated weights would become public.
    """
    edition = edits_of(str(directory), lambda: hub)
    stack = edition.stack
    target = find_target(to, stack.base.repo or stack.base.directory or "model", hub)
    if target.edition is not None:
        there = target.edition.stack
        if there.base.digest != stack.base.digest:
            raise RecipeError(
                f"{target.repo} stacks edits of {there.base.title}, and {directory} is an edit of "
                f"{stack.base.title}; push with --to another repository"
            )
        if there.edits == stack.edits:
            raise RecipeError(
                f"{target.repo} already holds this edit ({stack.edits[-1].name}); nothing to push"
            )
        if there.edits != stack.edits[:-1]:
            raise PushConflictError(target.repo, f"a stack of {stack.height - 1}", target.head)
    elif target.head is not None and stack.height > 1:
        raise PushConflictError(target.repo, f"a stack of {stack.height - 1}", target.head)
    if target.weights and not stack.weights:
        raise RecipeError(
            f"{target.repo} holds weights, and a delta beside them would leave the "
            "unedited model for "
            "plain transformers to load; run `hubedit apply --with-weights` or push with "
            "--to another repository"
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
    title = f"{stack.edits[-1].method}: {stack.edits[-1].summary}".replace("\n", " ")
    title = title if len(title) <= 100 else title[:99] + "…"
    kept = {path: digest for path, digest in present.items() if path not in own}
    card = ""
    if target.edition is not None and CARD_FILE in target.edition.place.files():
        card = target.edition.place.read(CARD_FILE).decode("utf-8", "replace")
    new = target.head is None
    plan = PushPlan(target.repo, target.head, new, not direct, sending, kept, card, title)
    return plan, target


def _digests_on(target: Target) -> dict[str, str]:
    if target.edition is None:
        return dict(target.files)
    return {
        path: digest for path, digest in target.edition.stack.files.items() if path != CARD_FILE
    }


def publish(directory: Path, hub: Hub, plan: PushPlan, *, body: str) -> Pushed:
    """Push a directory as planned, in one commit.

    Raises:
        PushConflictError: somebody else pushed in between; nothing was written.
    """
    parent = plan.parent
    if parent is None:
        hub.create(plan.repo, private=True)
        parent = hub.commit(plan.repo)
    files: dict[str, Path | bytes] = {path: directory / path for path in plan.files}
    edition = edits_of(str(directory), lambda: hub)
    card = render_card(
        edition.stack,
        edition.manifests,
        repo=plan.repo,
        weights=edition.stack.weights,
        human=human_text(plan.card or edition.place.read(CARD_FILE).decode("utf-8")),
    )
    listed = {**plan.kept, **edition.stack.files, CARD_FILE: card_digest(card)}
    stack = edition.stack.model_copy(update={"files": dict(sorted(listed.items()))})
    files |= {CARD_FILE: card.encode(), STACK_FILE: stack.to_json().encode()}
    pushed = hub.push(
        plan.repo,
        files,
        parent=parent,
        title=plan.title,
        description=body,
        pr=plan.pr,
    )
    if not plan.pr:
        hub.tag(plan.repo, f"v{stack.height}", pushed.commit)
    return pushed


def merge(repo: str, number: int, hub: Hub, *, check_only: bool = False) -> tuple[str, str]:
    """Merge a pull request and tag the new height; returns the commit and the tag.

    A merge that was interrupted before its tag is finished by merging again.

    Raises:
        PushConflictError: main has edits that the pull request was not made on.
        HubError: it is closed.
    """
    details = hub.pull_request(repo, number)
    main = HubPlace(hub, repo, hub.commit(repo))
    if details.status == "merged":
        stack = edition_at(main, lambda: hub).stack
        tag = f"v{stack.height}"
        merged = str(details.merge_commit_oid or main.commit)
        if merged == main.commit:
            hub.tag(repo, tag, main.commit)
        return merged, tag
    if details.status == "closed":
        raise HubError(
            f"pull request {number} of {repo} is closed; reopen it on {hub.url}/{repo}, or "
            "apply again"
        )
    proposed = edits_of(f"{repo}@refs/pr/{number}", lambda: hub).stack
    present: Sequence[StackEntry] = ()
    if STACK_FILE in main.files():
        present = Stack.from_json(main.read(STACK_FILE)).edits
    if tuple(present) != proposed.edits[:-1]:
        raise PushConflictError(repo, f"a stack of {proposed.height - 1} edits", main.commit)
    tag = f"v{proposed.height}"
    if check_only:
        return main.commit, tag
    hub.merge(repo, number, f"Merged by hubedit as {tag}.")
    commit = str(hub.pull_request(repo, number).merge_commit_oid or hub.commit(repo))
    hub.tag(repo, tag, commit)
    return commit, tag
