"""In which cells do the modalities disagree, and where are these cells in the embedding?"""

from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from .._keys import UMAP_KEY
from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_axes, style_plane
from ._cells import coordinates
from ._labels import rim
from ._palette import FEW, MISSING

#: Inches of a panel.
WIDTH, HEIGHT = 4.0, 3.4
N_BINS: Final = 60


def modality_agreement(
    agreement: pd.Series,
    mdata: MuData | None = None,
    *,
    threshold: float | None = 0.0,
    basis: str = UMAP_KEY,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw a histogram of the agreement of the modalities and, beside it, the embedding coloured by it.

    Parameters
    ----------
    agreement
        A column of what :meth:`scmamba_scvi.SCMAMBA.get_modality_agreement` gives, ``"evidence"`` or ``"cosine"``. It is
        aligned with ``mdata`` by the names of cells, and its name is that of the axis.
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)``. `None`: the histogram alone.
    threshold
        Cells below it are marked in both panels and counted. An evidence of 0 means that the modalities fit no better
        than those of two different cells; for cosines choose your own; `None`: no mark.
    basis
        Key of ``mdata.obsm``.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    The ``Axes`` of the histogram and, with ``mdata``, of the embedding. Low values are drawn on top, cells without a
    value in grey below.

    Raises
    ------
    ScmambaError
        No value is finite, a cell is not in ``mdata``, or ``mdata`` lacks the coordinates.

    Examples
    --------
    >>> agreement = model.get_modality_agreement()
    >>> axes = pl.modality_agreement(agreement["evidence"])
    """
    if not isinstance(agreement, pd.Series):
        raise ScmambaError(
            f"agreement must be one column of model.get_modality_agreement(), such as ['evidence']; got "
            f"{type(agreement).__name__}."
        )
    values = agreement.astype(float)
    if not np.isfinite(values).any():
        raise ScmambaError("agreement holds no finite value; pass a column of model.get_modality_agreement().")
    if mdata is not None:
        xy = coordinates(mdata, basis)
        unknown = values.index.difference(mdata.obs_names)
        if len(unknown):
            raise ScmambaError(f"{len(unknown):,} cells of agreement, such as {unknown[0]!r}, are not in mdata.")
        if not values.index.is_unique:
            raise ScmambaError("agreement names a cell twice: make obs_names unique before it is computed.")
        values = values.reindex(mdata.obs_names)
    figure = figure_or_new(figure, WIDTH if mdata is None else 2.15 * WIDTH, HEIGHT)
    label = "agreement" if values.name is None else str(values.name)
    axes = figure.subplots(1, 1 if mdata is None else 2, squeeze=False)[0]
    _draw_histogram(axes[0], values.to_numpy(), threshold, label)
    if mdata is not None:
        _draw_embedding(axes[1], xy, values.to_numpy(), threshold, label)
    return list(axes)


def _draw_histogram(ax: Axes, values: np.ndarray, threshold: float | None, label: str) -> None:
    known = values[np.isfinite(values)]
    lowest, highest = known.min(), known.max()
    if highest - lowest < 1e-6:  # equal values: one bar in the middle, not an axis of rounding errors
        lowest, highest = lowest - 0.5, highest + 0.5
    width = (highest - lowest) / N_BINS
    threshold = -np.inf if threshold is None else threshold
    low = known < threshold
    # an edge at the threshold, so that no bar holds cells of both sides of it
    first = threshold - width * np.ceil((threshold - lowest) / width) if low.any() else lowest
    edges = (first + width * np.arange(N_BINS + 3)).tolist()
    for part, color in ((known[~low], FEW[0]), (known[low], FEW[3])):
        ax.hist(part, bins=edges, color=color, edgecolor=ax.get_facecolor(), linewidth=0.3)
    if low.any():
        ax.axvline(threshold, color="0.5", lw=1, ls=(0, (4, 3)))
        text = f"{low.sum():,} of {len(known):,} cells\nbelow {threshold:g} ({low.mean():.1%})"
        ax.text(
            0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=FONT_SIZE - 1, color=FEW[3], path_effects=rim(ax)
        )  # fmt: skip
        ax.set_ylim(0, ax.get_ylim()[1] * 1.12)  # room for the text
    ax.set_xlabel(label, fontsize=FONT_SIZE)
    ax.set_ylabel("cells", fontsize=FONT_SIZE)
    style_axes(ax)


def _draw_embedding(ax: Axes, xy: np.ndarray, values: np.ndarray, threshold: float | None, label: str) -> None:
    # a few extreme cells must not take up the whole range of colours
    known = np.isfinite(values)
    low, high = np.quantile(values[known], [0.01, 0.99])
    order = np.argsort(-values, kind="stable")[: known.sum()]  # low values on top
    # a few cells are drawn as discs, a hundred thousand as a density
    size = float(np.clip(30_000 / len(xy), 0.6, 22))
    scatter = partial(ax.scatter, rasterized=True)
    scatter(xy[~known, 0], xy[~known, 1], s=size, c=MISSING, linewidths=0)
    drawn = scatter(
        xy[order, 0], xy[order, 1], s=size, c=values[order], linewidths=0, cmap="cividis", vmin=low, vmax=high
    )
    if threshold is not None and (marked := known & (values < threshold)).any():
        scatter(xy[marked, 0], xy[marked, 1], s=2.2 * size, facecolors="none", edgecolors=FEW[3], linewidths=0.7)
        ax.set_xlabel(f"circled: below {threshold:g}", fontsize=FONT_SIZE - 1, color=FEW[3])
    style_plane(ax)
    ax.set_aspect("equal", adjustable="datalim")
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.6, pad=0.02, extend="both")
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=2)
    bar.outline.set_visible(False)
