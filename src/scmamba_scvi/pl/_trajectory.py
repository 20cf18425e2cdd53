"""Cells coloured by their pseudotime."""

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from .._keys import UMAP_KEY
from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_color_bar
from ._cells import aligned, coordinates, draw_values

#: Inches of a panel with its title.
SIDE: Final = 4.2


def trajectory(
    mdata: MuData,
    pseudotime: pd.DataFrame | pd.Series,
    *,
    basis: str = UMAP_KEY,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the cells coloured by pseudotime, one panel per embedding.

    Parameters
    ----------
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)``.
    pseudotime
        What :meth:`scmamba_scvi.SCMAMBA.get_pseudotime` gives, one panel per column; or one of its columns. Aligned by
        the names of cells.
    basis
        Key of ``mdata.obsm``.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per panel. Cells without a pseudotime are grey.

    Examples
    --------
    >>> mdata.obsm["X_umap_scmamba"] = model.get_latent_representation()[:, :2]  # any two coordinates
    >>> axes = pl.trajectory(mdata, model.get_pseudotime(root="type_1", groupby="cell_type")["joint"])
    """
    table = aligned(pd.DataFrame(pseudotime), mdata, "pseudotime")
    xy = coordinates(mdata, basis)
    if not np.isfinite(table.to_numpy(dtype=float)).any():
        raise ScmambaError("pseudotime holds no finite value; pass what model.get_pseudotime() gives.")
    figure = figure_or_new(figure, SIDE * table.shape[1] + 0.8, SIDE)
    axes = figure.subplots(1, table.shape[1], squeeze=False)[0]
    for ax, name in zip(axes, table, strict=True):
        points = draw_values(ax, xy, table[name].to_numpy(dtype=float), cmap="viridis", vmin=0, vmax=1)
        ax.set_title(str(name), fontsize=FONT_SIZE + 1)
    style_color_bar(figure.colorbar(points, ax=list(axes), shrink=0.6, pad=0.02), "pseudotime")
    return list(axes)
