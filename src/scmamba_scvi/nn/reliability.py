"""How much of a component is measurement: two halves of the counts of the same cells, compared."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..ops.csr import is_csr, product, with_values


def in_halves(counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Counts split at random into two halves, as if each cell had been sequenced twice at half the depth.

    Parameters
    ----------
    counts
        ``(n, f)``, dense or CSR; values that are not whole numbers are rounded.
    generator
        On the CPU, as ``counts``.

    Returns
    -------
    Two matrices of the layout of ``counts``.
    """
    stored = (counts.values() if is_csr(counts) else counts).round()
    first = torch.binomial(stored, torch.full_like(stored, 0.5), generator=generator)
    halves = first, stored - first
    return tuple(with_values(counts, half) for half in halves) if is_csr(counts) else halves


def reliability(halves: Iterable[tuple[Tensor, Tensor]], components: Tensor) -> Tensor:
    """Share of the variance of each component that is not counting noise, ``(k,)``, between 0 and 1.

    A correlation ``c`` of two measurements at half the depth means ``2 c / (1 + c)`` at the whole depth (Spearman 1910,
    Brown 1910).

    Parameters
    ----------
    halves
        Blocks of cells, each as the transformed values ``(n, f)`` of its two halves, dense or CSR.
    components
        ``(f, k)``.
    """
    n_cells, sums = 0, torch.zeros(5, components.shape[1], dtype=torch.double)
    for pair in halves:
        a, b = (product(half, components).double() for half in pair)
        sums += torch.stack([x.sum(0) for x in (a, b, a * a, b * b, a * b)])
        n_cells += len(a)
    mean_a, mean_b, aa, bb, ab = sums / n_cells
    spread = ((aa - mean_a.square()) * (bb - mean_b.square())).clamp_min(0).sqrt()
    c = torch.where(spread > 0, (ab - mean_a * mean_b) / spread.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    c = c.clamp(0, 1).float()
    return 2 * c / (1 + c)
