"""The closed forms of the three methods: what an update is made of, in float64.

An update is ΔW = R·Aᵀ in the orientation [out, in]: R [out, n] is what each of n keys should add to
its value, A [in, n] what makes it answer those keys and others as little as possible.
"""

from __future__ import annotations

import torch

import hubedit


def damped(moment: torch.Tensor, ridge: float) -> torch.Tensor:
    """C + ρ·mean(diag C)·I."""
    made = moment.clone()
    made.diagonal().add_(ridge * moment.diagonal().mean())
    return made


def memit(
    moment: torch.Tensor, keys: torch.Tensor, weight: float, earlier: torch.Tensor | None = None
) -> torch.Tensor:
    """A = (λC + K_pK_pᵀ + KKᵀ)⁻¹K (Meng et al. 2023, equation 14).

    Args:
        moment: C [d, d].
        keys: K [d, n].
        weight: λ.
        earlier: K_p [d, m], keys of earlier rows, which should answer as they do.

    Raises:
        MethodError: the matrix is singular.
    """
    whole = weight * moment + keys @ keys.T
    if earlier is not None:
        whole += earlier @ earlier.T
    return torch.cholesky_solve(keys, factor(whole))


def emmet(
    moment: torch.Tensor, keys: torch.Tensor, epsilon: float, absolute: float | None = None
) -> torch.Tensor:
    """A = C⁻¹K(KᵀC⁻¹K + εI)⁻¹ (Gupta et al. 2024, equation 11).

    `epsilon` is in units of the mean diagonal of KᵀC⁻¹K; `absolute`, if given, is ε itself.

    Raises:
        MethodError: C, or KᵀC⁻¹K with ε, is singular.
    """
    solved = torch.cholesky_solve(keys, factor(moment))
    gram = keys.T @ solved
    gram = (gram + gram.T) / 2
    gram.diagonal().add_(epsilon * gram.diagonal().mean() if absolute is None else absolute)
    made: torch.Tensor = torch.cholesky_solve(solved.T, factor(gram)).T
    return made


def unused_directions(
    moment: torch.Tensor, bound: float, absolute: float | None = None
) -> torch.Tensor:
    """U [d, q], orthonormal directions along which keys hardly lie: P = UUᵀ (Fang et al. 2025).

    They are the eigenvectors of C with eigenvalues below `bound` times their mean, or below
    `absolute`.

    Raises:
        MethodError: there is no such direction.
    """
    values, vectors = torch.linalg.eigh(moment)
    limit = bound * float(values.mean()) if absolute is None else absolute
    found: torch.Tensor = vectors[:, values < limit]
    if found.shape[1] == 0:
        raise hubedit.MethodError(
            f"no direction of keys is unused: all have a mean square above {limit:.2g} (the least "
            f"is {float(values[0]):.2g}); set nullspace higher"
        )
    return found


def alphaedit(
    unused: torch.Tensor,
    keys: torch.Tensor,
    l2: float,
    absolute: float | None = None,
    earlier: torch.Tensor | None = None,
) -> torch.Tensor:
    """A = (P(K_pK_pᵀ + KKᵀ) + βI)⁻¹PK (Fang et al. 2025, equation 14), solved within P.

    With P = UUᵀ the solution is U(Uᵀ(K_pK_pᵀ + KKᵀ)U + βI)⁻¹UᵀK.

    Args:
        unused: U [d, q].
        keys: K [d, n].
        l2: β in units of the mean ‖Pk‖²; `absolute`, if given, is β itself.
        earlier: K_p [d, m].

    Raises:
        MethodError: the matrix is singular: the keys have no part in the unused directions.
    """
    within = unused.T @ keys
    whole = within @ within.T
    whole.diagonal().add_(
        l2 * float(within.square().sum(0).mean()) if absolute is None else absolute
    )
    if earlier is not None:
        before = unused.T @ earlier
        whole += before @ before.T
    made: torch.Tensor = unused @ torch.cholesky_solve(within, factor(whole))
    return made


def factor(matrix: torch.Tensor) -> torch.Tensor:
    """The Cholesky factor of a symmetric positive definite matrix.

    Raises:
        MethodError: it is not positive definite, or not finite.
    """
    found: torch.Tensor
    found, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed) or not torch.isfinite(found).all():
        raise hubedit.MethodError(
            "the equations of the edit are singular; set ridge above 0 (1e-3 is usual), or give "
            "more texts"
        )
    return found
