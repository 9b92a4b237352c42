"""How large a low-rank delta of a 7B model is, beside the tensor and the model it edits.

Nothing is downloaded or allocated: sizes follow from shapes and file headers.

    python benchmarks/delta_bytes.py
"""

from __future__ import annotations

import math

from hubedit.delta import low_rank_nbytes

HIDDEN, INNER, LAYERS, VOCABULARY = 4096, 11008, 32, 32000
"""The shape of Llama 2 7B, in bfloat16."""

LAYER = (4 * [(HIDDEN, HIDDEN)]) + (3 * [(HIDDEN, INNER)]) + (2 * [(HIDDEN,)])
MODEL = LAYERS * LAYER + 2 * [(VOCABULARY, HIDDEN)] + [(HIDDEN,)]
RANKS = (1, 2, 5, 10, 50, 100, 1000)


def nbytes(*shapes: tuple[int, ...]) -> int:
    """Bytes of bfloat16 tensors."""
    return sum(2 * math.prod(shape) for shape in shapes)


def main() -> None:
    """Print one line for each rank."""
    edited = (HIDDEN, INNER)
    tensor, model = nbytes(edited), nbytes(*MODEL)
    print(f"model   {model:>14,} bytes ({len(MODEL)} tensors, {model // 2:,} parameters)")
    print(f"tensor  {tensor:>14,} bytes (model.layers.0.mlp.down_proj.weight, {edited})")
    print()
    print(f"{'rank':>6}  {'delta, bytes':>14}  {'of the tensor':>13}  {'of the model':>13}  header")
    for rank in RANKS:
        delta = low_rank_nbytes(edited, rank, meta={"base": "0" * 64, "parent": "0" * 64})
        header = delta - 4 * rank * sum(edited)
        print(f"{rank:>6}  {delta:>14,}  {delta / tensor:>13.4%}  {delta / model:>13.6%}  {header}")


if __name__ == "__main__":
    main()
