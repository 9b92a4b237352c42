"""A plugin whose method unlearns by shaking one matrix: quick, and never the same as before."""

SOURCE = """
import hubedit

class Config(hubedit.Config):
    pass

class Shaken(hubedit.Method[hubedit.ROW, Config]):
    "Shake one matrix."
    name = "shaken"
    kind = "unlearn"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        import torch
        name = model.layout.mlp_out_weight(1)
        left, right = model.weight(name).shape
        model.update(name, hubedit.LowRank(
            torch.randn(left, 1, generator=run.generator),
            torch.randn(1, right, generator=run.generator) * SIZE))

@hubedit.hookimpl
def hubedit_methods():
    return [Shaken]
"""


def shaken(row, size):
    """Its source, for rows of one type; `size` is that of the factor beside the matrix."""
    return SOURCE.replace("ROW", row).replace("SIZE", str(size))
