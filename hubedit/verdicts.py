"""What a review found, and the verdict it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hubedit import probes, words
from hubedit.editions import Edition
from hubedit.manifest import Manifest, StackEntry
from hubedit.markdown import render

Verdict = Literal["verified", "verified with differences", "against the policy", "not verified"]
COMMENT_BEGINS = "**hubedit review:"
"""How the comment with a verdict begins, by which an earlier one is found again."""


@dataclass
class Review:
    """What a review found.

    `broken` are reasons not to trust the bytes or the records, `forbidden` is what the policy does
    not allow, `differences` are figures that came out otherwise than recorded, `unchecked` is what
    could not be looked at.
    """

    repo: str
    number: int
    commit: str = ""
    """What was reviewed: the head of the pull request, 40 hex digits."""
    result: str | None = None
    broken: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    own: list[probes.Probe] = field(default_factory=list)
    """The reviewer's own questions, before and after."""
    again: list[probes.Probe] = field(default_factory=list)
    """The recorded questions as they came out this time, unless the request is not disclosed."""
    proposed: Edition | None = field(default=None, repr=False)
    """What the pull request holds."""
    taken_back: list[StackEntry] = field(default_factory=list)
    """The edits of main that it takes back."""

    @property
    def what(self) -> str:
        """What was reviewed, in words."""
        return f"pull request {self.number} of {self.repo}"

    @property
    def verdict(self) -> Verdict:
        """The outcome in words."""
        if self.broken:
            return "not verified"
        if self.forbidden:
            return "against the policy"
        return "verified with differences" if self.differences else "verified"

    @property
    def headline(self) -> str:
        """The verdict, and what it does not cover."""
        if self.verdict == "verified" and any(i.startswith("behaviour") for i in self.unchecked):
            return "bytes verified, behaviour not checked"
        return self.verdict

    def as_json(self) -> dict[str, Any]:
        """The review as JSON."""
        return {
            "what": self.what,
            "commit": self.commit,
            "verdict": self.verdict,
            "headline": self.headline,
            "result": self.result,
            "broken": self.broken,
            "forbidden": self.forbidden,
            "differences": self.differences,
            "unchecked": self.unchecked,
            "checked": self.checked,
            "own": [probe.model_dump() for probe in self.own],
        }

    def markdown(self) -> str:
        """The review as a comment; the reviewer's own questions are counted, not quoted."""
        manifest = self._manifest()
        return render(
            "review.md",
            begins=COMMENT_BEGINS,
            r=self,
            m=manifest,
            taken_back=self.taken_back,
            headline=words.headline(manifest) if manifest else "",
            facts=words.facts(manifest) if manifest else "",
            scores=words.score_table(manifest.scores) if manifest else (),
            lists=(
                ("Broken", self.broken),
                ("Against the policy", self.forbidden),
                ("Differences", self.differences),
                ("Not checked", self.unchecked),
                ("Checked", self.checked),
            ),
            changed=sum(probe.before.answer != probe.after.answer for probe in self.own),
        )

    def _manifest(self) -> Manifest | None:
        """That of the edit under review, if the records are in order."""
        if self.broken or self.proposed is None or not self.proposed.stack.edits:
            return None
        return self.proposed.manifests[-1]
