"""The canonical addition: a weight plus a product of factors, with one result on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, NonFiniteUpdateError
from hubedit.floats import NARROW, doubles, from_double, narrow, to_double, widen
from hubedit.stored import StoredTensor, nonfinite, raw

TILE_ELEMENTS = 1 << 20
"""How many elements of a product are in memory at a time, by default."""


def add_product(
    before: StoredTensor,
    left: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    *,
    tile_elements: int = TILE_ELEMENTS,
) -> StoredTensor:
    """W + left · right in float64, rounded to float32 and then to the dtype, to nearest even.

    Where the product is zero of either sign, the bits stay as they are. For factors on the grid the
    product is exact, and the result the same whatever the order, threads or blocks.

    Args:
        before: W, of dtype F32, BF16 or F16 and shape [m, n].
        left: float32 [m, r].
        right: float32 [r, n].
        tile_elements: elements of the product that are in memory at a time, at least one row.

    Raises:
        DeltaError: W has another dtype or shape.
        NonFiniteUpdateError: W or the result is not finite where the product is not zero.
    """
    shape = (left.shape[0], right.shape[1])
    if before.dtype not in NARROW or before.shape != shape:
        raise DeltaError(
            f"a low-rank update of {list(shape)} does not fit a tensor of {before.dtype} "
            f"{list(before.shape)}: it must have that shape and be F32, BF16 or F16"
        )
    tall, wide = doubles(left), doubles(right)
    old = before.bits().reshape(shape)
    new = old.copy()
    rows = max(1, tile_elements // shape[1])
    for begin in range(0, shape[0], rows):
        tile = slice(begin, begin + rows)
        with np.errstate(all="ignore"):
            product = tall[tile] @ wide
            total = to_double(widen(old[tile], before.dtype)) + product
        moved = product != 0
        found = narrow(from_double(total), before.dtype)
        if bool((nonfinite(found, before.dtype) & moved).any()):
            raise NonFiniteUpdateError(
                "the update would write NaN or infinity, or was made of a weight that is not finite"
            )
        np.copyto(new[tile], found, where=moved)
    return StoredTensor(before.dtype, before.shape, raw(new))
