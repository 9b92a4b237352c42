"""Keeps account of how a loaded model is changed: what was recorded, what was trained in place."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.asking import Asking
from hubedit.errors import (
    DeltaError,
    MethodError,
    NonFiniteUpdateError,
    UnsupportedModelError,
    near_misses,
)
from hubedit.layouts import Layout
from hubedit.mapping import TensorMap, from_torch, same_bits, to_torch
from hubedit.shards import Checkpoint
from hubedit.texts import TextFile, check_path
from hubedit.updates import (
    Add,
    Columns,
    Drop,
    LowRank,
    Replace,
    Rows,
    Sparse,
    StoredTensor,
    Update,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


class LoadedModel(Asking):
    """A model in memory that knows the stored tensor of every parameter: an `EditableModel`.

    Its start state is the base's files with `overlay` on them: the tensors that earlier edits
    changed, and with `texts`: the small files that they wrote. `recorded` holds the updates made
    since, by stored tensor, `written` the files, by path, and `presence` the tensors that are to
    come or go.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        layout: Layout,
        checkpoint: Checkpoint,
        tensors: TensorMap,
        *,
        directory: Path,
        overlay: Mapping[str, StoredTensor],
        texts: Mapping[str, bytes],
        identity: str | None,
    ) -> None:
        super().__init__(model, tokenizer, layout, next(model.parameters()).device)
        self.checkpoint = checkpoint
        self.tensors = tensors
        self.recorded: dict[str, list[Update]] = {}
        self.written: dict[str, str] = {}
        self.presence: dict[str, Add | Drop] = {}
        self.directory = directory
        self._texts = dict(texts)
        self._overlay = dict(overlay)
        self._identity = identity
        self._expected: dict[str, str] = {}
        for name, value in self._overlay.items():
            self.tensors.write(self.model, name, value)

    def weight(self, parameter: str) -> torch.Tensor:
        """The live parameter of that name, in the working dtype.

        Raises:
            UnsupportedModelError: no such parameter.
        """
        self._tensor_of(parameter)
        return self.model.get_parameter(parameter)

    def parameter_of(self, tensor: str) -> str:
        """The parameter name of a stored tensor: of a tied pair, the one the file is named after.

        Raises:
            UnmappedTensorError: the tensor is not stored, or no parameter.
        """
        return self.tensors.names(tensor)[0]

    def aliases(self, tensor: str) -> tuple[str, ...]:
        """The other names of the same parameter: those tied to it.

        Raises:
            UnmappedTensorError: the tensor is not stored, or no parameter.
        """
        return self.tensors.names(tensor)[1:]

    def start(self, tensor: str) -> StoredTensor:
        """A stored tensor as it was before this run: from the overlay, else from the files."""
        return self._overlay[tensor] if tensor in self._overlay else self.checkpoint.read(tensor)

    def update(self, parameter: str, update: Update) -> None:
        """Change one parameter by an update, at once in float32, and record it.

        Raises:
            UnsupportedModelError: no such parameter.
            DeltaError: the update does not fit its shape.
            NonFiniteUpdateError: it would write NaN or infinity.
            MethodError: the parameter was also changed in place.
        """
        import torch

        tensor = self._tensor_of(parameter)
        live = self.weight(parameter)
        self._refuse_in_place(tensor, live)
        with torch.no_grad():
            value = updated(live, update)
            if not bool(value.isfinite().all()):
                raise NonFiniteUpdateError(
                    f"the update of {parameter!r} would write NaN or infinity; nothing was changed"
                )
            live.copy_(value)
        expected = _hash(live)
        for twin in self.tensors.beside(tensor):
            self.recorded.setdefault(twin, []).append(update)
            self._expected[twin] = expected

    def read_file(self, path: str) -> str | None:
        """A small text file of the model, as it is now; None if there is no such file.

        Raises:
            DeltaError: an edit cannot write that file, or it is no text.
        """
        if path in self.written:
            return self.written[path]
        content = self._texts.get(path)
        if content is None:
            check_path(path)
            file = self.directory / path
            content = file.read_bytes() if file.is_file() else None
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DeltaError(f"{path} is not text in UTF-8") from error

    def write_file(self, path: str, text: str) -> None:
        """Replace or add a small text file of the model: one of `hubedit.texts.TEXT_FILES`.

        It is recorded here; the tokenizer is read again when the model is rebuilt.

        Raises:
            DeltaError: an edit cannot write that file, or this text into it.
        """
        TextFile(path, None, text.encode("utf-8", "surrogatepass"))
        self.written[path] = text

    def add_tensor(self, name: str, values: Any) -> None:
        """Give the stored model a tensor that it does not have; the live model stays as it is.

        Args:
            name: of the new tensor in the files.
            values: a `StoredTensor`, array or torch tensor, stored in its own dtype.

        Raises:
            DeltaError: there is one of that name, or it cannot be stored.
        """
        if name in self.checkpoint.tensors or name in self.presence:
            raise DeltaError(f"the model already has a tensor {name!r}, so it cannot be added")
        self.presence[name] = Add(values)

    def drop_tensor(self, name: str) -> None:
        """Take a tensor out of the stored model; the live model stays as it is.

        The edit is refused later if transformers cannot load the model without it.

        Raises:
            UnsupportedModelError: there is none of that name.
        """
        self.checkpoint.info(name)
        self.presence[name] = Drop()

    def moves(self) -> dict[str, tuple[Add | Drop, StoredTensor | None]]:
        """The tensors that are to come or go, each with the one that is there of its name."""
        return {
            name: (move, self.start(name) if isinstance(move, Drop) else None)
            for name, move in self.presence.items()
        }

    def changes(self) -> dict[str, list[Update] | StoredTensor]:
        """What changed since the start, by stored tensor, sorted.

        Updates where all was done by `update`; else the new value, rounded to the stored dtype. A
        tensor that is as before once rounded is not listed. One tensor is in memory at a time.

        Raises:
            MethodError: a tensor was changed by `update` and in place, or the model was rebuilt.
            NonFiniteUpdateError: a tensor now holds NaN or infinity.
        """
        self._check_structure()
        found: dict[str, list[Update] | StoredTensor] = {}
        for tensor in sorted(self.tensors.names_of):
            live = self.weight(self.parameter_of(tensor))
            if tensor in self.recorded:
                self._refuse_in_place(tensor, live)
                found[tensor] = list(self.recorded[tensor])
                continue
            start = self.start(tensor)
            if _is(live, start):
                continue
            if not bool(live.isfinite().all()):
                raise NonFiniteUpdateError(
                    f"after the method {self.parameter_of(tensor)!r} holds NaN or infinity"
                )
            value = from_torch(live, start.dtype)
            if value.sha256() != start.sha256():
                found[tensor] = value
        return found

    def set_tensor(self, name: str, value: StoredTensor) -> None:
        """Write a stored tensor's exact bits into its parameter, widened to the working dtype.

        What was recorded for it is forgotten.

        Raises:
            UnmappedTensorError: no parameter is that tensor.
            DeltaError: dtype or shape differ from the stored tensor's.
        """
        self.tensors.write(self.model, name, value)
        for twin in self.tensors.beside(name):
            self.recorded.pop(twin, None)
            self._expected.pop(twin, None)

    def restore(self) -> None:
        """Put every parameter back to the start state, frozen and in evaluation mode.

        Files that were written are forgotten.
        """
        self._check_structure()
        for tensor in self.tensors.names_of:
            self.tensors.write(self.model, tensor, self.start(tensor))
        self.recorded.clear()
        self.written.clear()
        self.presence.clear()
        self._expected.clear()
        self.model.zero_grad(set_to_none=True)
        self.model.requires_grad_(False).train(False)

    def tensor_hashes(self) -> dict[str, str]:
        """SHA-256 (hex) of every stored tensor as the live model has it, in its stored dtype.

        The names are those of the files; stored tensors that are no parameter are left out.
        """
        return {
            tensor: from_torch(
                self.weight(self.parameter_of(tensor)), self.tensors.stored[tensor].dtype
            ).sha256()
            for tensor in sorted(self.tensors.names_of)
        }

    def digest(self, ignoring: Iterable[str] = ()) -> str:
        """SHA-256 (hex) naming the weights the run started from, as if `ignoring` were unchanged.

        It is over the base's identity and the tensors that earlier edits changed, without those of
        the parameters `ignoring`, so that an edit of them does not change it.
        """
        if self._identity is None:
            self._identity = _files_identity(self.directory)
        ignored = {twin for name in ignoring for twin in self.tensors.beside(self._tensor_of(name))}
        touched = sorted(
            [name, value.sha256()] for name, value in self._overlay.items() if name not in ignored
        )
        named = json.dumps({"base": self._identity, "tensors": touched}, separators=(",", ":"))
        return hashlib.sha256(named.encode()).hexdigest()

    def _tensor_of(self, parameter: str) -> str:
        try:
            return self.tensors.tensor_of[parameter]
        except KeyError:
            near = near_misses(parameter, self.tensors.tensor_of)
            hint = near if near.startswith("did") else "`named_parameters()` lists those it has"
            raise UnsupportedModelError(
                f"the model has no parameter named {parameter!r}; {hint}"
            ) from None

    def _refuse_in_place(self, tensor: str, live: torch.Tensor) -> None:
        """Tell an update from training: recorded updates must account for all that changed."""
        expected = self._expected.get(tensor)
        as_recorded = _is(live, self.start(tensor)) if expected is None else _hash(live) == expected
        if not as_recorded:
            raise MethodError(
                f"the method changed {self.parameter_of(tensor)!r} both in place and by "
                "`model.update`; a parameter is changed one way or the other"
            )

    def _check_structure(self) -> None:
        groups: dict[int, list[str]] = defaultdict(list)
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            groups[id(parameter)].append(name)
        now = {frozenset(names) for names in groups.values()}
        then = {frozenset(names) for names in self.tensors.names_of.values()}
        if now != then:
            odd = sorted(name for names in now ^ then for name in names)
            raise MethodError(
                f"the method left the model with other parameters than it was given, such as "
                f"{odd[0]!r}; take added modules out again, and keep tied weights tied"
            )
        for tensor, names in self.tensors.names_of.items():
            stored = tuple(self.tensors.stored[tensor].shape)
            if tuple(self.model.get_parameter(names[0]).shape) != stored:
                raise MethodError(
                    f"the method changed the shape of {names[0]!r}, stored as {list(stored)}"
                )


def updated(live: torch.Tensor, update: Update) -> torch.Tensor:
    """The value of a parameter after an update: float32, of the same shape and device.

    Raises:
        DeltaError: the update does not fit the shape.
    """
    import torch

    shape = tuple(live.shape)
    value = live.detach().float()
    if isinstance(update, LowRank):
        if update.shape != shape:
            raise DeltaError(f"an update of {list(update.shape)} does not fit {list(shape)}")
        left = torch.from_numpy(update.left.copy()).to(live.device)
        return value + left @ torch.from_numpy(update.right.copy()).to(live.device)
    if not isinstance(update, Sparse | Rows | Columns | Replace):
        raise DeltaError(f"updates of kind {update.kind!r} cannot change a model in memory")
    new = torch.from_numpy(update.values.rounded_to("F32").to_float32().copy()).to(live.device)
    if isinstance(update, Replace):
        if tuple(new.shape) != shape:
            raise DeltaError(f"a value {list(new.shape)} does not replace one of {list(shape)}")
        return new
    indices = torch.from_numpy(update.indices.copy()).to(live.device)
    if isinstance(update, Rows | Columns):
        axis = 0 if isinstance(update, Rows) else -1
        beside = new.shape[1:] == value.shape[1:] if axis == 0 else new.shape[:-1] == shape[:-1]
        if value.ndim < 2 or not beside or int(update.indices.max(initial=0)) >= shape[axis]:
            raise DeltaError(f"{update!r} {list(new.shape)} does not fit a value {list(shape)}")
        return value.index_copy(axis, indices, new)
    if indices.numel() and int(indices[-1]) >= value.numel():
        raise DeltaError(f"element {int(indices[-1])} is not in a tensor of {list(shape)}")
    flat = value.reshape(-1).clone()
    flat[indices] = new
    return flat.reshape(shape)


def _is(live: torch.Tensor, stored: StoredTensor) -> bool:
    return same_bits(live.detach().cpu(), to_torch(stored).to(live.dtype))


def _hash(live: torch.Tensor) -> str:
    import torch

    flat = live.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def _files_identity(directory: Path) -> str:
    """SHA-256 (hex) over the names and contents of the files that make a model what it is."""
    listed = []
    for path in sorted(path for pattern in _MODEL_FILES for path in directory.glob(pattern)):
        with path.open("rb") as file:
            listed.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()
