"""Nearest neighbours between two sets of unit vectors, a block at a time, and how far their cosines can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ..metrics._distances import as_matrix, distance_blocks, prepare

#: Held-out pairs that calibrate: one number needs no more, and their cosines are held together.
MAX_PAIRS = 2_000
#: Fewer say too little about it.
MIN_PAIRS = 10


@dataclass(frozen=True)
class Neighbors:
    """The best references of each query, best first.

    Attributes
    ----------
    indices
        ``(n, k)`` int64 positions among the references.
    cosine
        ``(n, k)`` float32.
    confidence
        ``(n, k)`` float32, ``exp(cosine / t)`` as a share of the sum over all references.
    """

    indices: np.ndarray
    cosine: np.ndarray
    confidence: np.ndarray


def nearest_references(
    queries: np.ndarray,
    references: np.ndarray,
    k: int,
    temperature: float,
    exclude: np.ndarray | None = None,
    device: str | torch.device | None = None,
) -> Neighbors:
    """Exact search; memory is that of the vectors, of the result and of one block of distances.

    Parameters
    ----------
    queries, references
        ``(n, z)`` and ``(m, z)`` unit vectors.
    k
        At most ``m``.
    temperature
        ``t`` of the confidence.
    exclude
        ``(n,)`` the one reference that does not count for each query, -1 for none.
    """
    # written in place: small results kept between large blocks would leave holes no block fits into
    found = Neighbors(*(np.zeros((len(queries), k), dtype) for dtype in (np.int64, np.float32, np.float32)))
    if not len(queries):
        return found
    q, r = prepare(*(as_matrix(x, name, device) for x, name in ((queries, "queries"), (references, "references"))))
    excluded = None if exclude is None else torch.as_tensor(exclude, device=q.device)
    for rows, distances in distance_blocks(q, r):
        less_one = distances.mul_(-0.5)  # |q - r|^2 = 2 - 2 cos, so this is the cosine less 1, (b, m)
        if excluded is not None:
            asked = (excluded[rows] >= 0).nonzero().ravel()
            less_one[asked, excluded[rows][asked]] = -torch.inf
        best = less_one.topk(k, dim=1)
        log_sum = less_one.div_(temperature).logsumexp(dim=1, keepdim=True)  # (b, 1)
        found.indices[rows] = best.indices.cpu()
        found.cosine[rows] = (1 + best.values).clamp(-1, 1).cpu()
        found.confidence[rows] = (best.values / temperature - log_sum).exp().cpu()
    return found


def fit_temperature(x: np.ndarray, y: np.ndarray) -> float:
    """The ``t`` under which ``exp(cosine / t)`` tells best which ``y`` is the partner of each ``x``, and the reverse.

    Maximum likelihood over pairs ``(n, z)`` that were not trained on. For vectors of which the partner is ``exp(cos/t)``
    times as likely as a random cell, shares of that sum are probabilities for any number of candidates.
    """
    cosine = as_matrix(x, "x") @ as_matrix(y, "y").T  # (n, n)

    def loss(log_t: float) -> float:
        logits = cosine / np.exp(log_t)
        partner = logits.diagonal()
        return float((logits.logsumexp(0) + logits.logsumexp(1) - 2 * partner).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.005), np.log(5.0)), method="bounded").x))


def log_evidence(x: np.ndarray, y: np.ndarray, temperature: float, device: str | torch.device | None = None):
    """How much better each ``x`` fits its own ``y`` than the others, and the reverse: float64 ``(n,)``, in nats.

    Logarithm of ``exp(cosine / t)`` over its mean over all ``y``, and over all ``x``; the mean of both.
    """
    q, r = prepare(*(as_matrix(v, name, device) for v, name in ((x, "x"), (y, "y"))))
    own = -0.5 * ((q - r) ** 2).sum(dim=1) / temperature
    return (own - (_log_mean(q, r, temperature) + _log_mean(r, q, temperature)) / 2).double().cpu().numpy()


def _log_mean(queries: Tensor, references: Tensor, temperature: float) -> Tensor:
    sums = [block.mul_(-0.5 / temperature).logsumexp(dim=1) for _, block in distance_blocks(queries, references)]
    return torch.cat(sums) - np.log(len(references))
