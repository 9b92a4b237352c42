"""Pull requests as git sees them: `refs/pr/N`, their diff, their conflicts, the squash merge."""

from __future__ import annotations

import pygit2

from hubedit_localhub import discussions
from hubedit_localhub.accounts import Account
from hubedit_localhub.discussions import Record
from hubedit_localhub.durable import sync_objects
from hubedit_localhub.history import History, title
from hubedit_localhub.refs import new_objects, set_ref
from hubedit_localhub.refusals import Refusal
from hubedit_localhub.store import Repo, signature
from hubedit_localhub.writing import BuildTree, commit_to

BASE = "refs/heads/main"
_UNION = ".gitattributes"


def ref_of(num: int) -> str:
    """Return the reference of a pull request."""
    return f"refs/pr/{num}"


def open_pull(
    repo: Repo,
    account: Account,
    name: str,
    description: str,
    start: pygit2.Commit,
    commit: pygit2.Commit | None,
) -> Record:
    """Open a pull request on `start`; with a commit it is open, without one a draft."""
    events = (
        [discussions.commit_event(account.user, title(commit), str(commit.id))] if commit else []
    )
    with repo.lock():
        num = discussions.next_number(repo)
        # The reference first: a number without a record is taken over by the next request.
        tip, git = commit or start, repo.git()
        if commit:
            sync_objects(repo.path, [str(commit.id), *new_objects(git, start.tree, commit.tree)])
        abandoned = History(repo).head(ref_of(num))
        set_ref(git, ref_of(num), str(abandoned.id) if abandoned else None, str(tip.id))
        return discussions.open_record(
            repo, account.user, name, description, True, "open" if commit else "draft", events
        )


def push_to_pull(
    repo: Repo, num: int, account: Account, message: str, build: BuildTree, parent: str | None
) -> pygit2.Commit:
    """Commit on a pull request that is open or a draft."""

    def guard(_: History) -> None:
        if discussions.load_pull(repo, num)["status"] not in ("open", "draft"):
            raise Refusal(403, f"Pull request #{num} is closed; reopen it or create another")

    def before(commit: pygit2.Commit) -> None:
        event = discussions.commit_event(account.user, title(commit), str(commit.id))
        discussions.promise(repo, num, ref_of(num), str(commit.id), {}, [event])

    def after() -> None:
        discussions.settle(repo, num)

    guard(History(repo))
    return commit_to(repo, ref_of(num), account.user, message, build, parent, guard, before, after)


def _base(history: History, main: pygit2.Commit, tip: pygit2.Commit) -> pygit2.Commit | None:
    found = history.git.merge_base(main.id, tip.id)
    commit = history.git[found] if found else None
    return commit if isinstance(commit, pygit2.Commit) else None


def _empty(history: History) -> pygit2.Tree:
    tree = history.git[history.git.TreeBuilder().write()]
    assert isinstance(tree, pygit2.Tree)
    return tree


def tree_diff(history: History, old: pygit2.Tree | None, new: pygit2.Tree) -> str:
    """Return the unified diff between two trees; bytes that are not UTF-8 are replaced."""
    diff = new.diff_to_tree(old if old is not None else _empty(history), swap=True)
    diff.find_similar()
    return "".join(patch.data.decode(errors="replace") for patch in diff if patch is not None)


def diff_of(history: History, record: Record) -> str:
    """Return what the pull request changes: since it left main, or what its merge changed."""
    if merged := record.get("mergeCommitId"):
        commit = history.resolve(merged)
        return tree_diff(history, commit.parents[0].tree, commit.tree)
    main, tip = history.resolve(BASE), history.resolve(ref_of(record["num"]))
    base = _base(history, main, tip)
    return tree_diff(history, (base or main).tree, tip.tree)


def _union(history: History, index: pygit2.Index) -> None:
    """Join both sides' lines of `.gitattributes`: they only ever grow."""
    try:
        sides = index.conflicts[_UNION] if index.conflicts is not None else None
    except KeyError:
        return
    if sides is None or sides[1] is None or sides[2] is None:
        return
    ours, theirs = (history.blob(str(side.id)).decode(errors="replace") for side in sides[1:])
    lines = list(dict.fromkeys(ours.splitlines() + theirs.splitlines()))
    blob = history.git.create_blob("".join(f"{line}\n" for line in lines).encode())
    del index.conflicts[_UNION]
    index.add(pygit2.IndexEntry(_UNION, blob, pygit2.enums.FileMode.BLOB))


def _merged(
    history: History, main: pygit2.Commit, tip: pygit2.Commit
) -> tuple[pygit2.Index, list[str]]:
    base = _base(history, main, tip)
    ancestor = base.tree if base else _empty(history)
    # Renames are not guessed: two LFS pointers look alike whatever they point to.
    flags = pygit2.enums.MergeFlag(0)
    index = history.git.merge_trees(ancestor, main.tree, tip.tree, flags=flags)
    _union(history, index)
    paths = {side.path for sides in index.conflicts or () for side in sides if side is not None}
    return index, sorted(paths)


def conflicts(history: History, record: Record) -> list[str]:
    """Return the files that main and the pull request changed in ways that do not go together."""
    if record["status"] not in ("open", "draft"):
        return []
    return _merged(history, history.resolve(BASE), history.resolve(ref_of(record["num"])))[1]


def _squash_message(
    history: History, record: Record, main: pygit2.Commit, tip: pygit2.Commit
) -> str:
    base = _base(history, main, tip)
    commits: list[pygit2.Commit] = []
    commit: pygit2.Commit | None = tip
    while commit is not None and (base is None or commit.id != base.id):
        commits.append(commit)
        commit = commit.parents[0] if commit.parent_ids else None
    lines = "\n".join(f"- {title(found)} ({found.id})" for found in reversed(commits))
    author = signature(record["author"])
    return (
        f"{record['title']} (#{record['num']})\n\n{lines}\n\n"
        f"Co-authored-by: {author.name} <{author.email}>\n"
    )


def merge(repo: Repo, num: int, account: Account, comment: str | None) -> Record:
    """Squash the pull request onto main as one commit `Title (#N)` and return the event.

    Raises:
        Refusal: 400 not open; 409 conflicts (the answer names the files) or nothing to merge.
    """
    record = discussions.load_pull(repo, num)
    start = History(repo).resolve(ref_of(num))

    def guard(history: History) -> None:
        current = discussions.load_pull(repo, num)
        if current["status"] != "open":
            raise Refusal(
                400, f"Pull request #{num} is {current['status']}; only an open one can be merged"
            )
        if history.head(ref_of(num)) != start:
            raise Refusal(409, f"Pull request #{num} was updated meanwhile; look at it again")

    def build(history: History, main: pygit2.Commit) -> pygit2.Oid:
        index, clashes = _merged(history, main, start)
        if clashes:
            raise Refusal(
                409,
                f"Pull request #{num} cannot be merged, main changed the same places: "
                f"{', '.join(clashes)}",
                body={"filesWithConflicts": clashes},
            )
        tree = index.write_tree(history.git)
        if tree == main.tree.id:
            raise Refusal(
                409, f"Pull request #{num} changes nothing that main does not have already"
            )
        return tree

    def message(main: pygit2.Commit) -> str:
        return _squash_message(History(repo), record, main, start)

    event = discussions.status_event(account.user, "merged")

    said = [discussions.comment_event(account.user, comment)] if comment else []

    def before(commit: pygit2.Commit) -> None:
        changes = {"status": "merged", "mergeCommitId": str(commit.id)}
        discussions.promise(repo, num, BASE, str(commit.id), changes, [*said, event])

    def after() -> None:
        discussions.settle(repo, num)

    guard(History(repo))
    commit_to(repo, BASE, account.user, message, build, None, guard, before, after)
    return event
