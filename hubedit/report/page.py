"""The page itself: templates that escape everything, and the policy that forbids the rest."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from hubedit.markdown import FILTERS, visible
from hubedit.report.figures import legend
from hubedit.report.view import Report

_SHARED = ("changed", "counted", "figure", "nbytes", "percent", "plain", "shell")


def render(report: Report) -> str:
    """The page as one HTML document; it opens from disk and loads nothing.

    The same report gives the same text.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(r=report, style=Markup(_style()), policy=POLICY, legend=list(legend()))
    )


def _text(value: Any) -> Any:
    """What an expression of a template becomes before it is escaped: text in which nothing hides.

    Control, bidirectional and other invisible characters are shown by their numbers.
    """
    if isinstance(value, Markup):
        return value
    return visible(value, keep="\n\t") if isinstance(value, str) else value


@cache
def _environment() -> jinja2.Environment:
    templates = resources.files("hubedit").joinpath("templates")
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: templates.joinpath(name).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update({name: FILTERS[name] for name in _SHARED})
    return made


@cache
def _style() -> str:
    return resources.files("hubedit").joinpath("templates", "report.css").read_text("utf-8")


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


POLICY = _policy()
"""The content security policy of the page: one style by its hash, and nothing else at all."""
