"""The closed forms: the direction u of an update and its right vector r, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import hubedit
from hubedit_rome.site import doubles


class Directions:
    """Solves (C + ρ·mean(diag C)·I) u = k for many keys with one factorisation.

    Args:
        moment: C [d, d] in float64, or None for u = k.
        ridge: ρ, without unit.
    """

    def __init__(self, moment: torch.Tensor | None, ridge: float) -> None:
        self.factor: torch.Tensor | None = None
        if moment is None:
            return
        damped = moment.clone()
        damped.diagonal().add_(ridge * moment.diagonal().mean())
        self.factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed) or not torch.isfinite(self.factor).all():
            raise hubedit.MethodError(
                "the statistic C is singular; set ridge above 0 (1e-3 is usual) or give more texts"
            )

    def of(self, key: torch.Tensor) -> torch.Tensor:
        """u = C⁻¹k / ‖C⁻¹k‖ (Meng et al. 2022, equation 2), without forming the inverse; [d]."""
        u = key
        if self.factor is not None:
            u = torch.cholesky_solve(key.to(self.factor.device)[:, None], self.factor)[:, 0]
        unit: torch.Tensor = u / u.norm()
        return unit.to(key.device)


@dataclass(frozen=True)
class RankOne:
    """ΔW = r uᵀ in the orientation [out, in]: u [in] of length 1, r [out], both float64.

    `denominator` is kᵀu and `cosine` the same divided by ‖k‖.
    """

    u: torch.Tensor
    r: torch.Tensor
    denominator: float
    cosine: float


def denominator_of(u: torch.Tensor, key: torch.Tensor) -> tuple[float, float]:
    """kᵀu, and the cosine between k and u (0 for a key of zeros)."""
    product, length = float(key @ u), float(key.norm())
    return product, product / length if length > 0 else 0.0


def rank_one(u: torch.Tensor, key: torch.Tensor, delta: torch.Tensor) -> RankOne:
    """The update that moves the value of `key` by δ (Meng et al. 2022, equation 2).

    With v* = Wk + δ, r = (v* − Wk) / (kᵀu) = δ / (kᵀu), so that (W + r uᵀ)k = v*.
    """
    denominator, cosine = denominator_of(u, key)
    return RankOne(u, doubles(delta).to(u.device) / denominator, denominator, cosine)
