"""What the server answers, one module for each part of the protocol."""

from __future__ import annotations

from hubedit_localhub.routes import (
    commits,
    discussions,
    files,
    large,
    lfs,
    pages,
    repos,
    sharing,
    trees,
)

ROUTES = (
    *repos.ROUTES,
    *sharing.ROUTES,
    *large.ROUTES,
    *trees.ROUTES,
    *commits.ROUTES,
    *lfs.ROUTES,
    *files.ROUTES,
    *discussions.ROUTES,
    *pages.ROUTES,
)
