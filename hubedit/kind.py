"""What every kind of update has: parts to store, an exact meaning, a price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, DeltaFormatError, NonFiniteUpdateError
from hubedit.stored import StoredTensor, nonfinite

UpdateT = TypeVar("UpdateT", bound="Update")
_ANY_SIZE = 1 << 62


class Update(ABC):
    """A change of one tensor: what is stored of it, and its exact meaning."""

    kind: ClassVar[str]
    rank: int | None = None

    @abstractmethod
    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """What is stored, by the name of the part; `size` is the target's number of elements."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls: type[UpdateT], parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> UpdateT:
        """The update that parts hold, for a target of that dtype and shape.

        Raises:
            DeltaFormatError: they do not fit together or the target, in a clause.
        """

    @abstractmethod
    def apply(self, before: StoredTensor) -> StoredTensor:
        """The tensor after the update; see `hubedit.updates.apply`."""

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """Bytes to store a change of the elements where `changed`; None if the kind cannot.

        `changed` is flat: one boolean for each element, or for each byte where those are smaller.
        """
        return None

    @classmethod
    def between(
        cls, before: StoredTensor, after: StoredTensor, changed: npt.NDArray[np.bool_]
    ) -> Update:
        """The update that makes `after` of `before`, which differ where `changed` alone.

        Raises:
            DeltaError: the kind does not hold bit patterns.
        """
        raise DeltaError(f"an update of kind {cls.kind!r} does not hold bit patterns")

    def undo(self, after: StoredTensor) -> StoredTensor:
        """The tensor before the update, from the one after it.

        Raises:
            DeltaError: the kind does not hold what was before.
        """
        raise DeltaError(f"an update of kind {self.kind!r} does not hold what was before")

    def stored_as(self, dtype: str) -> Update:
        """The same update with its values rounded to the target's dtype, where it holds values."""
        return self

    def nbytes(self, size: int) -> int:
        """Bytes of all that is stored, for a target of `size` elements."""
        return sum(part.nbytes for part in self.parts(size).values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Update):
            return NotImplemented
        return self.kind == other.kind and self.parts(_ANY_SIZE) == other.parts(_ANY_SIZE)


def take(parts: Mapping[str, StoredTensor], *names: str) -> list[StoredTensor]:
    """The parts of these names, in their order.

    Raises:
        DeltaFormatError: there are others, or one is missing.
    """
    if set(parts) != set(names):
        raise DeltaFormatError(f"it stores {sorted(parts)} instead of {sorted(names)}")
    return [parts[name] for name in names]


def refuse_nonfinite(old: npt.NDArray[Any], new: npt.NDArray[Any], dtype: str) -> None:
    """Refuse NaN and infinity among values that are not as before.

    Args:
        old: bit patterns before.
        new: bit patterns of the same shape.
        dtype: of both.

    Raises:
        NonFiniteUpdateError: there are some.
    """
    if bool((nonfinite(new, dtype) & (new != old)).any()):
        raise NonFiniteUpdateError("the update would write NaN or infinity")
