"""A run of several processes as all but the first take part in it: nothing is written or said."""

from __future__ import annotations

from dataclasses import replace

from hubedit import chat, revisions
from hubedit.context import Silent, device_of, threads
from hubedit.located import layout_of
from hubedit.run import Job, check_architecture, run_method


def follow(job: Job, *, force: bool = False) -> None:
    """Let the method work on this process's part of a job.

    Raises:
        HubEditError: the edit cannot be made.
    """
    from hubedit import models

    recipe, start = job.recipe, job.start
    with (
        threads(recipe.threads),
        revisions.model_folder(start.base, start.presence()) as folder,
    ):
        model = models.load(
            folder,
            dtype=recipe.dtype,
            device=device_of(recipe.device),
            layout=layout_of(start.stack.base),
            overlay=start.overlay(),
            texts=start.texts(),
            identity=start.stack.base.digest,
        )
        check_architecture(model, job.method)
        rows = chat.through_template(job.rows, model.tokenizer) if recipe.chat else job.rows
        run_method(model, replace(job, rows=rows), force, Silent())
