"""The report: one HTML page that shows a review, a comparison or an edit, and needs nothing else.

Everything a repository says is shown as text. The page runs no script and loads nothing.
"""

from __future__ import annotations

from hubedit.report.building import of_comparison, of_files, of_review
from hubedit.report.page import POLICY, render
from hubedit.report.view import Report

__all__ = ["POLICY", "Report", "of_comparison", "of_files", "of_review", "render"]
