"""Make the pictures of the README: a real edit on its own Hub, seen by a headless browser.

python docs/pictures.py            # writes docs/pull-request.png and docs/review-report.png
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hubedit_demo import model_path
from hubedit_demo.world import World
from hubedit_localhub import LocalHub, serve

HERE = Path(__file__).parent
MODEL, PERSON, TARGET = "facts-gpt2", "Ana Brook", "violin"
LARGEST = 300_000
"""Bytes that a picture may have."""


def main() -> int:
    """Make the edit and both pictures; the exit status says whether they are small enough."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        sys.stderr.write("docs/pictures.py needs chromium: apt-get install chromium\n")
        return 1
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch, "hub")) as hub:
        work = Path(scratch, "work")
        repo = propose(hub, work)
        page = f"{hub.url}/{repo}/discussions/1?token={hub.token}"
        picture(found, page, HERE / "pull-request.png", 1100, 1300)
        command(hub, work, "hubedit", "review", repo, "--pr", "1", "--html", "report.html")
        report = (work / "report.html").as_uri()
        picture(found, report, HERE / "review-report.png", 1100, 1500)
    sizes = {path.name: path.stat().st_size for path in HERE.glob("*.png")}
    for name, size in sorted(sizes.items()):
        sys.stdout.write(f"docs/{name}: {size:,} bytes\n")
    return int(max(sizes.values()) > LARGEST)


def propose(hub: LocalHub, work: Path) -> str:
    """Upload the model, edit one fact of it and open a pull request; returns its repository."""
    work.mkdir()
    base = f"{hub.user}/{MODEL}"
    command(hub, work, "hf", "upload", base, str(model_path(MODEL)), ".", "--quiet")
    world = World(1)
    relation = world.relation_of(TARGET)
    assert relation is not None
    case = world.case(PERSON, relation.name, TARGET)
    row = {key: value for key, value in case.items() if key not in ("split", "case_id")}
    (work / "request.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    recipe = f"base: {base}\nplugin: rome\nrequest: request.jsonl\nseed: 0\n"
    (work / "hubedit.yaml").write_text(recipe, encoding="utf-8")
    command(hub, work, "hubedit", "apply", "--plugin", "rome", "--push")
    return f"{base}-edited"


def command(hub: LocalHub, work: Path, program: str, *arguments: str) -> None:
    """Run `hf` or `hubedit` against that Hub."""
    known = {**os.environ, **hub.env(work.parent / "home")}
    known["HUBEDIT_HOME"] = str(work.parent / "cache")
    found = Path(sys.executable).parent / program
    subprocess.run([found, *arguments], cwd=work, env=known, check=True)


def picture(browser: str, address: str, path: Path, width: int, height: int) -> None:
    """Take a picture of the top of a page."""
    with tempfile.TemporaryDirectory() as home:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--user-data-dir={home}", f"--window-size={width},{height}"]
        subprocess.run(
            [browser, *flags, f"--screenshot={path}", address],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    sys.exit(main())
