"""FT, FT-L and FT-M: second MLP matrices are trained in place; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hubedit_rome.auto import Auto
from hubedit_rome.site import Site, at_rest

import hubedit
from hubedit_ft.config import FtConfig, FtLConfig
from hubedit_ft.texts import placed
from hubedit_ft.training import report, train


def tune(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: FtConfig,
    run: hubedit.RunContext,
    *,
    at_end: bool,
) -> None:
    """Train the matrices of the chosen layers; see `Ft.apply`."""
    layers: Sequence[int | Auto] = ["auto"] if config.layers == "auto" else config.layers
    if not layers:
        raise hubedit.ConfigError("layers names none; name at least one, such as layers=[5]")
    modules = [model.model.get_submodule(Site.find(model, layer).mlp_out) for layer in layers]
    chosen = [parameter for module in modules for parameter in trained(module, config)]
    odd = {parameter.dtype for parameter in chosen} - {torch.float32, torch.float64}
    if odd:
        raise hubedit.MethodError(
            f"weights are trained in float32, and the model is loaded as {odd.pop()}; leave the "
            "recipe's dtype at float32, or use the method lora"
        )
    contexts = placed(model, rows)
    with at_rest(model.model):
        kept = boxed(modules, config) if isinstance(config, FtLConfig) else lambda: None
        for parameter in chosen:
            parameter.requires_grad_(True)
        try:
            train(
                model,
                chosen,
                contexts,
                config,
                config.learning_rate,
                run,
                at_end=at_end,
                after_step=kept,
            )
        finally:
            for parameter in chosen:
                parameter.requires_grad_(False)
        report(model, rows, contexts, config, run)


def trained(module: torch.nn.Module, config: FtConfig) -> list[torch.nn.Parameter]:
    """The weight of a module, and its bias if it has one and the settings say so."""
    names = ("weight", "bias") if config.bias else ("weight",)
    return [value for name, value in module.named_parameters() if name in names]


def boxed(modules: Sequence[torch.nn.Module], config: FtLConfig) -> Callable[[], None]:
    """What clamps every element to where it was ± the bound of its module.

    The bound of a bias is that of the weight beside it.
    """
    boxes = []
    for module in modules:
        parameters = trained(module, config)
        size = float(parameters[0].detach().float().square().mean().sqrt())
        bound = config.absolute_change or config.max_change * size
        for parameter in parameters:
            start = parameter.detach()
            boxes.append((parameter, start - bound, start + bound))

    @torch.no_grad()
    def clamp() -> None:
        for parameter, least, most in boxes:
            parameter.copy_(torch.clamp(parameter, least, most))

    return clamp
