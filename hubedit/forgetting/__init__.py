"""How far a model has forgotten: measures by the definitions of the benchmarks that coined them.

The measures are pure functions over log-probabilities (natural), token ids and texts; each
docstring names its source and, where several are published, the variant.
"""
