"""How much nearer is a cell to its own group than to the next one?"""

import numpy as np
from sklearn.metrics import silhouette_samples, silhouette_score

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, centred_array


def cell_type_asw(x: Matrix, cell_type: Labels) -> float:
    """Average silhouette width of the cell types, scaled to 0..1 (equation 12).

    0 to 1, higher is better; 0.5 means that types overlap completely, as with random labels or with all cells at one
    point.

    Parameters
    ----------
    x, cell_type
        As in :func:`knn_accuracy`.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        As :func:`knn_accuracy`, or no type has two cells.

    Notes
    -----
    ``(s + 1) / 2`` with scikit-learn's ``silhouette_score`` ``s`` on Euclidean distances: a cell whose label occurs once
    has silhouette 0.

    Examples
    --------
    >>> cells = np.array([[0.0], [0.1], [9.0], [9.1]])
    >>> round(metrics.cell_type_asw(cells, list("TTBB")), 2)
    0.99
    """
    points = centred_array(x)
    codes = label_codes(cell_type, len(points), "cell_type")
    if np.bincount(codes).max() < 2:
        raise ScmambaError(
            f"cell_type has {len(points):,} labels for {len(points):,} cells: no cell has another of its type."
        )
    return float((silhouette_score(points, codes) + 1) / 2)


def omics_asw(x: Matrix, omics: Labels, cell_type: Labels) -> float:
    """One minus the absolute silhouette of the modalities, averaged within and then over types (equations 13 and 14).

    0 to 1, higher is better: 1 means that the modalities of each type cannot be told apart.

    Parameters
    ----------
    x, omics, cell_type
        As in :func:`omics_entropy_mixing` and :func:`cell_type_asw`; one type is enough.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        There is one modality only, or no type has several cells of two modalities.

    Notes
    -----
    Equation 13 lacks a parenthesis: it is the mean of ``1 - |s|``. Silhouettes are computed among the cells of a type.
    The only cell of a modality in a type has silhouette 0. A type of which there is one modality only, or one cell of
    each, is left out, since it cannot be mixed; the authors' code counts types of one modality as perfectly mixed.

    Examples
    --------
    >>> cells = np.array([[0.0], [1.0], [0.0], [1.0]])
    >>> omics = ["rna", "rna", "atac", "atac"]
    >>> metrics.omics_asw(cells, omics, list("TTTT"))
    0.5
    """
    points = centred_array(x)
    modality = label_codes(omics, len(points), "omics")
    types = label_codes(cell_type, len(points), "cell_type", at_least=1)
    scores = []
    for code in np.unique(types):
        members = np.flatnonzero(types == code)
        if 1 < len(np.unique(modality[members])) < len(members):
            scores.append((1 - np.abs(silhouette_samples(points[members], modality[members]))).mean())
    if not scores:
        raise ScmambaError("No cell type has several cells of two modalities: nothing can be mixed.")
    return float(np.mean(scores))
