"""The kinds of update by which a tensor comes or goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hubedit.errors import DeltaError, DeltaFormatError
from hubedit.kind import Update, refuse_nonfinite, take
from hubedit.stored import StoredTensor


class Add(Update):
    """A tensor that the base does not have.

    Args:
        values: a `StoredTensor`, array or torch tensor.

    Raises:
        NonFiniteUpdateError: it holds NaN or infinity.
    """

    kind = "add"

    def __init__(self, values: Any) -> None:
        self.values = StoredTensor.from_array(values)
        if self.values.width is not None:
            bits = self.values.bits()
            refuse_nonfinite(np.zeros_like(bits), bits, self.values.dtype)

    def __repr__(self) -> str:
        return f"Add({self.values.dtype} {list(self.values.shape)})"

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`values`."""
        return {"values": self.values}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Add:
        """See `Update.from_parts`."""
        (values,) = take(parts, "values")
        if (values.dtype, values.shape) != (dtype, shape):
            raise DeltaFormatError(
                f"it adds {values.dtype} {list(values.shape)} and says {dtype} {list(shape)}"
            )
        return cls(values)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Refused: there is a tensor already."""
        raise DeltaError("an added tensor takes the place of none, and there is one of that name")


class Drop(Update):
    """A tensor of the base that is no longer there."""

    kind = "drop"

    def __repr__(self) -> str:
        return "Drop()"

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """Nothing."""
        return {}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Drop:
        """See `Update.from_parts`."""
        take(parts)
        return cls()

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Refused: no tensor is left."""
        raise DeltaError("of a dropped tensor nothing is left to be asked for")
