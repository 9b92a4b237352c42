"""Which parameters of a model belong to the part of it that settings choose."""

from __future__ import annotations

from hubedit.layouts import Layout


def belongs(layout: Layout, name: str, modules: str) -> bool:
    """Whether a parameter of some block is in the part of it that a setting names."""
    if modules == "mlp_out":
        layer = layout.layer_of(name)
        return layer is not None and name == layout.mlp_out_weight(layer)
    return modules in ("all", layout.module_of(name))
