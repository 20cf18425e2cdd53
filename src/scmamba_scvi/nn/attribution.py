"""Which values of a cell a score of it comes from: integrated gradients along the line from an empty cell."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..ops.csr import stored, with_values


def integrated_gradients(score: Callable[[Tensor], Tensor], values: Tensor, n_steps: int = 16) -> Tensor:
    """Attribution of the difference between the scores of a row and of an empty row to its values [Sundararajan17]_.

    ``values * mean over alpha of d score(alpha * values) / d values``, by Gauss-Legendre quadrature. Values that are not
    stored are zero all along the line and get nothing: memory is that of the stored values and of one forward and
    backward pass, where an array of rows times features would not fit.

    ``score`` maps values ``(n, f)``, dense or CSR, to ``(n,)``; that of a row must not depend on the others. The result is
    like ``values``. Each row sums to ``score(values) - score(empty)``, the closer the more steps there are.

    References
    ----------
    .. [Sundararajan17] Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    end = stored(values).detach()
    total = torch.zeros_like(end)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        at = (end * float(node)).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(with_values(values, at)).sum(), at)
        total += float(weight) * gradient
    return with_values(values, total * end)
