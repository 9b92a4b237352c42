"""What the server answers, one module for each part of the protocol."""

from __future__ import annotations

from hubedit_localhub.routes import commits, discussions, files, lfs, pages, repos, trees

ROUTES = (
    *repos.ROUTES,
    *trees.ROUTES,
    *commits.ROUTES,
    *lfs.ROUTES,
    *files.ROUTES,
    *discussions.ROUTES,
    *pages.ROUTES,
)
