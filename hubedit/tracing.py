"""Read or replace one module's input or output inside a `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hubedit.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

Replace = Callable[["torch.Tensor"], "torch.Tensor"]


class Trace:
    """What passed through a module: `input` and `output` of its latest call.

    Both are hidden states of shape [batch, tokens, width] (the input of the embeddings is
    [batch, tokens] token ids), still part of the graph, or None before the first call. What was
    replaced shows as replaced.
    """

    input: torch.Tensor | None = None
    output: torch.Tensor | None = None


class _StopForward(Exception):
    """Ends a forward pass whose rest nobody needs; `by` is the trace that asked for it."""

    def __init__(self, by: Trace) -> None:
        super().__init__("the forward pass ends here")
        self.by = by


def _first(value: Any, module: str) -> torch.Tensor:
    """The hidden states in what a module returns: a tensor, or a tuple that starts with one.

    Whether a block returns a tensor or a tuple differs between families and releases.
    """
    import torch

    hidden = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(hidden, torch.Tensor):
        raise UnsupportedModelError(
            f"the module {module!r} returns {type(value).__name__}, not hidden states; "
            "trace a block, its attention, its MLP, the embeddings or the head"
        )
    return hidden


@contextmanager
def trace(
    model: torch.nn.Module,
    module: str,
    *,
    replace_input: Replace | None = None,
    replace_output: Replace | None = None,
    stop: bool = False,
) -> Iterator[Trace]:
    """Watch the module of that name while the `with` lasts.

    Args:
        model: the model that holds the module.
        module: its name in `model.named_modules()`.
        replace_input: given the first positional input [batch, tokens, width], returns what the
            module shall see instead.
        replace_output: given the output [batch, tokens, width], returns what the rest of the model
            shall see instead.
        stop: end the forward pass once the module has run; the `with` swallows the interruption,
            so the forward pass is the last statement in it.

    Raises:
        UnsupportedModelError: the model has no module of that name, or it passes no hidden states.
    """
    watched = dict(model.named_modules()).get(module)
    if watched is None:
        raise UnsupportedModelError(
            f"the model has no module named {module!r}; `model.named_modules()` lists those it has"
        )
    seen = Trace()

    def before(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs.get("hidden_states")
        if replace_input is not None:
            if hidden is None:
                raise UnsupportedModelError(
                    f"the module {module!r} takes no hidden states to replace; replace its output"
                )
            hidden = replace_input(hidden)
            if args:
                args = (hidden, *args[1:])
            else:
                kwargs = {**kwargs, "hidden_states": hidden}
        seen.input = hidden
        return args, kwargs

    def after(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        hidden = _first(output, module)
        if replace_output is not None:
            hidden = replace_output(hidden)
            output = (hidden, *output[1:]) if isinstance(output, tuple) else hidden
        seen.output = hidden
        if stop:
            raise _StopForward(seen)
        return output

    hooks = [
        watched.register_forward_pre_hook(before, with_kwargs=True),
        watched.register_forward_hook(after),
    ]
    try:
        yield seen
    except _StopForward as stopped:
        if stopped.by is not seen:
            raise
    finally:
        for hook in hooks:
            hook.remove()
