"""A forger's tools: files of a pull request changed, and the records brought up to date."""

import hashlib
import json

from huggingface_hub import CommitOperationAdd

from hubedit.card import card_digest, render_card
from hubedit.delta import Delta
from hubedit.diff import render_diff
from hubedit.editions import edits_of
from hubedit.hub import Hub
from hubedit.manifest import Manifest, Stack

REPO = "me/tiny-edited"
REVISION = "refs/pr/1"


class Proposal:
    """The files of a pull request with one edit, to be changed and put back."""

    def __init__(self, api, repo=REPO):
        self.api, self.repo = api, repo
        place = edits_of(f"{repo}@{REVISION}", Hub).place
        self.files = {path: place.read(path) for path in place.files() if path[0] != "."}
        self.before = dict(self.files)
        self.folder = f"edits/{json.loads(self.files['hubedit.json'])['edits'][0]['name']}"

    def path(self, name):
        """The path of the file of that name."""
        return next(path for path in self.files if path.rpartition("/")[2] == name)

    def manifest(self):
        """The manifest as JSON, to be changed and given back to `keep_manifest`."""
        return json.loads(self.files[f"{self.folder}/manifest.json"])

    def keep_manifest(self, manifest):
        self.files[f"{self.folder}/manifest.json"] = (
            json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
        ).encode()

    def delta(self):
        return Delta.read(self.files[f"{self.folder}/delta.safetensors"])

    def keep_delta(self, content):
        """Put another delta in, and its digest into the manifest."""
        self.files[f"{self.folder}/delta.safetensors"] = content
        sha256 = hashlib.sha256(content).hexdigest()
        self.keep_manifest(
            self.manifest() | {"delta": self.manifest()["delta"] | {"sha256": sha256}}
        )

    def probes(self):
        lines = self.files[f"{self.folder}/probes.jsonl"].decode().splitlines()
        return [json.loads(line) for line in lines]

    def keep_probes(self, probes):
        self.files[f"{self.folder}/probes.jsonl"] = "".join(
            json.dumps(probe, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
            for probe in probes
        ).encode()

    def write_pages(self):
        """Write card and review page as hubedit writes them of these records."""
        manifest = Manifest.from_json(self.files[f"{self.folder}/manifest.json"])
        page = render_diff(manifest, self.probes(), layers=manifest.base.layers)
        self.files[f"{self.folder}/DIFF.md"] = page.encode()
        stack = Stack.from_json(self.files["hubedit.json"])
        card = render_card(stack, [manifest], repo=self.repo, weights=stack.weights)
        self.files["README.md"] = card.encode()

    def agree(self):
        """Bring every digest of the records up to date with the files."""
        stack = json.loads(self.files["hubedit.json"])
        (entry,), manifest = stack["edits"], self.manifest()
        entry["manifest"] = sha256(self.files[f"{self.folder}/manifest.json"])
        entry["delta"], entry["result"] = manifest["delta"]["sha256"], manifest["result"]
        stack["files"] = {
            path: card_digest(content.decode()) if path == "README.md" else sha256(content)
            for path, content in self.files.items()
            if path != "hubedit.json"
        }
        self.files["hubedit.json"] = json.dumps(stack).encode()

    def send(self):
        """Commit what was changed to the pull request."""
        changed = {
            path: content
            for path, content in self.files.items()
            if self.before.get(path) != content
        }
        self.api.create_commit(
            self.repo,
            [CommitOperationAdd(path, content) for path, content in changed.items()],
            commit_message="one more thing",
            revision=REVISION,
        )


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def flipped(content, place=-5):
    """The same with one bit flipped."""
    changed = bytearray(content)
    changed[place] ^= 4
    return bytes(changed)
