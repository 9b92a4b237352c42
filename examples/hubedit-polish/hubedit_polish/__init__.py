"""Polish: one matrix trained in place until the model says the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

import hubedit
from hubedit.layouts import Layout

__all__ = ["Polish", "PolishConfig"]


class PolishConfig(hubedit.Config):
    """Settings of polish."""

    layer: int = Field(1, ge=0, description="block whose second MLP matrix is trained, from 0")
    steps: int = Field(25, ge=1, description="steps of gradient descent for each row, at most")
    learning_rate: float = Field(0.05, gt=0, description="of plain gradient descent")
    enough: float = Field(0.1, gt=0, description="loss at which a row is done, in nats a token")


class Polish(hubedit.Method[hubedit.FactEdit, PolishConfig]):
    """Train one MLP matrix on the targets of the request, one row after the other."""

    name = "polish"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal"})
    limits = ("what else the matrix holds may be lost: nothing here keeps it",)

    def targets(self, layout: Layout, config: PolishConfig) -> Sequence[str]:
        """The one parameter that is trained."""
        return [layout.mlp_out_weight(config.layer)]

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: PolishConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train, and leave nothing but the new weights.

        Raises:
            hubedit.MethodError: the loss of a row became infinite or no number.
        """
        weight = model.weight(model.layout.mlp_out_weight(config.layer))
        weight.requires_grad_(True)
        try:
            for row in rows:
                self.train(model, row, weight, config, run)
        finally:
            weight.requires_grad_(False)

    def train(
        self,
        model: hubedit.EditableModel,
        row: hubedit.FactEdit,
        weight: Any,
        config: PolishConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Descend on the cross-entropy of one target, token by token."""
        import torch  # here, so that listing methods stays quick

        text = row.text + row.continuation
        inputs = model.batch([text])
        first = model.subject_token(text, (0, len(row.text))) + 1
        asked = inputs["input_ids"][0, first:]
        with torch.enable_grad(), run.progress(row.text, total=config.steps) as bar:
            for _ in range(config.steps):
                logits = model.model(**inputs).logits[0, first - 1 : -1]
                loss = torch.nn.functional.cross_entropy(logits.float(), asked)
                if not torch.isfinite(loss):
                    raise hubedit.MethodError(
                        f"the loss is {float(loss.detach())}; try a smaller learning_rate than "
                        f"{config.learning_rate:g}"
                    )
                bar.advance(1, loss=float(loss.detach()))
                if float(loss.detach()) < config.enough:
                    break
                (slope,) = torch.autograd.grad(loss, weight)
                with torch.no_grad():
                    weight -= config.learning_rate * slope


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[Any, Any]]]:
    """The methods of this plugin."""
    return [Polish]
