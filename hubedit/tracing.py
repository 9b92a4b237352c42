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

    Both are hidden states of shape [batch, tokens, width], or None before the first call.
    """

    input: torch.Tensor | None = None
    output: torch.Tensor | None = None


class _StopForward(Exception):
    """Ends a forward pass whose rest nobody needs."""


def _hidden(value: Any) -> torch.Tensor:
    """The hidden states in what a block takes or returns: a tensor, or a tuple that starts with it."""
    return value[0] if isinstance(value, tuple) else value


def _with_hidden(value: Any, hidden: torch.Tensor) -> Any:
    return (hidden, *value[1:]) if isinstance(value, tuple) else hidden


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
        stop: end the forward pass once the module has run; the `with` swallows the interruption.

    Raises:
        UnsupportedModelError: the model has no module of that name.
    """
    try:
        watched = model.get_submodule(module)
    except AttributeError as error:
        raise UnsupportedModelError(f"the model has no module named {module!r}") from error
    seen = Trace()

    def before(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            hidden = args[0]
        else:
            hidden = kwargs["hidden_states"]
        if replace_input is not None:
            hidden = replace_input(hidden)
            if args:
                args = (hidden, *args[1:])
            else:
                kwargs = {**kwargs, "hidden_states": hidden}
        seen.input = hidden
        return args, kwargs

    def after(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        hidden = _hidden(output)
        if replace_output is not None:
            hidden = replace_output(hidden)
            output = _with_hidden(output, hidden)
        seen.output = hidden
        if stop:
            raise _StopForward
        return output

    hooks = [
        watched.register_forward_pre_hook(before, with_kwargs=True),
        watched.register_forward_hook(after),
    ]
    try:
        yield seen
    except _StopForward:
        pass
    finally:
        for hook in hooks:
            hook.remove()
