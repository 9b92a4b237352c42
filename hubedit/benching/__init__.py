"""Benches: methods × models × numbers of edits, into one comparable table."""

from __future__ import annotations

from hubedit.benching.matrix import Matrix, bench
from hubedit.benching.workers import bench_in_parallel

__all__ = ["Matrix", "bench", "bench_in_parallel"]
