"""How much of a component is signal: its split-half reliability."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..ops.csr import column_sums, product, stored, with_values


def are_counts(x: Tensor) -> bool:
    """Whether all values of ``x``, dense or CSR, are whole numbers and none is negative."""
    values = stored(x)
    return bool(((values >= 0) & (values == values.round())).all())


def split_counts(counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Count splitting: two halves at random, as if each cell had been sequenced twice at half the depth.

    ``counts`` are ``(n, f)``, dense or CSR, of whole numbers that are not negative, as are the halves. ``generator`` is on
    their device; a seed gives other numbers on a GPU than on the CPU.
    """
    values = stored(counts)
    first = torch.binomial(values, torch.full_like(values, 0.5), generator=generator)
    return with_values(counts, first), with_values(counts, values - first)


def split_half_reliability(halves: Iterable[tuple[Tensor, Tensor]], components: Tensor) -> Tensor:
    """Fraction of the variance of each component that is not counting noise, ``(k,)``, between 0 and 1.

    A correlation ``c`` of two measurements at half the depth means ``2 c / (1 + c)`` at the whole depth (Spearman 1910,
    Brown 1910). ``halves`` are blocks of cells, each as the transformed values ``(n, f)`` of the two halves of its counts,
    dense or CSR; ``components`` are ``(f, k)``.
    """
    n_cells, sums = 0, components.new_zeros(5, components.shape[1], dtype=torch.double)
    for pair in halves:
        a, b = (product(half, components).double() for half in pair)
        sums += torch.stack([x.sum(0) for x in (a, b, a * a, b * b, a * b)])
        n_cells += len(a)
    mean_a, mean_b, aa, bb, ab = sums / n_cells
    spread = ((aa - mean_a.square()) * (bb - mean_b.square())).clamp_min(0).sqrt()
    c = torch.where(spread > 0, (ab - mean_a * mean_b) / spread.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    c = c.clamp(0, 1).float()
    return 2 * c / (1 + c)


def coefficient_alpha(values: Iterable[Tensor], components: Tensor) -> Tensor:
    """The mean of all split-half reliabilities that splits of the features give, ``(k,)``, between 0 and 1.

    For values that are not counts, which cannot be split: a component is signal as far as its features vary together
    (Cronbach 1951). What only one feature measures is taken for noise, so that this is a lower bound. ``values`` are blocks
    of cells, transformed values ``(n, f)``, dense or CSR; ``components`` are ``(f, k)``.
    """
    n_cells, f = 0, len(components)
    of_features, of_scores = (components.new_zeros(2, n, dtype=torch.double) for n in components.shape)
    for x in values:
        score = product(x, components).double()
        of_scores += torch.stack([score.sum(0), score.square().sum(0)])
        of_features += torch.stack([column_sums(x), column_sums(x, stored(x).double().square())])
        n_cells += len(score)
    feature, score = (square / n_cells - (total / n_cells).square() for total, square in (of_features, of_scores))
    apart = (
        feature.clamp_min(0).float() @ components.square()
    ).double()  # variance of the scores if features were independent
    alpha = (1 - apart / score.clamp_min(torch.finfo(torch.float64).tiny)) * f / max(1, f - 1)
    return torch.where(score > 0, alpha, 0.0).clamp(0, 1).float()
