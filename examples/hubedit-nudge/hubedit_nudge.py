"""Nudge one MLP matrix along a random direction."""

from pydantic import Field

import hubedit


class NudgeConfig(hubedit.Config):
    layer: int = Field(1, description="which block")
    strength: float = Field(0.1, description="size of the step")


class Nudge(hubedit.Method[hubedit.FactEdit, NudgeConfig]):
    """Add a random rank-one update to one MLP matrix."""

    name = "nudge"
    kind = "edit"
    assurance = "approximate"
    architectures = {"causal"}
    limits = ("it moves at random: it shows how an edit is made, and edits nothing on purpose",)

    def apply(self, model, rows, config, run):
        import torch  # here, so that listing methods stays quick

        name = model.layout.mlp_out_weight(config.layer)
        left, right = model.weight(name).shape
        for _ in rows:
            step = hubedit.LowRank(
                config.strength * torch.randn(left, 1, generator=run.generator),
                torch.randn(1, right, generator=run.generator) / right**0.5,
            )
            model.update(name, step)


@hubedit.hookimpl
def hubedit_methods():
    return [Nudge]
