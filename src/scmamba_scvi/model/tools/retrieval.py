"""Nearest neighbours between two sets of unit vectors, a block at a time, and what their cosines are worth."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...metrics.distances import as_matrix, distance_blocks, prepare


@dataclass(frozen=True)
class Neighbors:
    """The best references of each query, best first."""

    indices: np.ndarray  # (n, k) int64 positions among the references
    cosine: np.ndarray  # (n, k) float32
    confidence: np.ndarray  # (n, k) float32, exp(cosine / t) as a fraction of the sum over all references


def nearest_references(
    queries: np.ndarray,
    references: np.ndarray,
    k: int,
    temperature: float,
    exclude: np.ndarray | None = None,
    device: str | torch.device | None = None,
) -> Neighbors:
    """Exact search for the ``k`` nearest references of each query, among unit vectors ``(n, z)`` and ``(m, z)``.

    Memory is that of the vectors, of the result and of one block of distances. ``temperature`` is the ``t`` of the
    confidence; ``exclude`` ``(n,)`` is the one reference that does not count for each query, -1 for none.
    """
    # one result, written in place: small arrays allocated between the large blocks would fragment the memory
    found = Neighbors(*(np.zeros((len(queries), k), dtype) for dtype in (np.int64, np.float32, np.float32)))
    if not len(queries):
        return found
    q, r = prepare(*(as_matrix(x, name, device) for x, name in ((queries, "queries"), (references, "references"))))
    excluded = None if exclude is None else torch.as_tensor(exclude, device=q.device)
    for rows, distances in distance_blocks(q, r):
        less_one = distances.mul_(-0.5)  # |q - r|^2 = 2 - 2 cos, so this is the cosine less 1, (b, m)
        if excluded is not None:
            column = excluded[rows]
            row = (column >= 0).nonzero().ravel()
            less_one[row, column[row]] = -torch.inf
        best = less_one.topk(k, dim=1)
        log_sum = less_one.div_(temperature).logsumexp(dim=1, keepdim=True)  # (b, 1)
        found.indices[rows] = best.indices.cpu()
        found.cosine[rows] = (1 + best.values).clamp(-1, 1).cpu()
        found.confidence[rows] = (best.values / temperature - log_sum).exp().cpu()
    return found


def log_evidence(
    x: np.ndarray, y: np.ndarray, temperature: float, device: str | torch.device | None = None
) -> np.ndarray:
    """How much better each ``x`` fits its own ``y`` than the others, and the reverse: float64 ``(n,)``, in nats.

    The mean of two logarithms: of ``exp(cosine / t)`` over its mean over all ``y``, and over its mean over all ``x``.
    """
    q, r = prepare(*(as_matrix(v, name, device) for v, name in ((x, "x"), (y, "y"))))
    own = -0.5 * ((q - r) ** 2).sum(dim=1) / temperature
    return (own - (_log_mean(q, r, temperature) + _log_mean(r, q, temperature)) / 2).double().cpu().numpy()


def _log_mean(queries: Tensor, references: Tensor, temperature: float) -> Tensor:
    sums = [block.mul_(-0.5 / temperature).logsumexp(dim=1) for _, block in distance_blocks(queries, references)]
    return torch.cat(sums) - np.log(len(references))
