"""The model card of an edit repository: rendered from its stack and manifests, and read back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import yaml

from hubedit import words
from hubedit.errors import ManifestError
from hubedit.layouts import LAYOUTS
from hubedit.manifest import Manifest, Sha256, Stack, touched_tensors, written_files
from hubedit.markdown import render, visible

STARTS = "<!-- hubedit: your text starts here -->"
ENDS = "<!-- hubedit: your text ends here -->"
UNNAMED = "OWNER/NAME"
"""Stands on a card for a repository whose name is not known yet."""

_LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research "
    "apple-amlr apple-ascl h-research lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 "
    "postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license "
    "fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
    "grok2-community gemma unknown other open-mdw"
)
"""Licences that the Hub knows by name; for any other it wants `other` and the name beside it."""

_NEWLINE = re.compile(r"\r\n?")
_TASKS = {
    "causal": ("AutoModelForCausalLM", "text-generation"),
    "masked": ("AutoModelForMaskedLM", "fill-mask"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "text2text-generation"),
}


def render_card(
    stack: Stack,
    manifests: Sequence[Manifest],
    *,
    repo: str | None,
    weights: bool,
    human: str = "",
) -> str:
    """Write README.md for a stack of edits; the same input gives the same text.

    Args:
        stack: the base and its edits; none is left after all were reverted.
        manifests: of those edits, in the same order.
        repo: the repository the card is for, or None where its name is not known.
        weights: whether the revision also holds the edited weights.
        human: what people wrote on the card before; see `human_text`.

    Raises:
        ManifestError: the manifests are not those of the stack.
    """
    if [entry.name for entry in stack.edits] != [m.edit for m in manifests]:
        raise ManifestError(
            f"the stack holds {[entry.name for entry in stack.edits]} and the manifests are of "
            f"{[manifest.edit for manifest in manifests]}; give those of the stack, in its order"
        )
    title = repo.rpartition("/")[2] if repo else f"{words.base_name(stack.base)}, edited"
    name = repo or UNNAMED
    if not manifests:
        text = render(
            "reverted_card.md",
            front_matter=front_matter(stack, manifests, repo=repo, weights=weights),
            title=title,
            base=words.base_name(stack.base),
            stack=stack,
            name=name,
            version=stack.version,
            starts=STARTS,
            ends=ENDS,
        )
        return _with_human_text(text, human)
    newest = manifests[-1]
    text = render(
        "model_card.md",
        front_matter=front_matter(stack, manifests, repo=repo, weights=weights),
        title=title,
        base=words.base_name(stack.base),
        stack=stack,
        weights=weights,
        repo=repo,
        name=name,
        version=stack.version or stack.height,
        pinned=f"{name}@v{stack.version or stack.height}",
        auto=_task(stack)[0],
        touched=len(touched_tensors(manifests)),
        written=sorted(written_files(manifests)),
        total_bytes=sum(manifest.delta.nbytes for manifest in manifests),
        edits=[
            {
                "manifest": manifest,
                "folder": entry.folder,
                "words": entry.summary if manifest.request.disclosed else words.task(manifest),
            }
            for entry, manifest in zip(stack.edits, manifests, strict=True)
        ],
        forced=[(m, words.overruled(m)) for m in manifests if m.overruled],
        replayed=[(m.height, said) for m in manifests if (said := words.replayed(m))],
        newest=newest,
        folder=stack.edits[-1].folder,
        headline=words.headline(newest),
        outcome=words.outcome(newest.scores),
        asked=words.asked(newest.request),
        task=words.task(newest),
        undisclosed=words.undisclosed(newest),
        facts=words.facts(newest),
        assurance=words.ASSURANCE[newest.method.assurance],
        unlearned=any(m.method.kind == "unlearn" for m in manifests),
        **words.forgotten(newest),
        scores=words.score_table(newest.scores),
        starts=STARTS,
        ends=ENDS,
    )
    return _with_human_text(text, human)


def _with_human_text(card: str, human: str) -> str:
    written = _NEWLINE.sub("\n", human).strip("\n")
    if not written:
        return card
    return card.replace(f"{STARTS}\n{ENDS}", f"{STARTS}\n\n{written}\n\n{ENDS}")


def front_matter(
    stack: Stack, manifests: Sequence[Manifest], *, repo: str | None, weights: bool
) -> str:
    """The card's metadata as YAML, without the lines of dashes around it."""
    data: dict[str, Any] = {}
    if stack.base.repo:
        data["base_model"] = visible(stack.base.repo)
        data["base_model_relation"] = "finetune" if weights else "adapter"
    data["library_name"] = "hubedit"
    data.update(_license(stack.base.license))
    if weights:
        data["pipeline_tag"] = _task(stack)[1]
    data["tags"] = _tags(stack, manifests)
    if manifests and manifests[-1].scores:
        data["model-index"] = [_results(stack, manifests[-1], repo)]
    text: str = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, width=100_000, default_flow_style=False
    )
    return text.rstrip("\n")


def human_text(card: str) -> str:
    """What people wrote between the markers of a card; empty if there are none."""
    lines = _lines(card)
    found = _marked(lines)
    return "\n".join(lines[found[0] + 1 : found[1]]).strip("\n") if found else ""


def without_human_text(card: str) -> str:
    """The generated part of a card: its lines up to the first marker and from the last one on."""
    lines = _lines(card)
    found = _marked(lines)
    return "\n".join([*lines[: found[0] + 1], *lines[found[1] :]] if found else lines)


def card_digest(card: str) -> Sha256:
    """SHA-256 (hex) of the generated part of a card, in UTF-8."""
    return hashlib.sha256(without_human_text(card).encode("utf-8", "surrogatepass")).hexdigest()


def _lines(card: str) -> list[str]:
    return _NEWLINE.sub("\n", card).split("\n")


def _marked(lines: Sequence[str]) -> tuple[int, int] | None:
    """Line numbers of the first start marker and of the last end marker, if in that order."""
    starts = [number for number, line in enumerate(lines) if line == STARTS]
    ends = [number for number, line in enumerate(lines) if line == ENDS]
    return (starts[0], ends[-1]) if starts and ends and starts[0] < ends[-1] else None


def _license(name: str | None) -> dict[str, str]:
    if not name:
        return {}
    if name in _LICENSES.split():
        return {"license": name}
    other = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    return {"license": "other", "license_name": other or "unnamed"}


def _tags(stack: Stack, manifests: Sequence[Manifest]) -> list[str]:
    tags = {"hubedit", stack.base.model_type, *(manifest.method.name for manifest in manifests)}
    kinds = {manifest.method.kind for manifest in manifests}
    if "edit" in kinds:
        tags |= {"knowledge-editing", "model-edit"}
    if "unlearn" in kinds:
        tags.add("machine-unlearning")
    return sorted(visible(tag) for tag in tags)


def _task(stack: Stack) -> tuple[str, str]:
    layout = LAYOUTS.get(stack.base.model_type)
    return _TASKS[layout.architecture if layout else "causal"]


def _results(stack: Stack, manifest: Manifest, repo: str | None) -> dict[str, Any]:
    task = _task(stack)[1]
    return {
        "name": visible(repo or words.base_name(stack.base)),
        "results": [
            {
                "task": {"type": task, "name": words.GROUPS.get(score.group, visible(score.group))},
                "dataset": {
                    "type": "hubedit-probes",
                    "name": f"probes of {manifest.edit}",
                    "split": visible(score.group),
                    "args": {"n": score.n},
                },
                "metrics": [
                    {
                        "type": visible(score.metric),
                        "name": words.METRICS.get(score.metric, visible(score.metric)),
                        "value": score.after,
                    }
                ],
            }
            for score in manifest.scores
        ],
    }


__all__ = [
    "ENDS",
    "STARTS",
    "card_digest",
    "front_matter",
    "human_text",
    "render_card",
    "without_human_text",
]
