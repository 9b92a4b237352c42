"""Which stored tensor each parameter is, proved by comparing their bits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hubedit.errors import DeltaError, UnmappedTensorError
from hubedit.updates import StoredTensor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EDITABLE = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Stored dtypes that can be edited, and what torch calls them."""


class Stored(Protocol):
    """Dtype and shape of a stored tensor."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Files(Protocol):
    """The stored tensors of a model by name."""

    @property
    def tensors(self) -> Mapping[str, Stored]: ...
    def read(self, name: str) -> StoredTensor:
        """Read one tensor."""


@dataclass(frozen=True)
class TensorMap:
    """What each parameter is in the files.

    `tensor_of` maps each parameter name, aliases included, to the stored tensor it is; `names_of`
    maps each such tensor to the names of its parameter, its own first; `stored` to its dtype and
    shape. Files that hold both ends of a tied pair have two tensors for one parameter.
    """

    tensor_of: Mapping[str, str]
    names_of: Mapping[str, tuple[str, ...]]
    stored: Mapping[str, Stored]

    def names(self, tensor: str) -> tuple[str, ...]:
        """The names of the parameter that a stored tensor is, its own first.

        Raises:
            UnmappedTensorError: no parameter is that tensor.
        """
        try:
            return self.names_of[tensor]
        except KeyError:
            raise UnmappedTensorError(
                f"no parameter of the model is a stored tensor named {tensor!r}; it belongs to "
                "another model"
            ) from None

    def beside(self, tensor: str) -> list[str]:
        """The tensors that are the same parameter as `tensor`, itself included, sorted."""
        return sorted({self.tensor_of[name] for name in self.names(tensor)})

    def write(self, model: PreTrainedModel, tensor: str, value: StoredTensor) -> None:
        """Write a stored value into its parameter, in the parameter's dtype.

        Raises:
            UnmappedTensorError: no parameter is that tensor.
            DeltaError: dtype or shape differ from the stored tensor's.
        """
        import torch

        parameter = model.get_parameter(self.names(tensor)[0])
        stored = self.stored[tensor]
        if value.dtype != stored.dtype or tuple(value.shape) != tuple(stored.shape):
            raise DeltaError(
                f"the tensor {tensor!r} is stored as {stored.dtype} {list(stored.shape)}, and the "
                f"new value is {value.dtype} {list(value.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(to_torch(value))


def to_torch(tensor: StoredTensor) -> torch.Tensor:
    """The stored value as a torch tensor of its own dtype; a copy.

    Raises:
        UnmappedTensorError: the dtype is not F32, BF16 or F16.
    """
    import torch

    if tensor.dtype not in EDITABLE:
        raise UnmappedTensorError(f"a tensor of dtype {tensor.dtype} is not a plain float")
    flat = torch.from_numpy(np.array(tensor.data, dtype=np.uint8))
    dtype: torch.dtype = getattr(torch, EDITABLE[tensor.dtype])
    return flat.view(dtype).reshape(tuple(tensor.shape))


def from_torch(value: torch.Tensor, dtype: str) -> StoredTensor:
    """A live value as it is stored: rounded to `dtype` (F32, BF16, F16), nearest even."""
    return StoredTensor.from_array(value).rounded_to(dtype)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits; signs of zero and NaNs count."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.contiguous().view(whole), other.contiguous().view(whole))


def prove(model: PreTrainedModel, files: Files) -> TensorMap:
    """Find the stored tensor of every parameter and compare their bits.

    Names are tried first, as they are and with the family's prefix put on or taken off; a parameter
    that no name finds is the one stored tensor with the same bits, its name deciding between
    several. Stored values are widened to the parameter's dtype. Memory is one tensor.

    Raises:
        UnmappedTensorError: a parameter is not exactly one stored tensor, and why.
    """
    names: dict[int, list[str]] = defaultdict(list)
    parameters: dict[int, torch.nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
        parameters[id(parameter)] = parameter
    found: dict[str, str] = {}
    lost = []
    for key, aliases in names.items():
        by_name = {}
        for name in aliases:
            tensor = _by_name(name, model.base_model_prefix, files)
            if tensor is not None:
                _compare(name, parameters[key], tensor, files)
                by_name[name] = tensor
        if by_name:
            primary = next(iter(by_name.values()))
            found |= {name: by_name.get(name, primary) for name in aliases}
        else:
            lost.append(key)
    if lost:
        free = sorted(set(files.tensors) - set(found.values()))
        by_bits = _digests(free, [parameters[key] for key in lost], files)
        for key in lost:
            tensor = _by_bits(names[key], parameters[key], by_bits)
            found |= dict.fromkeys(names[key], tensor)
    names_of: dict[str, tuple[str, ...]] = {}
    for aliases in names.values():
        for tensor in dict.fromkeys(found[name] for name in aliases):
            if tensor in names_of:
                raise UnmappedTensorError(
                    f"the stored tensor {tensor!r} is both {names_of[tensor][0]!r} and "
                    f"{aliases[0]!r} in the loaded model; models whose files share tensors between "
                    "parameters cannot be edited"
                )
            names_of[tensor] = tuple(sorted(aliases, key=lambda name: found[name] != tensor))
    return TensorMap(found, names_of, {name: files.tensors[name] for name in names_of})


def _by_name(name: str, prefix: str, files: Files) -> str | None:
    candidates = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((candidate for candidate in candidates if candidate in files.tensors), None)


def _compare(name: str, parameter: torch.Tensor, tensor: str, files: Files) -> None:
    stored = files.tensors[tensor]
    if stored.dtype not in EDITABLE:
        raise UnmappedTensorError(
            f"{name!r} is stored as {stored.dtype} (tensor {tensor!r}); only F32, BF16 and F16 can "
            "be edited: start from an unquantised checkpoint"
        )
    if tuple(stored.shape) != tuple(parameter.shape):
        raise UnmappedTensorError(
            f"{name!r} has shape {list(parameter.shape)} and the stored tensor {tensor!r} "
            f"{list(stored.shape)}: loading reshapes it, and only plain tensors can be edited"
        )
    if not same_bits(parameter.detach().cpu(), to_torch(files.read(tensor)).to(parameter.dtype)):
        raise UnmappedTensorError(
            f"{name!r} is not the stored tensor {tensor!r} bit for bit: loading computes it, or "
            "the file changed meanwhile; load it again, and if this stays, it cannot be edited"
        )


def _digest(value: torch.Tensor) -> bytes:
    import torch

    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(repr(tuple(value.shape)).encode() + flat.numpy().tobytes()).digest()


def _digests(
    free: Iterable[str], parameters: Iterable[torch.Tensor], files: Files
) -> Mapping[bytes, list[str]]:
    """Stored tensors by their bits, in the dtype of the parameters that look for them."""
    wanted = {(tuple(parameter.shape), parameter.dtype) for parameter in parameters}
    by_bits: dict[bytes, list[str]] = defaultdict(list)
    for name in free:
        stored = files.tensors[name]
        if stored.dtype not in EDITABLE:
            continue
        for dtype in {dtype for shape, dtype in wanted if shape == tuple(stored.shape)}:
            by_bits[_digest(to_torch(files.read(name)).to(dtype))].append(name)
    return by_bits


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isdigit()]


def _shared_end(one: str, other: str) -> int:
    """How many dotted parts two names share at their end."""
    count = 0
    for left, right in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return count


def _by_bits(
    aliases: list[str], parameter: torch.Tensor, by_bits: Mapping[bytes, list[str]]
) -> str:
    """The one stored tensor with the bits of a parameter that no name finds."""
    equal = by_bits.get(_digest(parameter), [])
    numbered = [
        name for name in equal if any(_numbers(name) == _numbers(alias) for alias in aliases)
    ]
    constant = bool((parameter == parameter.reshape(-1)[0]).all())
    candidates = numbered if numbered or constant else equal
    if not candidates and ".experts." in aliases[0]:
        raise UnmappedTensorError(
            f"{aliases[0]!r} holds all experts of a layer, which the files store one by one; only "
            "parameters that are exactly one stored tensor can be edited: start from a model "
            "without experts"
        )
    if not candidates:
        raise UnmappedTensorError(
            f"no stored tensor holds the bits of {aliases[0]!r}: loading merges, splits or "
            "converts what is stored, and only parameters that are exactly one tensor can be edited"
        )
    likeness = {name: max(_shared_end(name, alias) for alias in aliases) for name in candidates}
    best = [name for name in candidates if likeness[name] == max(likeness.values())]
    if len(best) > 1:
        raise UnmappedTensorError(
            f"{aliases[0]!r} could be any of {', '.join(map(repr, best))}: their bits are the same "
            "and their names do not decide"
        )
    return best[0]
