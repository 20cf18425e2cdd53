"""In which cells do the modalities disagree, and where do these lie?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from ..errors import ScmambaError
from ._palette import FEW, MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

FONT_SIZE: Final = 9.0
#: Inches of a panel.
WIDTH, HEIGHT = 4.0, 3.4
N_BINS: Final = 60


def modality_agreement(
    agreement: pd.Series | np.ndarray,
    mdata: MuData | None = None,
    *,
    threshold: float | None = 0.0,
    basis: str = "X_umap",
    name: str | None = None,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw a histogram of the agreement of the modalities and, beside it, the embedding coloured by it.

    Parameters
    ----------
    agreement
        A column of what :meth:`scmamba_scvi.SCMAMBA.get_modality_agreement` gives, ``"evidence"`` or ``"cosine"``.
        A ``Series`` is aligned with ``mdata`` by the names of cells; an array must be in the order of ``mdata``.
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)``. `None`: the histogram alone.
    threshold
        Cells below are marked in both panels and counted. 0 is where evidence says that the modalities fit no better
        than those of strangers; for cosines choose your own; `None`: no mark.
    basis
        Key of ``mdata.obsm``.
    name
        What the axis is called; `None`: the name of the ``Series``.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    The ``Axes`` of the histogram and, with ``mdata``, of the embedding. Low values are drawn on top, cells without a
    value in grey below.

    Raises
    ------
    ScmambaError
        If no value is finite, cells are not those of ``mdata``, or coordinates are missing.

    Examples
    --------
    >>> axes = pl.modality_agreement(model.get_modality_agreement()["evidence"])
    """
    values = agreement if isinstance(agreement, pd.Series) else pd.Series(np.asarray(agreement, dtype=float).ravel())
    values = values.astype(float)
    if not np.isfinite(values).any():
        raise ScmambaError("agreement holds no finite value; pass a column of model.get_modality_agreement().")
    if mdata is not None:
        values, xy = _aligned(values, isinstance(agreement, pd.Series), mdata, basis)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_layout_engine("constrained")
    figure.set_size_inches(WIDTH if mdata is None else 2.15 * WIDTH, HEIGHT)
    label = name or (str(values.name) if values.name is not None else "agreement")
    axes = figure.subplots(1, 1 if mdata is None else 2, squeeze=False)[0]
    _histogram(axes[0], values.to_numpy(), threshold, label)
    if mdata is not None:
        _embedding(axes[1], xy, values.to_numpy(), threshold, label)
    return list(axes)


def _aligned(values: pd.Series, by_name: bool, mdata: MuData, basis: str) -> tuple[pd.Series, np.ndarray]:
    """Values in the order of ``mdata``, and its coordinates."""
    if basis not in mdata.obsm:
        raise ScmambaError(f"mdata.obsm has no {basis!r} to draw (it has {sorted(mdata.obsm) or 'nothing'}).")
    xy = np.asarray(mdata.obsm[basis], dtype=float)
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise ScmambaError(f"mdata.obsm[{basis!r}] must have two columns, it has shape {xy.shape}.")
    if not by_name:
        if len(values) != mdata.n_obs:
            raise ScmambaError(f"agreement has {len(values):,} values for {mdata.n_obs:,} cells of mdata.")
        return values, xy[:, :2]
    unknown = values.index.difference(mdata.obs_names)
    if len(unknown):
        raise ScmambaError(f"{len(unknown):,} cells of agreement, such as {unknown[0]!r}, are not in mdata.")
    return values.reindex(mdata.obs_names), xy[:, :2]


def _histogram(ax: Axes, values: np.ndarray, threshold: float | None, label: str) -> None:
    known = values[np.isfinite(values)]
    lowest, highest = known.min(), known.max()
    if highest - lowest < 1e-6:  # equal cells: one bar in the middle, not an axis of rounding errors
        lowest, highest = lowest - 0.5, highest + 0.5
    edges = np.linspace(lowest, highest + 1e-9, N_BINS + 1)
    low = known < threshold if threshold is not None else np.zeros(len(known), dtype=bool)
    if low.any() and not low.all():
        # no bar may hold cells of both sides of the threshold
        width = edges[1] - edges[0]
        first = threshold - width * np.ceil((threshold - known.min()) / width)
        edges = first + width * np.arange(N_BINS + 3)
    for part, color in ((known[~low], FEW[0]), (known[low], FEW[3])):
        ax.hist(part, bins=edges.tolist(), color=color, edgecolor="white", linewidth=0.3)
    if threshold is not None and low.any():
        ax.axvline(threshold, color="0.35", lw=1, ls=(0, (4, 3)))
        text = f"{low.sum():,} of {len(known):,} cells\nbelow {threshold:g} ({low.mean():.1%})"
        ax.text(0.03, 0.97, text, transform=ax.transAxes, ha="left", va="top", fontsize=FONT_SIZE - 1, color=FEW[3])
        ax.set_ylim(0, ax.get_ylim()[1] * 1.12)  # room for the words
    ax.set_xlabel(label, fontsize=FONT_SIZE)
    ax.set_ylabel("cells", fontsize=FONT_SIZE)
    ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")


def _embedding(ax: Axes, xy: np.ndarray, values: np.ndarray, threshold: float | None, label: str) -> None:
    known = np.isfinite(values)
    size = float(np.clip(30_000 / len(xy), 0.6, 22))
    x, y = xy.T
    ax.scatter(x[~known], y[~known], s=size, c=MISSING, linewidths=0, rasterized=True)
    order = np.flatnonzero(known)[np.argsort(-values[known], kind="stable")]  # what is low is looked for: on top
    # a handful of extreme cells must not take all the colours
    low, high = np.quantile(values[known], [0.01, 0.99])
    drawn = ax.scatter(x[order], y[order], s=size, c=values[order], cmap="cividis", vmin=low, vmax=high, linewidths=0, rasterized=True)  # fmt: skip
    marked = known & (values < threshold) if threshold is not None else np.zeros(len(xy), dtype=bool)
    if marked.any():
        ax.scatter(
            x[marked], y[marked], s=2.2 * size, facecolors="none", edgecolors=FEW[3], linewidths=0.7, rasterized=True
        )
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.6, pad=0.02, extend="both")
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=2)
    bar.outline.set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    for spine in ax.spines.values():
        spine.set(color="0.75", linewidth=0.6)
