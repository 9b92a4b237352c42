"""What tests of the report share: pages of the gallery, hostile ones, and their elements."""

import hashlib
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from hubedit.report import of_files, render

GALLERY = Path(__file__).parent.parent / "model_cards"
HOSTILE = (
    "</style></title></textarea></svg><script>document.title='taken'</script>"
    '<img src=x onerror="document.title=\'taken\'"><a href="javascript:alert(1)">x</a>'
    '\' onmouseover=\'alert(1)\' " onfocus="alert(1)" autofocus x="\u202e{{ 7 * 7 }}&#60;b&#62;'
)
MATRIX = {
    "name": "strength",
    "caption": "How strong each part is.",
    "rows": ["layer 0", "layer 1"],
    "columns": ["left", "middle", "right"],
    "values": ["0 0.123 1", "0.5 -0.25 0"],
}
LIMITED = {"architecture", "kind", "assurance", "file", "edit", "before", "after", "sha256"}
"""Keys whose values a reader refuses unless they are of a known form."""


class Elements(HTMLParser):
    """The elements of a page, their attributes, the text of its style, and all its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.style, self.text = Counter(), [], "", ""
        self._within = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attributes]
        self._within.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        if tag in self._within:
            while self._within.pop() != tag:
                pass

    def handle_data(self, data):
        if self._within and self._within[-1] == "style":
            self.style += data
        else:
            self.text += data


def files_of(case):
    """The files of one case of the gallery by their paths."""
    folder = GALLERY / case
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def page_of(files, **where):
    """The page of a revision with these files."""
    return render(of_files(files.get, **where))


def with_records(files, change_manifest, change_probe=lambda probe: probe):
    """The files with manifest and probes of the newest edit changed, and digests that agree."""
    stack = json.loads(files["hubedit.json"])
    folder = f"edits/{stack['edits'][-1]['name']}"
    manifest = change_manifest(json.loads(files[f"{folder}/manifest.json"]))
    lines = [line for line in files[f"{folder}/probes.jsonl"].decode().split("\n") if line]
    probes = "".join(json.dumps(change_probe(json.loads(line))) + "\n" for line in lines)
    content = json.dumps(manifest).encode()
    stack["edits"][-1]["manifest"] = hashlib.sha256(content).hexdigest()
    return files | {
        "hubedit.json": json.dumps(stack).encode(),
        f"{folder}/manifest.json": content,
        f"{folder}/probes.jsonl": probes.encode(),
    }


def poisoned(value, payload=HOSTILE, key=""):
    """The same JSON with a payload at the end of every text that may say anything."""
    if isinstance(value, dict):
        return {name: poisoned(part, payload, name) for name, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part, payload, key) for part in value]
    free = isinstance(value, str) and key not in {*LIMITED, "digest", "parent", "result", "group"}
    return value + payload if free and key not in {"path", "commit"} else value


def hostile_files(payload=HOSTILE):
    """A revision in whose records everything that may be free text is an attack."""

    def manifest(known):
        wild = poisoned(known, payload)
        drawn = {part: MATRIX[part] for part in ("caption", "rows", "columns")}
        wild["figures"] = [MATRIX | poisoned(drawn, payload)]
        for transcript in wild["transcripts"]:
            transcript["before"] += payload
            transcript["after"] += payload
        return wild | {"config": {payload: payload}, "record": {payload: [payload]}}

    def probe(known):
        wild = poisoned(known, payload)
        for when in ("before", "after"):
            wild[when]["answer"] += payload
        return wild

    return with_records(files_of("one-fact"), manifest, probe)
