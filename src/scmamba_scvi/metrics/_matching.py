"""Does a cell of one modality find itself among the cells of the other?

Row ``i`` of ``x`` and row ``i`` of ``y``, both ``(n, z)``, are the same cell, embedded from two modalities. Nearly all scores
come from one number per cell: how many cells are closer to it than its true match is. To compute several of them in one
pass over the distances, take :func:`true_match_ranks` once and call its methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import ScmambaError, UnknownNameError
from .distances import Matrix, as_matrix, count_closer, prepare, query_rows


@dataclass(frozen=True)
class TrueMatchRanks:
    """Where each cell's true match stands among the cells around it.

    Examples
    --------
    >>> rna = np.array([[0.0], [1.0], [5.0], [9.0]])
    >>> atac = np.array([[1.0], [0.0], [5.0], [9.0]])  # two are swapped
    >>> ranks = metrics.true_match_ranks(rna, atac)
    >>> ranks.closer[0].tolist(), ranks.n_candidates
    ([1.0, 1.0, 0.0, 0.0], 4)
    """

    #: Float64 ``(2, m)``, from ``x`` and from ``y``: cells strictly closer than the true match.
    closer: np.ndarray
    #: Float64 ``(2, m)``: cells as close as the true match, itself left out.
    ties: np.ndarray
    #: Cells that were compared, including the true match.
    n_candidates: int

    @property
    def fractions(self) -> tuple[np.ndarray, np.ndarray]:
        """Closer cells, and half the ties, as a fraction of the candidates; ``(m,)`` per direction."""
        of_x, of_y = (self.closer + self.ties / 2) / self.n_candidates
        return of_x, of_y

    @property
    def median(self) -> float:
        """Median over cells and directions of the true match's rank; ties take the middle of their ranks.

        1 is perfect, ``(n + 1) / 2`` is chance, ``n`` the worst.
        """
        return float(np.median(self.closer + self.ties / 2 + 1))

    def recall(self, k: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Fraction of cells whose true match is among the ``k`` nearest, for each ``k``, mean of both directions.

        0 to 1, higher is better; chance is ``k`` over the number of candidates. Of ranks ``among="both"`` it is the
        neighbourhood overlap [Cao20]_: unlike recall in the other modality it falls where the modalities lie apart,
        since cells of the own modality compete.

        Parameters
        ----------
        k
            Number of nearest cells, or several such numbers, 1 to :attr:`n_candidates`.

        Returns
        -------
        Float64, one per ``k``; a single ``k`` too gives an array.

        Raises
        ------
        ScmambaError
            A ``k`` is no whole number, smaller than 1 or larger than the number of candidates.

        Notes
        -----
        Among ties the order is random: a cell counts with the fraction of all orders in which its true match is among
        the ``k``.

        The paper gives no formula of the neighbourhood overlap (section 4.2.1) and cites [Cao20]_. Public code counts the
        cell itself among its ``k``.

        References
        ----------
        .. [Cao20] Cao et al., Unsupervised topological alignment for single-cell multi-omics integration,
           Bioinformatics 2020.

        Examples
        --------
        >>> x, y = np.arange(4.0)[:, None], np.arange(4.0)[[1, 0, 2, 3], None]
        >>> metrics.true_match_ranks(x, y).recall([1, 4]).round(6).tolist()
        [0.5, 1.0]
        >>> metrics.true_match_ranks(x, y, among="both").recall(7).tolist()
        [1.0]
        """
        k = np.atleast_1d(k)
        if k.dtype.kind not in "iu" or k.size == 0 or k.min() < 1 or k.max() > self.n_candidates:
            raise ScmambaError(
                f"k must be whole numbers between 1 and the {self.n_candidates} cells compared; got {k.tolist()}."
            )
        return np.array([np.clip((one - self.closer) / (self.ties + 1), 0, 1).mean() for one in k])


def true_match_ranks(
    x: Matrix,
    y: Matrix,
    *,
    among: Literal["other", "both"] = "other",
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> TrueMatchRanks:
    """Count the cells that are closer to each cell than its true match, in one blocked pass.

    Parameters
    ----------
    x, y
        ``(n, z)`` embeddings of the same cells, in the same order; Euclidean distances are taken on them as given.
    among
        ``"other"`` compares with the cells of the other modality only (``n`` candidates), ``"both"`` with all cells of
        both except the cell itself (``2 n - 1`` candidates), see :meth:`TrueMatchRanks.recall`.
    max_queries
        Rank the true matches of this many cells, drawn at random, instead of all; they are still compared with all. An
        unbiased estimate, good enough above 50,000 pairs.
    random_state
        Seed of that draw.
    device
        Where to compute: ``None`` where ``x`` lies (an array: CPU), ``"auto"`` a CUDA device if there is one.

    Returns
    -------
    :class:`TrueMatchRanks`, counts for ``m`` cells in both directions; ``m`` is ``n``, or ``max_queries`` if that is less.

    Raises
    ------
    ScmambaError
        ``x`` and ``y`` differ in shape, hold fewer than two cells or values that are not finite.
    UnknownNameError
        ``among`` is neither of the two.

    Notes
    -----
    Memory is linear in ``n``. A cell is excluded from its own neighbours by its index. Distances that differ only by
    rounding are ties.

    Examples
    --------
    >>> metrics.true_match_ranks(np.eye(4), np.eye(4)).median
    1.0
    """
    if among not in ("other", "both"):
        raise UnknownNameError("set of candidates", among, ("other", "both"))
    x, y = check_pairs(x, y, device)
    n = len(x)
    x, y = prepare(x, y)
    rows = torch.as_tensor(query_rows(n, max_queries, random_state), device=x.device)
    radius = ((x[rows] - y[rows]) ** 2).sum(dim=1)  # (m,)
    closer, ties = [], []
    for own, other in ((x, y), (y, x)):
        counts = [count_closer(own[rows], other, radius, exclude=rows)]
        if among == "both":
            counts.append(count_closer(own[rows], own, radius, exclude=rows))
        closer.append(torch.stack([c for c, _ in counts]).sum(dim=0).cpu().numpy())
        ties.append(torch.stack([t for _, t in counts]).sum(dim=0).cpu().numpy())
    return TrueMatchRanks(np.stack(closer), np.stack(ties), n if among == "other" else 2 * n - 1)


def foscttm(x: Matrix, y: Matrix, *, device: str | torch.device | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of samples closer than the true match, per cell and direction (equations 23 and 24; [Singh20]_).

    0 is perfect, about 0.5 is chance (precisely ``(n - 1) / 2n``), 1 the worst: lower is better. The score of an
    integration is the mean over both arrays.

    Parameters
    ----------
    x, y, device
        As in :func:`true_match_ranks`.

    Returns
    -------
    Two float64 arrays ``(n,)``: for the cells of ``x`` the fraction of rows of ``y`` that are strictly closer than the
    true match, and for the cells of ``y`` the same among the rows of ``x``.

    Raises
    ------
    ScmambaError
        As :func:`true_match_ranks`.

    Notes
    -----
    Ties, up to rounding, count half: with the paper's strict "closer" all cells at one point would get the perfect score 0.

    References
    ----------
    .. [Singh20] Singh et al., Unsupervised manifold alignment for single-cell multi-omics data, ACM-BCB 2020.

    Examples
    --------
    >>> rna = np.array([[0.0], [1.0], [5.0], [9.0]])
    >>> atac = np.array([[1.0], [0.0], [5.0], [9.0]])  # two are swapped
    >>> of_rna, of_atac = metrics.foscttm(rna, atac)
    >>> of_rna.tolist()
    [0.25, 0.25, 0.0, 0.0]
    """
    return true_match_ranks(x, y, device=device).fractions


def modality_gap(x: Matrix, y: Matrix) -> float:
    """Distance between the centres of two modalities on the unit sphere [Liang22]_.

    0 to 2, lower is better; 0 means that the clouds have one centre, not that any cell is near its true match.

    Parameters
    ----------
    x, y
        ``(n, z)`` and ``(m, z)`` embeddings, which need not be of the same cells. Rows are scaled to length 1 first, so
        that embeddings of different scales can be compared; a row of zeros stays zero.

    Returns
    -------
    The distance, a float.

    Raises
    ------
    ScmambaError
        ``x`` and ``y`` differ in their number of dimensions, are empty, or hold values that are not finite.

    References
    ----------
    .. [Liang22] Liang et al., Mind the gap: understanding the modality gap in multi-modal contrastive representation
       learning, NeurIPS 2022.

    Examples
    --------
    >>> metrics.modality_gap(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]))
    2.0
    """
    x, y = as_matrix(x, "x"), as_matrix(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ScmambaError(f"x and y must have the same number of dimensions; got {x.shape[1]} and {y.shape[1]}.")
    centres = [torch.nn.functional.normalize(a, dim=1, eps=1e-300).mean(dim=0).cpu() for a in (x, y)]
    return float(torch.linalg.vector_norm(centres[0] - centres[1]))


def check_pairs(x: Matrix, y: Matrix, device: str | torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Both embeddings as finite float64 matrices of one shape with at least two cells."""
    if np.ndim(x) != 2 or np.shape(x) != np.shape(y) or 0 in np.shape(x):
        raise ScmambaError(
            f"x and y must be matrices of one shape (n cells, n dimensions), row i of both being the same cell; "
            f"got {tuple(np.shape(x))} and {tuple(np.shape(y))}."
        )
    if np.shape(x)[0] < 2:
        raise ScmambaError("x and y hold one cell: its true match is the only candidate, so there is nothing to score.")
    x = as_matrix(x, "x", device)
    return x, as_matrix(y, "y", x.device)
