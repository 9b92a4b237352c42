"""The kind of update that adds a product, and then corrects the elements that it misses."""

from __future__ import annotations

from collections.abc import Mapping

from hubedit.kind import Update, take
from hubedit.low_rank import LowRank
from hubedit.stepping import SparsePacked
from hubedit.stored import StoredTensor


class LowRankPacked(Update):
    """A product added, then steps taken where its rounding is not the tensor's.

    Args:
        product: factors on the grid.
        correction: from the tensor that the product makes to the one that is meant.
    """

    kind = "low_rank_packed"

    def __init__(self, product: LowRank, correction: SparsePacked) -> None:
        self.product, self.correction = product, correction
        self.rank: int = product.rank

    def __repr__(self) -> str:
        return f"LowRankPacked({self.product!r}, {self.correction!r})"

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`left` and `right`, `gaps` and `steps`."""
        return {**self.product.parts(size), **self.correction.parts(size)}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> LowRankPacked:
        """See `Update.from_parts`; both halves are checked as kinds of their own."""
        left, right, gaps, steps = take(parts, "left", "right", "gaps", "steps")
        return cls(
            LowRank.from_parts({"left": left, "right": right}, dtype, shape),
            SparsePacked.from_parts({"gaps": gaps, "steps": steps}, dtype, shape),
        )

    def apply(self, before: StoredTensor) -> StoredTensor:
        """The canonical addition, then the steps."""
        return self.correction.apply(self.product.apply(before))
