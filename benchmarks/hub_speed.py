"""How fast the embedded Hub is, as ratios to what the same machine needs without it.

Up- and download of one large file and of many small ones through the official client, against the
client's own hashing plus a plain copy of the files (the Hub also forces them to disk); and a commit
of three files on a repository of many commits and files, against the same commit by the git command
line.

    python benchmarks/hub_speed.py [--gigabytes 1] [--small 500] [--commits 1000] [--files 10000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hubedit_localhub.background import connect, stop
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils.sha import sha_fileobj

BLOCK = 1 << 24
ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_random(path: Path, size: int) -> None:
    """Fill a file with bytes that do not compress."""
    block = os.urandom(BLOCK)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            stamp = start.to_bytes(8, "big")
            file.write((stamp + block)[: min(BLOCK, size - start)])


def hash_all(folder: Path) -> None:
    """Hash as the client does before an upload: sha256 of large files, git's sha1 of small ones."""
    for path in folder.rglob("*.*"):
        if path.suffix == ".bin":
            with path.open("rb") as file:
                sha_fileobj(file)
        else:
            data = path.read_bytes()
            hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def measure_folder(api: HfApi, folder: Path, work: Path, name: str) -> dict[str, float]:
    """Time hashing, copying, uploading and downloading one folder."""
    found = {
        "hash": seconds(lambda: hash_all(folder)),
        "copy": seconds(lambda: shutil.copytree(folder, work / f"{name}-copy")),
    }
    repo = str(api.create_repo(name).repo_id)
    found["upload"] = seconds(lambda: api.upload_folder(repo_id=repo, folder_path=folder))
    found["download"] = seconds(
        lambda: api.snapshot_download(repo, local_dir=work / f"{name}-down", max_workers=8)
    )
    shutil.rmtree(work / f"{name}-copy")
    shutil.rmtree(work / f"{name}-down")
    base = found["hash"] + found["copy"]
    return found | {
        "upload_ratio": found["upload"] / base,
        "download_ratio": found["download"] / base,
    }


def git(place: Path, *words: str, text: str | None = None) -> None:
    """Run git without anybody's settings."""
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    names = {
        f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(
        ["git", *words], cwd=place, input=text, text=True, check=True, env=env | names,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def stream(commits: int, files: int) -> Iterator[str]:
    """Yield a history for `git fast-import`: every commit adds its share of the files."""
    share = files // commits
    for number in range(commits):
        yield "commit refs/heads/main\n"
        yield f"committer x <x@y> {1_700_000_000 + number} +0000\ndata 2\nx\n"
        if number == 0:
            yield f"M 100644 inline .gitattributes\ndata {len(ATTRIBUTES)}\n{ATTRIBUTES}\n"
        for at in range(number * share, (number + 1) * share):
            text = f"content of file {at}\n" * 20
            yield f"M 100644 inline d{at % 100}/f{at}.txt\ndata {len(text)}\n{text}\n"


def measure_commit(
    api: HfApi, root: Path, work: Path, commits: int, files: int, repeat: int
) -> dict[str, float]:
    """Time commits of three files, by turns, through the Hub and by git in a working tree."""
    repo = str(api.create_repo("history").repo_id)
    tree = work / "tree"
    tree.mkdir()
    git(tree, "init", "-q", "-b", "main")
    git(tree, "fast-import", "--quiet", text="".join(stream(commits, files)))
    git(tree, "checkout", "-q", "-f", "main")
    bare = root / "models" / f"{repo}.git"
    git(bare, "fetch", "-q", str(tree), "+refs/heads/main:refs/heads/main")
    paths = ["d1/new.txt", "d2/new.txt", "d3/new.txt"]
    by_hub, by_git = [], []
    for number in range(repeat + 1):
        contents = [f"{number} {path}\n".encode() for path in paths]
        operations = [CommitOperationAdd(*pair) for pair in zip(paths, contents, strict=True)]
        by_hub.append(
            seconds(lambda ops=operations: api.create_commit(repo, ops, commit_message="three"))
        )
        for path, content in zip(paths, contents, strict=True):
            (tree / path).write_bytes(content)

        def commit() -> None:
            git(tree, "add", *paths)
            git(tree, "commit", "-q", "-m", "three")

        by_git.append(seconds(commit))
    hub, line = statistics.median(by_hub[1:]), statistics.median(by_git[1:])
    return {"hub": hub, "git": line, "commit_ratio": hub / line}


@contextmanager
def hub(root: Path) -> Iterator[HfApi]:
    """A Hub in a process of its own."""
    info = connect(root)
    try:
        yield HfApi(endpoint=info.url, token=info.token)
    finally:
        stop(root)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--gigabytes", type=float, default=1.0)
    options.add_argument("--small", type=int, default=500)
    options.add_argument("--commits", type=int, default=1000)
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--repeat", type=int, default=9)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        large, small = work / "large", work / "small"
        large.mkdir()
        write_random(large / "weights.bin", int(asked.gigabytes * 1e9))
        for number in range(asked.small):
            (small / f"d{number % 10}").mkdir(parents=True, exist_ok=True)
            (small / f"d{number % 10}" / f"f{number}.txt").write_text(f"line {number}\n" * 100)
        with hub(work / "hub") as api:
            found = {
                "large": measure_folder(api, large, work, "large-file"),
                "small": measure_folder(api, small, work, "small-files"),
                "commit": measure_commit(
                    api, work / "hub", work, asked.commits, asked.files, asked.repeat
                ),
            }
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for name, label in (
        ("large", f"one file of {asked.gigabytes:g} GB"),
        ("small", f"{asked.small} files of about 1 kB"),
    ):
        one = found[name]
        print(f"{label}: client's hashing {one['hash']:.2f} s, copy {one['copy']:.2f} s")
        for way in ("upload", "download"):
            print(f"  {way} {one[way]:.2f} s, {one[f'{way}_ratio']:.2f} times hashing plus copy")
    one = found["commit"]
    print(
        f"a commit of three files on {asked.commits} commits and {asked.files} files: "
        f"{one['hub'] * 1000:.0f} ms through the Hub, {one['git'] * 1000:.0f} ms by git, "
        f"{one['commit_ratio']:.2f} times"
    )


if __name__ == "__main__":
    main()
