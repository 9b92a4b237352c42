"""Markdown that shows other people's text without letting it act, and the templates that use it."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2

from hubedit.manifest import TensorRecord

EMPTY = "_(empty)_"
_MARKUP = re.compile(r"[\\`*\[\]<>|~$]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])")
_AT_START = re.compile(r"([-+#=:]|\d+(?=[.)](?:\s|$)))")
_LINKED = re.compile(r"://|www\.|mailto:|@\w", re.IGNORECASE)
_ENTITIES = {"\\": "&#92;", "`": "&#96;", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
_CITED = re.compile(
    r"https://(?:arxiv\.org|doi\.org|aclanthology\.org|openreview\.net|proceedings\.mlr\.press"
    r"|(?:papers|proceedings)\.(?:nips|neurips)\.cc)/[\w./?=&%#-]*[\w/]|arXiv:\d{4}\.\d{4,5}",
    re.ASCII,
)
"""What a citation may link to: places where papers lie, and nothing else."""


def visible(text: object, keep: str = "") -> str:
    """One line of text in which nothing hides.

    Line breaks become `↵`; control, bidirectional and other invisible characters become
    `⟨U+202E⟩`, except joiners within scripts and emoji that need them, and those in `keep`.
    """
    shown: list[str] = []
    for character in str(text).replace("\r\n", "\n"):
        if character in keep:
            shown.append(character)
        elif character == "\n":
            shown.append("↵")
        elif character in "\u200c\u200d" and shown and ord(shown[-1][-1]) > 0x2FF:
            shown.append(character)
        elif unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            shown.append(f"⟨U+{ord(character):04X}⟩")
        else:
            shown.append(character)
    return "".join(shown)


def shorten(text: str, limit: int | None) -> str:
    """The text, with `…` for its middle if it has more than `limit` characters."""
    if limit is None or len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[head + 1 - limit :]


def md(text: object, limit: int | None = None) -> str:
    """Prose as inline Markdown, also within a table: it shows as it is and does nothing.

    What a renderer could turn into a link or a mention is shown as code.
    """
    line = shorten(" ".join(visible(text).split()), limit)
    if not line:
        return EMPTY
    escaped = _inert(line)
    return _AT_START.sub(_shielded, escaped, count=1) if _AT_START.match(escaped) else escaped


def code(text: object, limit: int | None = None) -> str:
    """Text as a code span outside tables; spaces at its ends are shown as `␣`."""
    line = shorten(visible(text), limit)
    if not line:
        return EMPTY
    core = line.strip(" ")
    before = len(line) - len(line.lstrip(" "))
    return _span("␣" * before + core + "␣" * (len(line) - len(core) - before))


def cell(text: object, limit: int | None = None) -> str:
    """Text as a code span within a table, where a `|` would end the cell."""
    line = shorten(visible(text), limit).replace("\\|", "\\⟨U+007C⟩")
    return code(line).replace("|", "\\|")


def citation(text: object) -> str:
    """A citation as inline Markdown, with its links to papers in plain sight."""
    line = " ".join(visible(text).split())
    parts: list[str] = []
    end = 0
    for match in _CITED.finditer(line):
        found = match.group()
        parts.append(_inert(line[end : match.start()]))
        if found.startswith("https://"):
            parts.append(f"<{found}>")
        else:
            parts.append(f"[{found}](https://arxiv.org/abs/{found.removeprefix('arXiv:')})")
        end = match.end()
    return "".join(parts) + _inert(line[end:]) if parts else md(line)


def label(text: object) -> str:
    """A word at the start of a line of a code block, padded so that the next one aligns."""
    return f"{visible(text):<8}"


def changed(tensor: TensorRecord) -> str:
    """The share of a tensor's elements that changed."""
    return percent(tensor.elements_changed / max(tensor.elements_total, 1))


def url(path: object) -> str:
    """A relative path for a link."""
    return quote(str(path), safe="/", errors="replace")


def plain(value: Any) -> str:
    """A setting or recorded value as compact JSON."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def prose(text: str) -> str:
    """Our own words, wrapped so that they read well in a diff."""
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)


def python(text: object) -> str:
    """A Python string literal for a code block."""
    return json.dumps(visible(text), ensure_ascii=False)


def shell(text: object) -> str:
    """A word of a shell command for a code block."""
    return shlex.quote(visible(text))


def figure(value: float | None) -> str:
    """A number with two significant digits, `–` where there is none."""
    return "–" if value is None else f"{value:.2g}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage that never rounds to none or to all."""
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.0001:
        return "<0.01 %"
    if share > 0.999:
        return ">99.9 %"
    figures = f"{100 * share:.2g}" if share < 0.0995 else f"{100 * share:.1f}".removesuffix(".0")
    return figures + " %"


def nbytes(count: int) -> str:
    """A number of bytes in decimal units."""
    if count < 1000:
        return f"{count} B"
    size, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if size >= 999.5:
            size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """`1 fact`, `16 facts`."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def render(template: str, **values: Any) -> str:
    """Fill a template of `hubedit/templates`; runs of blank lines become one.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    text = environment().get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


FILTERS: dict[str, Callable[..., str]] = {
    "cell": cell,
    "changed": changed,
    "citation": citation,
    "code": code,
    "counted": counted,
    "figure": figure,
    "label": label,
    "line": visible,
    "md": md,
    "nbytes": nbytes,
    "percent": percent,
    "plain": plain,
    "prose": prose,
    "python": python,
    "shell": shell,
    "url": url,
}


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; an undefined value is an error."""
    templates = resources.files("hubedit").joinpath("templates")
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: templates.joinpath(name).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the text is Markdown: every value passes a filter of FILTERS instead
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(FILTERS)
    return made


def _inert(line: str) -> str:
    pieces = re.split(r"([ |])", line)
    return "".join(_span(piece) if _LINKED.search(piece) else _escape(piece) for piece in pieces)


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda match: _ENTITIES.get(match.group(), "\\" + match.group()), text)


def _shielded(match: re.Match[str]) -> str:
    found = match.group()
    return f"{found}\\" if found[0].isdigit() else f"\\{found}"


def _span(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


__all__ = [
    "FILTERS",
    "cell",
    "changed",
    "citation",
    "code",
    "counted",
    "environment",
    "figure",
    "label",
    "md",
    "nbytes",
    "percent",
    "plain",
    "prose",
    "python",
    "render",
    "shell",
    "shorten",
    "url",
    "visible",
]
