"""Evaluation of edits: what an edited model does on cases, in figures worth citing.

Metrics of what was edited are here; metrics of what was forgotten belong beside them, in modules of
their own, with rows of their own (`comparing.py` puts together what is asked).
"""

from __future__ import annotations

from hubedit.evaluating.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
