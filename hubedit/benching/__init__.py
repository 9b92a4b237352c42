"""Benches: methods × models × numbers of edits, into one comparable table."""

from __future__ import annotations

from hubedit.benching.matrix import Matrix, bench

__all__ = ["Matrix", "bench"]
