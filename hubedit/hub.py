"""The only door to the Hub: resolve, pull, read ranges, push, merge, log."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hubedit import __version__
from hubedit.errors import AccessError, HubError, NotOnHubError, PushConflictError, RecipeError
from hubedit.hookspecs import Endpoint
from hubedit.refusals import worded

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class RepoFile:
    """One file of a revision; its `sha256` is known unread where the Hub keeps it as LFS."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Pushed:
    """What a push made."""

    repo: str
    commit: str
    url: str
    pr: int | None


@dataclass(frozen=True)
class LogLine:
    """One commit of a branch, newest first, with the tags that point at it."""

    commit: str
    title: str
    date: str
    tags: tuple[str, ...]


def split_revision(text: str) -> tuple[str, str | None]:
    """Split `repo@revision`; the revision is None where none is given.

    Raises:
        RecipeError: it is not the name of a repository.
    """
    repo, _, revision = text.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or ".." in repo or "--" in repo:
        raise RecipeError(
            f"{text!r} is neither a directory nor the name of a Hub repository such as "
            "owner/name@revision"
        )
    return repo, revision or None


class Hub:
    """A Hub at one endpoint, spoken to with the one token that belongs to it."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils.tqdm import disable_progress_bars

        named = endpoint.url if endpoint else os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self.url = named.rstrip("/")
        self.cache: Path | None = endpoint.home / "hub" if endpoint else None
        self.token: str | bool | None = endpoint.token if endpoint else _own_token(self.url)
        if not _is_hugging_face(self.url):
            # a server cannot refuse the client's Xet uploads, and only huggingface.co answers them
            constants.HF_HUB_DISABLE_XET = True
        if not sys.stderr.isatty():
            disable_progress_bars()
        if urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}:
            kept = os.environ.get("NO_PROXY", "")
            if "127.0.0.1" not in kept:
                os.environ["NO_PROXY"] = f"{kept},127.0.0.1,localhost".lstrip(",")
        self.api: HfApi = HfApi(
            endpoint=self.url, token=self.token, library_name="hubedit", library_version=__version__
        )

    @property
    def is_embedded(self) -> bool:
        """Whether a plugin provides this Hub, and not the environment."""
        return self.cache is not None

    def _worded(self, what: str) -> AbstractContextManager[None]:
        return worded(what, self.url)

    # -- who ------------------------------------------------------------------------------------

    def user(self) -> str:
        """The name of the user whose token this is.

        Raises:
            AccessError: there is no token, or it is not valid, or it may only read.
        """
        from huggingface_hub import errors, get_token

        if self.token is False or (self.token is None and get_token() is None):
            raise AccessError(
                f"pushing to {self.url} needs a token: run `hf auth login`, set HF_TOKEN, "
                "or use --local "
                "for the embedded Hub"
            )
        try:
            with self._worded("who am I"):
                who = self.api.whoami()
        except (errors.LocalTokenNotFoundError, HubError) as error:
            raise AccessError(
                f"the token for {self.url} is not valid; run `hf auth login` or set HF_TOKEN"
            ) from error
        role = who.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise AccessError(
                f"the token of {who['name']} for {self.url} may only read; log in with one "
                "that may write"
            )
        return str(who["name"])

    # -- reading --------------------------------------------------------------------------------

    def commit(self, repo: str, revision: str | None = None) -> str:
        """The commit (40 hex digits) that a branch, tag, pull request or commit names."""
        shown = f"{repo}@{revision}" if revision else repo
        with self._worded(shown):
            info = self.api.repo_info(repo, revision=revision)
        if info.sha is None:
            raise HubError(f"{shown}: {self.url} names no commit for it")
        return str(info.sha)

    def exists(self, repo: str) -> bool:
        """Whether the repository exists and may be seen."""
        try:
            self.commit(repo)
        except NotOnHubError:
            return False
        return True

    def is_private(self, repo: str) -> bool:
        """Whether only its owner may see the repository."""
        with self._worded(repo):
            return bool(self.api.repo_info(repo).private)

    def describe(self, repo: str, commit: str) -> tuple[str | None, bool]:
        """The licence on the card (or None), and whether access is gated."""
        with self._worded(repo):
            info = self.api.model_info(repo, revision=commit)
        card = info.card_data
        license_name = card.get("license") if card is not None else None
        if license_name == "other" and card is not None:
            license_name = card.get("license_name") or license_name
        return (str(license_name) if license_name else None), bool(info.gated)

    def files(self, repo: str, commit: str) -> dict[str, RepoFile]:
        """Every file of a revision by its path."""
        from huggingface_hub.hf_api import RepoFile as ClientFile

        found = {}
        with self._worded(f"{repo}@{commit}"):
            for entry in self.api.list_repo_tree(repo, recursive=True, revision=commit):
                if isinstance(entry, ClientFile):
                    lfs = entry.lfs.sha256 if entry.lfs else None
                    found[entry.path] = RepoFile(entry.path, entry.size, lfs)
        return found

    def pull(self, repo: str, commit: str, paths: Sequence[str]) -> Path:
        """Download files of a revision; returns the directory that holds them under their paths."""
        from huggingface_hub import snapshot_download

        with self._worded(f"{repo}@{commit}"):
            folder = snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[_literal(path) for path in paths],
                endpoint=self.url,
                token=self.token,
                cache_dir=self.cache,
                library_name="hubedit",
                library_version=__version__,
            )
        return Path(folder)

    def pull_dataset(
        self, repo: str, revision: str | None, cache: Path | None = None
    ) -> tuple[str, Path]:
        """Download a dataset; returns its commit and the directory below `cache` that has it."""
        with self._worded(f"dataset {repo}"):
            commit = str(self.api.repo_info(repo, revision=revision, repo_type="dataset").sha)
            kept = cache or self.cache
            folder = self.api.snapshot_download(
                repo, repo_type="dataset", revision=commit, cache_dir=kept
            )
        return commit, Path(folder)

    def read(self, repo: str, commit: str, path: str) -> bytes:
        """The content of one file of a revision."""
        return (self.pull(repo, commit, [path]) / path).read_bytes()

    def read_range(self, repo: str, commit: str, path: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of one file, by a range request."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status, http_backoff

        if begin == end:
            return b""
        url = hf_hub_url(repo, path, revision=commit, endpoint=self.url)
        headers = build_hf_headers(
            token=self.token, library_name="hubedit", library_version=__version__
        )
        headers |= {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with self._worded(f"{path} of {repo}@{commit}"):
            response = http_backoff("GET", url, headers=headers, follow_redirects=True)
            hf_raise_for_status(response)
        content = response.content
        if response.status_code != 206 and len(content) > end - begin:
            content = content[begin:end]
        if len(content) != end - begin:
            raise HubError(
                f"{path} of {repo}@{commit}: asked for {end - begin} bytes and got "
                f"{len(content)}; try again"
            )
        return bytes(content)

    # -- writing --------------------------------------------------------------------------------

    def create(self, repo: str, *, private: bool = True) -> None:
        """Create a model repository, private unless asked otherwise; fine if it exists."""
        with self._worded(repo):
            self.api.create_repo(repo, private=private, exist_ok=True)

    def push(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        parent: str,
        gone: Sequence[str] = (),
        title: str,
        description: str,
        pr: bool,
    ) -> Pushed:
        """Write and delete files in one commit on top of `parent`: on main, or as a pull request.

        Raises:
            PushConflictError: main is no longer at `parent`.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, errors

        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in sorted(files.items())
        ]
        operations += [CommitOperationDelete(path) for path in gone]
        try:
            with self._worded(repo):
                info = self.api.create_commit(
                    repo,
                    operations,
                    commit_message=title,
                    commit_description=description,
                    parent_commit=parent,
                    create_pr=pr,
                )
        except HubError as error:
            cause = error.__cause__
            if isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code == 412:
                raise PushConflictError(repo, parent, self.commit(repo)) from error
            raise
        url = info.pr_url or info.commit_url
        return Pushed(repo, str(info.oid), str(url), info.pr_num)

    def tags(self, repo: str) -> dict[str, str]:
        """The tags of a repository, and what each points at."""
        with self._worded(repo):
            refs = self.api.list_repo_refs(repo)
        return {ref.name: ref.target_commit for ref in refs.tags}

    def tag(self, repo: str, name: str, commit: str) -> None:
        """Tag a commit; fine if that tag already points at it.

        Raises:
            HubError: the tag points elsewhere.
        """
        present = self.tags(repo)
        if name in present:
            if self.commit(repo, name) == commit or present[name] == commit:
                return
            raise HubError(f"{repo} already has a tag {name} on another commit ({present[name]})")
        with self._worded(f"tag {name} of {repo}"):
            self.api.create_tag(repo, tag=name, revision=commit)

    def pull_request(self, repo: str, number: int) -> Any:
        """Details of a pull request, with its status.

        Raises:
            NotOnHubError: there is none of that number.
        """
        try:
            with self._worded(f"pull request {number} of {repo}"):
                details = self.api.get_discussion_details(repo, number)
        except HubError as error:
            if isinstance(error, (NotOnHubError, AccessError)) or " answered 404 " not in str(
                error
            ):
                raise
            raise NotOnHubError(
                f"{repo} has no pull request {number}; see {self.url}/{repo}"
            ) from error
        if not details.is_pull_request:
            raise NotOnHubError(f"{number} of {repo} is a discussion, not a pull request")
        return details

    def merge(self, repo: str, number: int, comment: str) -> None:
        """Merge a pull request that is open; publishes it first if it is a draft."""
        details = self.pull_request(repo, number)
        with self._worded(f"merge of pull request {number} of {repo}"):
            if details.status == "draft":
                self.api.change_discussion_status(repo, number, "open")
            self.api.merge_pull_request(repo, number, comment=comment)

    def comment(self, repo: str, number: int, text: str, *, instead_of: str = "") -> None:
        """Post a comment to a pull request.

        Args:
            repo: the repository.
            number: of the pull request.
            text: Markdown.
            instead_of: how an own earlier comment begins that is edited instead, if there is one.
        """
        earlier = self._own_comment(repo, number, instead_of) if instead_of else None
        with self._worded(f"comment on pull request {number} of {repo}"):
            if earlier is None:
                self.api.comment_discussion(repo, number, text)
            else:
                self.api.edit_discussion_comment(repo, number, earlier, text)

    def _own_comment(self, repo: str, number: int, begins: str) -> str | None:
        """The newest comment of this user that begins so, by its id; hidden ones do not count."""
        user = self.user()
        found = [
            str(event.id)
            for event in self.pull_request(repo, number).events
            if event.type == "comment" and event.author == user and not event.hidden
            if event.content.startswith(begins)
        ]
        return found[-1] if found else None

    def log(self, repo: str, revision: str | None = None) -> list[LogLine]:
        """The commits of a branch, newest first, with their tags."""
        with self._worded(f"{repo}@{revision}" if revision else repo):
            commits = self.api.list_repo_commits(repo, revision=revision)
            refs = self.api.list_repo_refs(repo)
        tags: dict[str, list[str]] = {}
        for ref in refs.tags:
            tags.setdefault(ref.target_commit, []).append(ref.name)
        return [
            LogLine(
                commit=str(item.commit_id),
                title=str(item.title),
                date=item.created_at.isoformat(),
                tags=tuple(sorted(tags.get(item.commit_id, ()))),
            )
            for item in commits
        ]


def _is_hugging_face(url: str) -> bool:
    return urlsplit(url).hostname in {"huggingface.co", "hub-ci.huggingface.co"}


def _own_token(url: str) -> str | bool | None:
    """The token for an endpoint: None lets the client find it, False keeps it from sending one.

    The token file of the default home belongs to huggingface.co; another endpoint gets a token
    only from HF_TOKEN, or from the file of a home of its own.
    """
    if _is_hugging_face(url) or "HF_HOME" in os.environ or "HF_TOKEN_PATH" in os.environ:
        return None
    return os.environ.get("HF_TOKEN") or False


def _literal(path: str) -> str:
    """A pattern that matches this path alone."""
    return re.sub(r"([*?\[])", r"[\1]", path)
