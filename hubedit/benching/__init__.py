"""Benches: methods × models × numbers of edits, or × requests to forget, in comparable tables."""

from __future__ import annotations

from hubedit.benching.forgetting import bench_forgetting
from hubedit.benching.forgotten import ForgottenMatrix
from hubedit.benching.matrix import Matrix, bench
from hubedit.benching.workers import bench_forgetting_in_parallel, bench_in_parallel

__all__ = [
    "ForgottenMatrix",
    "Matrix",
    "bench",
    "bench_forgetting",
    "bench_forgetting_in_parallel",
    "bench_in_parallel",
]
