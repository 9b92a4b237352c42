"""Read or replace one module's input or output inside a `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

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


class _Rows:
    """Shape [batch, tokens] of the latest forward pass, to undo the flattening of some families."""

    def __init__(self) -> None:
        self.shape: tuple[int, int] | None = None

    def see(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = (kwargs.get(key) for key in ("input_ids", "inputs_embeds"))
        given = next((value for value in (*args[:1], *named) if value is not None), None)
        if given is not None and given.ndim >= 2:
            self.shape = (int(given.shape[0]), int(given.shape[1]))

    def flattened(self, hidden: Any) -> bool:
        """Whether hidden states are [batch * tokens, width]."""
        return (
            hidden is not None
            and hidden.ndim == 2
            and hidden.is_floating_point()
            and self.shape is not None
            and hidden.shape[0] == self.shape[0] * self.shape[1]
        )

    def whole(self, hidden: torch.Tensor) -> torch.Tensor:
        """The same values as [batch, tokens, width]."""
        return hidden.reshape(*(self.shape or (1, -1)), hidden.shape[-1])


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
    stop: bool | Literal["input"] = False,
) -> Iterator[Trace]:
    """Watch the module of that name while the `with` lasts.

    Shapes are the same for all families, also where a block flattens [batch, tokens] on its way,
    as long as `model` itself is called.

    Args:
        model: the model that holds the module.
        module: its name in `model.named_modules()`.
        replace_input: given the first positional input [batch, tokens, width], returns what the
            module shall see instead.
        replace_output: given the output [batch, tokens, width], returns what the rest of the model
            shall see instead.
        stop: end the forward pass once the module has run, or with `input` before it does; the
            `with` swallows the interruption, so the forward pass is the last statement in it.

    Raises:
        UnsupportedModelError: the model has no module of that name, or it passes no hidden states.
    """
    watched = dict(model.named_modules()).get(module)
    if watched is None:
        raise UnsupportedModelError(
            f"the model has no module named {module!r}; `model.named_modules()` lists those it has"
        )
    seen, rows = Trace(), _Rows()

    def before(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden: Any = args[0] if args else kwargs.get("hidden_states")
        flat = rows.flattened(hidden)
        if flat:
            hidden = rows.whole(hidden)
        if replace_input is not None:
            if hidden is None:
                raise UnsupportedModelError(
                    f"the module {module!r} takes no hidden states to replace; replace its output"
                )
            hidden = replace_input(hidden)
        seen.input = hidden
        if stop == "input":
            raise _StopForward(seen)
        if flat or replace_input is not None:
            passed = hidden.flatten(0, 1) if flat else hidden
            if args:
                args = (passed, *args[1:])
            else:
                kwargs = {**kwargs, "hidden_states": passed}
        return args, kwargs

    def after(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        hidden = _first(output, module)
        flat = rows.flattened(hidden)
        if flat:
            hidden = rows.whole(hidden)
        if replace_output is not None:
            hidden = replace_output(hidden)
        seen.output = hidden
        if flat or replace_output is not None:
            passed = hidden.flatten(0, 1) if flat else hidden
            output = (passed, *output[1:]) if isinstance(output, tuple) else passed
        if stop:
            raise _StopForward(seen)
        return output

    hooks = [
        model.register_forward_pre_hook(rows.see, with_kwargs=True),
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
