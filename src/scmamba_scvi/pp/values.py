"""Transforms from counts to the values that the network reads, applied to each minibatch on its device.

Every transform takes float32 ``(n, f)``, dense or `torch.sparse_csr`, and gives the same numbers for both. A row's
result depends on that row alone. Empty rows, i.e. cells that lack the modality, stay zero; stored zeros count as zeros.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ScmambaError, UnknownNameError
from ..ops.csr import column_sums, is_csr, repeated, row_index, row_lengths, stored, with_values

#: Counts per cell after scaling, the usual "counts per ten thousand" of the field.
TARGET_SUM: Final = 1e4
#: The same for `ParetoLog`: a smaller sum makes the step from no count to one smaller beside those between counts.
PARETO_SUM: Final = 1e3
#: Above this `CenteredLogRatio` refuses: its result is dense, 40 MB per 512 cells at this width.
MAX_DENSE_FEATURES: Final = 20_000


class ValueTransform(nn.Module):
    """Base of the transforms, and the one that changes nothing (``"raw"``).

    Parameters
    ----------
    n_features
        ``f``, the number of features of the modality.

    Examples
    --------
    >>> pp.ValueTransform(3)(torch.tensor([[0.0, 2.0, 5.0]])).tolist()
    [[0.0, 2.0, 5.0]]
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def forward(self, x: Tensor) -> Tensor:
        """Values of a minibatch of counts.

        Parameters
        ----------
        x
            Counts ``(n, f)``, float32, dense or CSR.

        Returns
        -------
        Values ``(n, f)``; CSR stays CSR and shares its index arrays.

        Raises
        ------
        ScmambaError
            ``x`` has another number of features.
        """
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ScmambaError(f"Counts of {self.n_features} features are needed, got a matrix {tuple(x.shape)}.")
        return self._transform(x)

    def fit(self, blocks: Iterable[Tensor]) -> ValueTransform:
        """Learn from the training cells; most transforms have nothing to learn.

        A second call forgets the first. What is learned is kept in buffers, so it is saved with the state dict.

        Parameters
        ----------
        blocks
            Counts of the training cells in blocks of rows ``(cells, f)``, dense or CSR. They are read once.

        Returns
        -------
        The transform itself.

        Raises
        ------
        ScmambaError
            There is something to learn, and no cell has a count.
        """
        return self

    def _transform(self, x: Tensor) -> Tensor:
        return x


class LogNormalized(ValueTransform):
    """Counts scaled to `TARGET_SUM` per cell, then ``log(1 + x)`` (``"log1p"``)."""

    def _transform(self, x: Tensor) -> Tensor:
        return with_values(x, _scaled_log(x, TARGET_SUM))


class Presence(ValueTransform):
    """1 where something was counted, 0 elsewhere (``"binary"``; accessibility in the paper, section 4.1.1)."""

    def _transform(self, x: Tensor) -> Tensor:
        return with_values(x, _seen(x))


class FeatureWeighted(ValueTransform, abc.ABC):
    """Base of the transforms that learn one weight per feature from the training cells."""

    name: str
    weight: Tensor  # (f,)
    n_train: Tensor  # (), 0 before the first fit

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        self.register_buffer("weight", torch.zeros(n_features))
        self.register_buffer("n_train", torch.zeros((), dtype=torch.long))
        self._fitted = False  # so that not every step reads the buffer, which would wait for the device

    def fit(self, blocks: Iterable[Tensor]) -> ValueTransform:
        n_train, total = 0, torch.zeros(self.n_features, dtype=torch.double)
        for x in blocks:
            total += column_sums(x, self._evidence(x)).cpu()
            n_train += int((_row_sums(x, _seen(x)) > 0).sum())
        if not n_train:
            raise ScmambaError(
                f"The weights of values={self.name!r} need training cells with counts, but all cells given are empty."
            )
        self.weight.copy_(self._weights(total, n_train))
        self.n_train.fill_(n_train)
        return self

    @abc.abstractmethod
    def _evidence(self, x: Tensor) -> Tensor:
        """One number for each stored value of a block."""

    @abc.abstractmethod
    def _weights(self, total: Tensor, n_train: int) -> Tensor:
        """Weights from the sums ``(f,)`` over the training cells that have any count, so many."""

    def _fitted_weight(self) -> Tensor:
        self._fitted = self._fitted or bool(self.n_train > 0)
        if not self._fitted:
            raise ScmambaError(
                f"values={self.name!r} needs the weights of the training cells: fit(blocks), or load a state dict."
            )
        return self.weight


class InverseFrequency(FeatureWeighted):
    """Presence, weighted by how rare the feature is, scaled to unit length per cell (``"tfidf"``).

    ``idf = log(1 + n_train / max(df, 1))`` with the training cells that have any count, ``n_train``, and those of them
    that have this feature, ``df``. Unit length removes the depth of the cell.
    """

    name = "tfidf"

    def _evidence(self, x: Tensor) -> Tensor:
        return _seen(x)

    def _weights(self, total: Tensor, n_train: int) -> Tensor:
        # divided in float32, as the weights are kept
        return torch.log1p(n_train / total.clamp(min=1).float())

    def _transform(self, x: Tensor) -> Tensor:
        # in place on new tensors, since memory bandwidth is the limit on a CPU
        weights = _per_feature(x, self._fitted_weight()).mul_(_seen(x))
        length = _row_sums(x, weights.square()).sqrt_()
        return with_values(x, weights.div_(_per_value(x, _positive(length))))


class ParetoLog(FeatureWeighted):
    """``log(1 + x)`` of counts scaled per cell, features weighted down by their counting noise (``"pareto"``).

    The weight is ``1 / sqrt(max(noise, q))`` with the feature's standard deviation due to counting, ``noise``, and its
    lowest decile over the features that were counted, ``q`` (1 if none was). This is half-way between no scaling, where
    a few strong genes make the leading directions, and noise of one size for all; ``q`` bounds the weights of genes that
    were counted once. Dividing by the whole spread instead would weigh markers down for the signal they carry. Zeros
    stay zeros, so that sparse cells stay sparse.

    The variance due to counting is that of the jackknife (Efron and Stein 1981) over molecules: a count ``x`` adds
    ``x (g(x) - g(x - 1))^2``, ``g`` being the logarithm above, to the sum over the training cells.
    """

    name = "pareto"

    def _evidence(self, x: Tensor) -> Tensor:
        step = _scaled_log(x, PARETO_SUM) - _scaled_log(x, PARETO_SUM, less=1)
        return (stored(x).clamp(min=0) * step.square()).double()

    def _weights(self, total: Tensor, n_train: int) -> Tensor:
        noise = (total / n_train).sqrt()
        counted = noise[noise > 1e-6]  # smaller ones are rounding errors
        # numpy's, since torch.quantile accepts at most 16 million numbers
        lowest = float(np.quantile(counted, 0.1)) if len(counted) else 1.0
        return noise.clamp(min=lowest).rsqrt()

    def _transform(self, x: Tensor) -> Tensor:
        return with_values(x, _scaled_log(x, PARETO_SUM).mul_(_per_feature(x, self._fitted_weight())))


class QuantileBins(ValueTransform):
    """Bin of each value among the non-zero values of its cell (``"binned"``; paper, section 4.1.1).

    A value that exceeds ``r`` of the ``m`` non-zero values of its cell gets bin ``1 + floor((n_bins - 1) * r / m)``, so
    bins run from 1 to at most ``n_bins - 1``, zero stays 0, and equal values share a bin. (The paper's code breaks ties
    at random, so that the same cell has other bins in every run.)

    ``n_bins`` counts that of zero; 51 as in the paper's configurations.
    """

    def __init__(self, n_features: int, n_bins: int = 51) -> None:
        super().__init__(n_features)
        if n_bins < 2:
            raise ScmambaError(f"n_bins must be at least 2, one for zero and one for the rest, got {n_bins}.")
        self.n_bins = n_bins

    def _transform(self, x: Tensor) -> Tensor:
        if not is_csr(x):
            return self._bins(x)
        lengths, values = row_lengths(x), x.values()
        row = row_index(x.crow_indices(), x.col_indices()).long()
        place = torch.arange(values.numel(), device=values.device) - x.crow_indices().long()[row]
        width = int(lengths.max()) if len(lengths) else 0
        table = values.new_zeros(x.shape[0], width)  # (n, longest row): a sort of it is a sort within each cell
        table[row, place] = values
        return with_values(x, self._bins(table)[row, place])

    def _bins(self, x: Tensor) -> Tensor:
        if not x.numel():
            return x
        # zeros are sorted to the end, so that the position of a value is the number of non-zero values below it
        values = torch.where(x != 0, x, torch.inf)
        below = torch.searchsorted(values.sort(1).values, values)
        n_stored = (x != 0).sum(1, keepdim=True).clamp(min=1)
        # integer division: a quotient in float32 can fall on the wrong side of the edge of a bin
        bins = 1 + (self.n_bins - 1) * below // n_stored
        return torch.where(x != 0, bins, 0).to(x.dtype)


class CenteredLogRatio(ValueTransform):
    """``log(1 + x)`` minus its mean over all features of the cell (``"clr"``); the result is dense.

    The mean includes the zeros, so that a cell's values sum to zero, which removes most of the depth of the cell.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        if n_features > MAX_DENSE_FEATURES:
            raise ScmambaError(
                f"values='clr' makes every value non-zero and would fill {n_features:,} columns; at most "
                f"{MAX_DENSE_FEATURES:,} are allowed. It is meant for proteins: use 'log1p' or 'tfidf' here."
            )

    def _transform(self, x: Tensor) -> Tensor:
        logs = torch.log1p(x.to_dense())
        return logs - logs.mean(1, keepdim=True)


#: From name to a function that makes the transform from ``(n_features, n_bins)``.
VALUE_TRANSFORMS: Final[dict[str, Callable[[int, int], ValueTransform]]] = {
    "log1p": lambda n_features, _: LogNormalized(n_features),
    "pareto": lambda n_features, _: ParetoLog(n_features),
    "tfidf": lambda n_features, _: InverseFrequency(n_features),
    "binary": lambda n_features, _: Presence(n_features),
    "binned": QuantileBins,
    "clr": lambda n_features, _: CenteredLogRatio(n_features),
    "raw": lambda n_features, _: ValueTransform(n_features),
}


def value_transform(name: str, n_features: int, *, n_bins: int = 51) -> ValueTransform:
    """Transform of counts by name.

    Parameters
    ----------
    name
        ``"log1p"`` and ``"pareto"`` (RNA), ``"tfidf"`` and ``"binary"`` (accessibility), ``"clr"`` (protein),
        ``"binned"`` (RNA and protein in the paper) or ``"raw"``.
    n_features
        ``f``.
    n_bins
        Read by ``"binned"`` only.

    Returns
    -------
    Module from counts ``(n, f)`` to values ``(n, f)``; ``"tfidf"`` and ``"pareto"`` must see the training cells first,
    see `ValueTransform.fit`.

    Raises
    ------
    UnknownNameError
        No transform has this name.
    ScmambaError
        ``"clr"`` on more than `MAX_DENSE_FEATURES` features.

    Examples
    --------
    >>> counts = torch.tensor([[0.0, 2.0, 5.0]])
    >>> pp.value_transform("binary", n_features=3)(counts).tolist()
    [[0.0, 1.0, 1.0]]
    """
    if name not in VALUE_TRANSFORMS:
        raise UnknownNameError("values", name, VALUE_TRANSFORMS)
    return VALUE_TRANSFORMS[name](n_features, n_bins)


def _scaled_log(x: Tensor, target_sum: float, less: int = 0) -> Tensor:
    """``log(1 + x)`` of counts scaled to ``target_sum`` per cell: stored values ``(nnz,)`` of CSR, or ``(n, f)``.

    With ``less``, of counts that are smaller by so many, at the scale of the whole cell.
    """
    counts = stored(x)
    scale = _per_value(x, target_sum / _positive(_row_sums(x, counts)))
    return torch.log1p((counts - less).clamp(min=0) * scale if less else counts * scale)


def _seen(x: Tensor) -> Tensor:
    """1 where what is stored of ``x`` is not zero."""
    return stored(x).sign().abs_()  # a third of the time of a comparison and its conversion


def _row_sums(x: Tensor, v: Tensor) -> Tensor:
    """Sum of ``v``, one for each stored value, over each row, ``(n,)`` for CSR, else ``(n, 1)``."""
    if not is_csr(x):
        return v.sum(1, keepdim=True)
    if x.device.type == "cpu":  # numpy needs a third of the time, but cannot sum nothing
        starts, sums = x.crow_indices(), v.new_zeros(x.shape[0])
        is_filled = (starts.diff() > 0).numpy()
        sums.numpy()[is_filled] = np.add.reduceat(v.numpy(), starts[:-1].numpy()[is_filled])
        return sums
    # in a fixed order: scattered additions on a GPU would differ in the last digits from run to run
    return torch.segment_reduce(v, "sum", offsets=x.crow_indices().long(), initial=0.0)


def _per_value(x: Tensor, per_row: Tensor) -> Tensor:
    """What `_row_sums` gives, at every stored value."""
    return repeated(per_row, row_lengths(x), x.values().numel()) if is_csr(x) else per_row


def _per_feature(x: Tensor, weight: Tensor) -> Tensor:
    """``weight (f,)`` at every stored value, in a new tensor."""
    return weight.index_select(0, x.col_indices()) if is_csr(x) else weight.repeat(len(x), 1)


def _positive(divisor: Tensor) -> Tensor:
    """``divisor`` with 1 in place of 0, so that empty rows stay zero."""
    return divisor.masked_fill(divisor == 0, 1.0)
