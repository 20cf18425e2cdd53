"""How many neighbours must be searched to find the same cell in the other modality?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_axes
from ._labels import shorten
from ._palette import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of the panel, without the legend.
WIDTH, HEIGHT = 4.2, 3.2
#: When the colours are used up they are repeated with the next of these dashes.
DASHES: Final = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))


def neighborhood_overlap(
    curves: Mapping[str, Any] | pd.DataFrame | np.ndarray,
    *,
    n_pairs: int | None = None,
    log: bool = True,
    figure: Figure | None = None,
) -> Axes:
    """Draw neighbourhood overlap against the number of neighbours, a curve for each method.

    Parameters
    ----------
    curves
        From method to what :func:`scmamba_scvi.metrics.neighborhood_overlap` gives without ``k``: values at 1, 2, 3,
        ... neighbours; or to a ``Series`` whose index is the number of neighbours; or a table of such columns; or one
        array.
    n_pairs
        Number of cells that were scored, for the chance line, ``k / (2 n_pairs - 1)``; ``None`` draws none.
    log
        Whether the axis of neighbours is logarithmic, which shows the nearest ones best, where methods differ.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes``; methods are listed from the highest curve down.

    Raises
    ------
    ScmambaError
        If there is no curve, or one is not of fractions between 0 and 1.

    Examples
    --------
    >>> modalities = [model.get_latent_representation(modality=kind) for kind in model.kinds]
    >>> ax = pl.neighborhood_overlap({"scmamba-scvi": metrics.neighborhood_overlap(*modalities)})
    """
    if n_pairs is not None and n_pairs < 2:
        raise ScmambaError(f"n_pairs must be at least 2 or None (no line of chance); got {n_pairs}.")
    lines = _curves(curves)
    figure = figure_or_new(figure, WIDTH, HEIGHT)
    ax = figure.subplots()
    last = max(curve.index[-1] for curve in lines.values())
    styles = {name: (LINES[i % len(LINES)], DASHES[i // len(LINES) % len(DASHES)]) for i, name in enumerate(lines)}
    for name, curve in sorted(lines.items(), key=lambda item: _mean_height(item[1], log), reverse=True):
        (color, dash), marker = styles[name], "o" if len(curve) == 1 else ""
        ax.plot(curve.index, curve, color=color, ls=dash, lw=1.7, marker=marker, ms=5, label=shorten(name, 32))
    if n_pairs is not None:
        k = np.unique(np.geomspace(1, last, 200).round())
        ax.plot(k, np.minimum(k / (2 * n_pairs - 1), 1), color="0.55", lw=1, ls=(0, (4, 3)), label="chance")
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:,.0f}"))
    ax.set_xlim(1 if log else 0, max(last, 2))
    highest = max(curve.max() for curve in lines.values())
    ax.set_ylim(0, max(1.1 * highest, 0.05) if highest < 0.8 else 1.02)
    ax.set_xlabel("neighbours k", fontsize=FONT_SIZE)
    ax.set_ylabel("cells whose true match is among them", fontsize=FONT_SIZE)
    ax.grid(axis="y", color="0.93", lw=0.8)
    ax.set_axisbelow(True)
    style_axes(ax)
    if len(ax.lines) > 1:
        legend = ax.legend(
            loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=FONT_SIZE, borderaxespad=0
        )
        beside = legend.get_window_extent().width / figure.dpi + 0.25
        figure.set_size_inches(WIDTH + beside, max(HEIGHT, 0.2 * len(lines) + 0.8))
    return ax


def _curves(curves: Mapping[str, Any] | pd.DataFrame | np.ndarray) -> dict[str, pd.Series]:
    """Fractions indexed by the number of neighbours, ascending."""
    if isinstance(curves, pd.Series) or not isinstance(curves, Mapping | pd.DataFrame):
        curves = {"neighbourhood overlap": curves}
    lines = {}
    for name, values in curves.items():
        try:
            curve = values if isinstance(values, pd.Series) else pd.Series(values, index=range(1, len(values) + 1))
            curve = curve.astype(float).dropna().sort_index()
        except (TypeError, ValueError) as error:
            raise ScmambaError(f"The curve of {name!r} must hold numbers: {error}") from error
        if not len(curve) or curve.min() < 0 or curve.max() > 1:
            raise ScmambaError(
                f"The curve of {name!r} must hold fractions between 0 and 1, one for each number of neighbours, as "
                f"metrics.neighborhood_overlap(x, y) gives."
            )
        if not pd.api.types.is_numeric_dtype(curve.index) or curve.index[0] < 1:
            raise ScmambaError(f"The index of {name!r} must be numbers of neighbours from 1; got {curve.index[0]!r}.")
        lines[str(name)] = curve
    if not lines:
        raise ScmambaError("There is no curve to draw: give {'method': metrics.neighborhood_overlap(x, y)}.")
    return lines


def _mean_height(curve: pd.Series, log: bool) -> float:
    """Mean of the curve over the axis as it is drawn."""
    from scipy.integrate import trapezoid

    at = np.log(curve.index.to_numpy(float)) if log else curve.index.to_numpy(float)
    return float(trapezoid(curve, at) / np.ptp(at) if len(curve) > 1 else curve.iloc[0])
