"""Writers at once, servers killed at any moment, and the proof that nothing was lost.

`.ci/soak` runs this longer: HUBEDIT_SOAK_WRITERS, …_REPOS, …_SECONDS and …_KILLS.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from hubedit_localhub import LocalHub, discussions, serve
from hubedit_localhub.background import running
from hubedit_localhub.commands import hub as hub_command
from hubedit_localhub.history import History
from hubedit_localhub.locks import write_json
from hubedit_localhub.proving import prove
from hubedit_localhub.refs import set_ref
from hubedit_localhub.store import Store
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

WRITERS = int(os.environ.get("HUBEDIT_SOAK_WRITERS", "6"))
REPOS = int(os.environ.get("HUBEDIT_SOAK_REPOS", "2"))
SECONDS = float(os.environ.get("HUBEDIT_SOAK_SECONDS", "2"))
KILLS = int(os.environ.get("HUBEDIT_SOAK_KILLS", "4"))
pytestmark = pytest.mark.timeout(300 + 5 * SECONDS + 30 * KILLS)


def _git_fsck(root: Path) -> str:
    said = ""
    for path in root.glob("*/*/*.git"):
        done = subprocess.run(
            ["git", "-C", str(path), "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(path), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"},
        )
        said += done.stdout + done.stderr + ("" if done.returncode == 0 else f"{path} failed\n")
    return said


def _content(api: HfApi, repo: str, path: str, revision: str = "main") -> bytes:
    url = f"{api.endpoint}/{repo}/resolve/{revision}/{path}"
    return bytes(get_session().get(url, headers={"authorization": f"Bearer {api.token}"}).content)


class _Writer:
    """Commits, counts, proposes and merges; remembers what the Hub said was done."""

    def __init__(self, api: HfApi, name: str, repos: list[str]) -> None:
        self.api, self.name, self.repos = api, name, repos
        self.chance = random.Random(name)
        self.files: list[tuple[str, str, bytes]] = []
        self.counted = dict.fromkeys(repos, 0)
        self.merged: list[tuple[str, int]] = []

    def run(self, until: float) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            repo = self.chance.choice(self.repos)
            step = self.chance.choice([self.add, self.add, self.count, self.propose])
            step(repo, f"{self.name}/{number}")

    def add(self, repo: str, path: str) -> None:
        data = {f"{path}.txt": path.encode(), f"{path}.bin": b"\0" + path.encode()}
        operations = [CommitOperationAdd(name, content) for name, content in data.items()]
        self.api.create_commit(repo, operations, commit_message=path)
        self.files += [(repo, name, content) for name, content in data.items()]

    def count(self, repo: str, path: str) -> None:
        head = str(self.api.model_info(repo).sha)
        number = int(_content(self.api, repo, "count", head).split()[0]) + 1
        # Who counted is written too: of a file that is already there the client makes no commit.
        operations = [CommitOperationAdd("count", f"{number} {path}".encode())]
        try:
            self.api.create_commit(repo, operations, commit_message=path, parent_commit=head)
            self.counted[repo] += 1
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise

    def propose(self, repo: str, path: str) -> None:
        operations = [CommitOperationAdd(f"{path}.md", path.encode())]
        done = self.api.create_commit(repo, operations, commit_message=path, create_pr=True)
        self.api.merge_pull_request(repo, int(done.pr_num or 0))
        self.files.append((repo, f"{path}.md", path.encode()))
        self.merged.append((repo, int(done.pr_num or 0)))


def test_writers_at_once_lose_nothing(localhub: LocalHub) -> None:
    api, repos = localhub.api(), [f"me/r{number}" for number in range(REPOS)]
    for repo in repos:
        api.create_repo(repo)
        api.upload_file(path_or_fileobj=b"0", path_in_repo="count", repo_id=repo)
    writers = [_Writer(localhub.api(), f"w{number}", repos) for number in range(WRITERS)]
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda writer: writer.run(until), writers))
    for repo in repos:
        counted = sum(writer.counted[repo] for writer in writers)
        assert int(_content(api, repo, "count").split()[0]) == counted
        wanted = {path for w in writers for place, path, _ in w.files if place == repo}
        assert wanted <= set(api.list_repo_files(repo))
    for writer in writers:
        for repo, path, data in writer.files[-5:]:
            assert _content(api, repo, path) == data
        for repo, num in writer.merged[-5:]:
            assert api.get_discussion_details(repo, num).status == "merged"
    assert {status for status in localhub.traffic.statuses if status >= 500} == set()
    assert prove(localhub.store).problems == []
    assert _git_fsck(localhub.root) == ""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class _Server:
    """A server in a process of its own that is killed and started again on the same port."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, _free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "hubedit_localhub", "--root", str(self.root)]
        self.process = subprocess.Popen([*command, "--port", str(self.port)])
        deadline = time.monotonic() + 30
        while (info := running(self.root)) is None:
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)
        self.api = HfApi(endpoint=info.url, token=info.token)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def _server(root: Path) -> Iterator[_Server]:
    found = _Server(root)
    try:
        yield found
    finally:
        found.kill()


def _upload(api: HfApi, name: str) -> None:
    data = name.encode() * 60_000
    operations = [CommitOperationAdd(f"{name}.bin", data), CommitOperationAdd(f"{name}.txt", b"x")]
    api.create_commit("me/demo", operations, commit_message=name)
    assert _content(api, "me/demo", f"{name}.bin") == data


def _propose(api: HfApi, name: str) -> None:
    operations = [CommitOperationAdd(f"pr-{name}.txt", b"x")]
    done = api.create_commit("me/demo", operations, commit_message=name, create_pr=True)
    details = api.get_discussion_details("me/demo", int(done.pr_num or 0))
    assert "commit" in {event.type for event in details.events}


def _merge(api: HfApi, name: str) -> None:
    """Merge what waits; a merge that was cut off is found to be done or is done again."""
    talks = api.get_repo_discussions("me/demo", discussion_type="pull_request")
    found = next((talk for talk in talks if talk.title == name), None)
    if found is None:
        operations = [CommitOperationAdd(f"merge-{name}.txt", b"x")]
        done = api.create_commit("me/demo", operations, commit_message=name, create_pr=True)
        num = int(done.pr_num or 0)
    else:
        num = found.num
    if api.get_discussion_details("me/demo", num).status != "merged":
        api.merge_pull_request("me/demo", num)
    details = api.get_discussion_details("me/demo", num)
    assert details.status == "merged"
    titles = [c.title for c in api.list_repo_commits("me/demo", revision="main")]
    assert titles.count(f"{name} (#{num})") == 1


def _create(api: HfApi, name: str) -> None:
    api.create_repo(f"me/{name}", exist_ok=True)
    api.create_branch(f"me/{name}", branch="b", exist_ok=True)
    api.create_tag(f"me/{name}", tag="v1", exist_ok=True)
    assert api.list_repo_files(f"me/{name}", revision="v1") == [".gitattributes"]


COMMANDS: list[Callable[[HfApi, str], None]] = [_upload, _merge, _propose, _create]


class _Work:
    """One command again and again, in a thread, until the server is killed under it."""

    def __init__(self, command: Callable[[HfApi, str], None], api: HfApi, name: str) -> None:
        self.command, self.name = command, name
        self.killed, self.failed = threading.Event(), False
        self.thread = threading.Thread(target=self._run, args=(api, name))

    def _run(self, api: HfApi, name: str) -> None:
        for number in count():
            self.name = f"{name}-{number}"
            try:
                self.command(api, self.name)
            except Exception:
                self.failed = True
            if self.killed.is_set() or self.failed:
                return


def test_a_server_killed_at_any_moment_is_sound_when_it_is_back(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("HUBEDIT_SOAK_SEED", "1"))
    with _server(tmp_path / "hub") as server:
        server.api.create_repo("me/demo")
        cut_off = 0
        for number in range(KILLS):
            work = _Work(COMMANDS[number % len(COMMANDS)], server.api, f"n{number}")
            work.thread.start()
            time.sleep(chance.uniform(0.01, 0.3))
            work.killed.set()
            server.kill()
            server.start()
            work.thread.join(60)
            assert not work.thread.is_alive()
            if work.failed:
                cut_off += 1
                work.command(server.api, work.name)
            assert prove(Store(server.root)).problems == []
        print(f"{cut_off} of {KILLS} kills cut off a command")  # noqa: T201
        assert _git_fsck(server.root) == ""


@pytest.fixture
def sound(localhub: LocalHub) -> LocalHub:
    """A Hub with a large file, a tag and a merged pull request, all proved."""
    api = localhub.api()
    api.create_repo("me/demo")
    operations = [CommitOperationAdd("w.bin", b"\0weights"), CommitOperationAdd("a.txt", b"a\n")]
    api.create_commit("me/demo", operations, commit_message="fill")
    api.create_tag("me/demo", tag="v1", tag_message="one")
    operations = [CommitOperationAdd("b.txt", b"b\n")]
    done = api.create_commit("me/demo", operations, commit_message="more", create_pr=True)
    api.merge_pull_request("me/demo", int(done.pr_num or 0))
    assert prove(localhub.store).problems == []
    return localhub


def _damaged(hub: LocalHub, path: Path, change: Callable[[bytes], bytes]) -> list[str]:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(change(data))
    return prove(Store(hub.root)).problems


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def test_fsck_finds_a_flipped_bit_in_a_large_file(sound: LocalHub) -> None:
    oid = hashlib.sha256(b"\0weights").hexdigest()
    problems = _damaged(sound, sound.store.objects.path(oid), _flipped)
    assert len(problems) == 1
    assert f"me/demo: large file {oid} has other content" in problems[0]


def test_fsck_finds_a_missing_large_file_and_a_lost_link(sound: LocalHub) -> None:
    oid = hashlib.sha256(b"\0weights").hexdigest()
    sound.store.objects.path(oid).unlink()
    assert prove(sound.store).problems == [f"me/demo: large file {oid} is missing"]
    next((sound.root / "models/me/demo.git/lfs").rglob(oid)).unlink()
    assert prove(sound.store).problems == [
        f"me/demo: large file {oid} does not belong to it any more"
    ]


def test_fsck_finds_damaged_and_missing_git_objects(sound: LocalHub) -> None:
    objects = sound.root / "models/me/demo.git/objects"
    oid = hashlib.sha1(b"blob 2\0a\n").hexdigest()
    problems = _damaged(sound, objects / oid[:2] / oid[2:], _flipped)
    assert len(problems) == 1
    assert oid in problems[0]
    (objects / oid[:2] / oid[2:]).unlink()
    assert oid in prove(sound.store).problems[0]


def test_fsck_finds_a_broken_record_and_says_so_with_its_exit_code(sound: LocalHub) -> None:
    arguments = ["fsck", "--root", str(sound.root)]
    clean = CliRunner().invoke(hub_command, arguments)
    assert (clean.exit_code, clean.output.count("no problems")) == (0, 1)
    record = sound.root / "models/me/demo.git/discussions/1.json"
    problems = _damaged(sound, record, lambda data: data[:50])
    assert problems[0].startswith("me/demo#1: the record cannot be read")
    found = CliRunner().invoke(hub_command, arguments)
    assert found.exit_code == 1
    assert problems[0] in found.output


def test_a_merge_cut_off_before_its_note_is_known_to_be_done(sound: LocalHub) -> None:
    api = sound.api()
    operations = [CommitOperationAdd("c.txt", b"c\n")]
    done = api.create_commit("me/demo", operations, commit_message="last", create_pr=True)
    num = int(done.pr_num or 0)
    repo = sound.store.find("models", "me/demo")
    assert repo is not None
    history = History(repo)
    main, tip = history.resolve("main"), history.resolve(f"refs/pr/{num}")
    event = discussions.status_event("me", "merged")
    changes = {"status": "merged", "mergeCommitId": str(tip.id)}
    with repo.lock():
        discussions.promise(repo, num, "refs/heads/main", str(tip.id), changes, [event])
    assert api.get_discussion_details("me/demo", num).status == "open"
    with repo.lock():
        set_ref(history.git, "refs/heads/main", str(main.id), str(tip.id))
    found = api.get_discussion_details("me/demo", num)
    assert (found.status, found.merge_commit_oid) == ("merged", str(tip.id))
    assert found.events[-1].type == "status-change"


def test_a_promise_whose_reference_never_moved_is_forgotten(sound: LocalHub) -> None:
    api = sound.api()
    num = api.create_pull_request("me/demo", title="A draft").num
    repo = sound.store.find("models", "me/demo")
    assert repo is not None
    with repo.lock():
        changes = {"status": "merged", "mergeCommitId": "0" * 40}
        discussions.promise(repo, num, "refs/heads/main", "0" * 40, changes, [])
    api.change_discussion_status("me/demo", num, "open")
    assert api.get_discussion_details("me/demo", num).status == "open"
    api.comment_discussion("me/demo", num, "still here")


def test_what_a_killed_writer_left_does_not_stop_the_next(sound: LocalHub) -> None:
    git = sound.root / "models/me/demo.git"
    for left in ("refs/heads/main.lock", "packed-refs.lock", "refs/pr/2.lock"):
        (git / left).touch()
    write_json(git / ".1.json.tmp", {})
    (git / "refs/pr/2").write_text((git / "refs/heads/main").read_text())
    api = sound.api()
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="me/demo")
    assert api.create_pull_request("me/demo", title="A draft").num == 2
    api.create_branch("me/demo", branch="b")
    api.delete_branch("me/demo", branch="b")
    assert prove(sound.store).problems == []


def test_a_backup_is_a_copy_of_the_directory(sound: LocalHub, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sound.root, copy)
    with serve(copy) as again:
        api = again.api()
        assert api.model_info("me/demo").sha == sound.api().model_info("me/demo").sha
        assert _content(api, "me/demo", "w.bin") == b"\0weights"
    assert prove(Store(copy)).problems == []
