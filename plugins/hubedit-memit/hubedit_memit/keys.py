"""The matrices that are edited, with the keys that they are to answer as they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from hubedit_rome.site import Site, doubles

import hubedit

Solve = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""A [in, n] from the keys of the rows K [in, n] and those of earlier rows K_p [in, m], if any."""

Prepare = Callable[[torch.Tensor], Solve]
"""What makes the solver of one layer from its statistic C [in, in]."""

KEPT = "keys"
"""What the names of kept keys are recorded under."""


@dataclass
class Layer:
    """One matrix and its solver.

    `keys` are those [in] of the rows that were written already, by name, and `before` those of
    edits below in the stack.
    """

    site: Site
    solve: Solve
    keys: dict[str, torch.Tensor] = field(default_factory=dict)
    before: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its keys [in, n] are kept under."""
        return f"keys.{self.site.layer}"

    def earlier(self, names: Sequence[str]) -> torch.Tensor | None:
        """The keys [in, m] that are to be kept while those of the given names are written."""
        known = self.before | self.keys
        kept = [key for name, key in known.items() if name not in names]
        return torch.stack(kept, dim=1) if kept else None

    def factors(
        self, keys: torch.Tensor, residual: torch.Tensor, names: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """ΔW = R·Aᵀ as two factors [out, rank] and [rank, in], float64.

        Their rank is that of R, or less where the weight allows no more.

        Args:
            keys: K [in, n].
            residual: R [out, n], what each key should add to its value.
            names: whose keys are written, and so not kept.

        Raises:
            MethodError: the equations are singular.
        """
        answering = self.solve(keys, self.earlier(names))
        left, right = residual, answering.T
        if keys.shape[1] > min(residual.shape[0], keys.shape[0]):
            u, sizes, v = torch.linalg.svd(left @ right, full_matrices=False)
            left, right = u * sizes, v
        return left, right


def recall_keys(
    layers: Sequence[Layer], edits: Sequence[hubedit.Earlier], device: torch.device
) -> list[str]:
    """Take over the keys that edits below in the stack kept; says what each edit lacks."""
    lacking = []
    for edit in edits:
        apart = edit.config.get("subjects") != "together"
        names = [f"{edit.edit} {name}" if apart else name for name in edit.record.get(KEPT, [])]
        for layer in layers:
            kept = edit.kept.get(layer.name)
            if kept is not None:
                layer.before |= dict(zip(names, doubles(kept).T.to(device), strict=True))
        lost = [str(layer.site.layer) for layer in layers if layer.name not in edit.kept]
        if lost and len(lost) < len(layers):
            lacking.append(f"{edit.edit} kept no keys of layer {', '.join(lost)}")
        elif lost:
            others = sorted(name.removeprefix("keys.") for name in edit.kept)
            elsewhere = f" of layer {', '.join(lost)}, but of {', '.join(others)}" if others else ""
            lacking.append(f"{edit.edit} kept no keys{elsewhere}")
    return lacking


def keep(layers: Sequence[Layer], run: hubedit.RunContext) -> None:
    """Put the keys of this edit beside it, unless they would tell an undisclosed request."""
    if not run.disclosed:
        run.log("the request is not disclosed, so later edits are not told its keys")
        return
    run.record(KEPT, list(layers[0].keys))
    for layer in layers:
        run.keep(layer.name, torch.stack(list(layer.keys.values()), dim=1).float())
