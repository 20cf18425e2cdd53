"""Second moments of several modalities over cells that need not have all of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .spectral import ridged

#: Ridge of the prediction of features from others, as a fraction of the mean variance.
RIDGE = 1e-2
#: Rounds of expectation maximization; after 20, 50 and 100 the scores of a mosaic are the same within noise.
N_ROUNDS = 20


def second_moments(features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """Second moments of all features, as if every cell had every modality.

    Expectation maximization for normally distributed features (Dempster, Laird and Rubin 1977): in turn, what a cell lacks
    is predicted from what it has, with the variance that the prediction leaves, and the moments are taken again. So those
    over the cells of one experiment fit those over the cells of another. It begins with modalities that are independent;
    two that no cell has both of end independent given what they were measured with, as nothing tells otherwise. If every
    cell has all modalities, these are the plain moments.

    Parameters
    ----------
    features
        ``(n, f)`` per modality, of any values for cells that lack it.
    present
        Mask ``(n,)`` per modality.

    Returns
    -------
    Float64 ``(F, F)`` on the CPU, where linear algebra of small matrices is fast; ``F`` is the sum of all ``f``.
    """
    kind_of = torch.cat([torch.full((x.shape[1],), i) for i, x in enumerate(features.values())])
    x = torch.cat([torch.where(present[k][:, None], f.double(), 0.0) for k, f in features.items()], dim=1)
    has = torch.stack([present[k] for k in features], dim=1)
    groups = []  # of cells with the same modalities: which features they have, sum of products, number
    for pattern in torch.unique(has[has.any(1)], dim=0):
        rows = (has == pattern).all(1)
        groups.append((pattern.cpu()[kind_of], (x[rows].T @ x[rows]).cpu(), int(rows.sum())))
    n_of_feature = sum((n * known for known, _, n in groups), start=torch.zeros(len(kind_of))).clamp_min(1)
    total = sum((products for _, products, _ in groups), start=torch.zeros(2 * (len(kind_of),)).double())
    moments = torch.where(kind_of[:, None] == kind_of, total / n_of_feature, 0.0)
    for _ in range(N_ROUNDS):
        before, moments = moments, _expected(moments, groups)
        if torch.equal(moments, before):
            break
    return moments


def ridge_prediction(moments: Tensor, known: Tensor) -> Tensor:
    """Map ``(F, F)`` from features to their expectation given those in the mask ``known`` ``(F,)``, which stay as they are."""
    expectation = torch.zeros_like(moments)
    expectation[known.nonzero(), known.nonzero().T] = torch.eye(int(known.sum())).to(moments)
    from_known = torch.linalg.solve(ridged(moments[known][:, known], RIDGE), moments[known][:, ~known])
    expectation[(~known).nonzero(), known.nonzero().T] = from_known.T
    return expectation


def _expected(moments: Tensor, groups: list[tuple[Tensor, Tensor, int]]) -> Tensor:
    """Mean of the products of features over all cells, given what each has; every part is without negative eigenvalues."""
    total = torch.zeros_like(moments)
    for known, products, n in groups:
        expectation = ridge_prediction(moments, known)
        error = torch.eye(len(moments)).to(moments) - expectation
        total += expectation @ products @ expectation.T + n * error @ moments @ error.T
    return total / max(1, sum(n for _, _, n in groups))
