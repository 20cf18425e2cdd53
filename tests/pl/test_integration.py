from __future__ import annotations

import copy

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.pl._palette import FEW, MISSING

COLUMNS = ["cell_type", "batch", "leiden_scmamba"]


def embedded(n_types=3, n_batches=2, n=240, seed=0):
    """MuData with coordinates: well separated types on a ring; the atac rows in another order, some absent."""
    rng = np.random.default_rng(seed)
    types = np.arange(n) % n_types
    angle = 2 * np.pi * types / n_types
    xy = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(size=(n, 2))
    names = np.array([f"cell{i}" for i in range(n)])
    mods = {}
    for key, rows in (("rna", np.arange(n)), ("atac", rng.permutation(n)[: n - 10])):
        var = pd.DataFrame(index=[f"{key}0", f"{key}1"])
        mods[key] = ad.AnnData(np.ones((len(rows), 2), np.float32), obs=pd.DataFrame(index=names[rows]), var=var)
        mods[key].obsm["X_umap_scmamba"] = xy[rows]
    mods["rna"].obs["quality"] = rng.random(n)
    mdata = mudata.MuData(mods)
    rows = np.array([int(name.removeprefix("cell")) for name in mdata.obs_names])
    mdata.obsm["X_umap_scmamba"] = xy[rows]
    mdata.obs["cell_type"] = [f"type {t}" for t in types[rows]]
    mdata.obs["batch"] = pd.Categorical([f"donor {b}" for b in rng.integers(n_batches, size=n)])
    mdata.obs["leiden_scmamba"] = pd.Categorical(types[rows].astype(str))
    return mdata


def draw(mdata, *args, **kwargs):
    axes = pl.integration(mdata, *args, figure=Figure(), **kwargs)
    FigureCanvasAgg(axes[0].figure).draw()  # errors of rendering come only then
    return axes


def titles(axes):
    return [ax.get_title() for ax in axes]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_points_carry_the_colour_of_their_own_cell():
    mdata = embedded(n_types=3)
    ax = draw(mdata, "cell_type", modalities=False)[0]
    (points,) = ax.collections
    drawn = {
        tuple(xy): to_hex(c).upper() for xy, c in zip(points.get_offsets().data, points.get_facecolors(), strict=True)
    }
    expected = {f"type {i}": color for i, color in enumerate(FEW[:3])}
    for xy, name in zip(mdata.obsm["X_umap_scmamba"], mdata.obs["cell_type"], strict=True):
        assert drawn[tuple(xy)] == expected[name]


def test_each_cell_stands_once_per_modality_in_mixed_order():
    mdata = embedded()
    ax = draw(mdata, [])[0]
    (points,) = ax.collections
    assert legend_of(ax) == ["rna", "atac"]
    colors = [to_hex(c).upper() for c in points.get_facecolors()]
    assert [colors.count(color) for color in FEW[:2]] == [240, 230]
    # neither modality is drawn wholly on top: both are among the last points
    assert set(colors[-30:]) == set(FEW[:2])


def test_a_kind_of_modality_has_its_colour_whatever_stands_beside_it():
    (points,) = draw(embedded(), [], modalities=["atac"])[0].collections
    assert {to_hex(c).upper() for c in points.get_facecolors()} == {FEW[1]}


def test_coordinates_of_other_tools_are_drawn_in_one_plane_only_if_asked():
    """Scanpy lays out each modality in a plane of its own: one above the other they would look apart."""
    mdata = embedded()
    for part in (mdata, *mdata.mod.values()):
        part.obsm["X_umap"] = part.obsm["X_umap_scmamba"]
    assert titles(draw(mdata, "cell_type", basis="X_umap")) == ["cell_type"]
    assert titles(draw(mdata, "cell_type", basis="X_umap", modalities=["rna", "atac"])) == ["modality", "cell_type"]


def test_a_single_modality_needs_no_list():
    (ax,) = draw(embedded(), modalities="rna")
    assert legend_of(ax) == ["rna"]


def test_axes_say_which_plane_they_are_of():
    axes = draw(embedded(), "cell_type")
    assert [ax.get_xlabel() for ax in axes] == [
        "UMAP 1 of the modalities, a plane of their own",
        "UMAP 1 of the joint embedding",
    ]
    mdata = embedded()
    mdata.obsm["X_pca"] = mdata.obsm["X_umap_scmamba"]
    assert draw(mdata, "cell_type", basis="X_pca")[0].get_xlabel() == "PCA 1 of the joint embedding"


def test_all_panels_share_one_square_plane():
    axes = draw(embedded(), COLUMNS)
    limits = {(ax.get_xlim(), ax.get_ylim()) for ax in axes}
    assert len(limits) == 1
    (x, y) = limits.pop()
    assert x[1] - x[0] == pytest.approx(y[1] - y[0])
    for ax in axes:
        box = ax.get_position()
        width, height = ax.figure.get_size_inches()
        assert box.width * width == pytest.approx(box.height * height)


@pytest.mark.parametrize("n_types", [1, 3, 8, 22, 60])
def test_legends_lie_beside_their_panel_and_inside_the_figure(n_types):
    figure = draw(embedded(n_types=n_types, n_batches=12), COLUMNS)[0].figure
    boxes = [ax.get_window_extent() for ax in figure.axes]
    boxes += [ax.get_legend().get_window_extent() for ax in figure.axes]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= -2 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 + 2
        for other in boxes[i + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 0 or height <= 0


def test_many_types_are_numbered_where_they_are():
    ax = draw(embedded(n_types=22), "cell_type", modalities=False)[0]
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(1, 23)]
    assert legend_of(ax)[2] == "3  type 2"


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_numbers_stand_out_from_their_rim_on_any_background(style):
    with plt.style.context(style):
        ax = draw(embedded(n_types=12), "cell_type", modalities=False)[0]
    (rim,) = ax.texts[0].get_path_effects()
    assert rim._gc["foreground"] == ax.get_facecolor() != to_rgba(ax.texts[0].get_color())


def test_short_names_stand_in_the_plane_themselves():
    ax = draw(embedded(n_types=12), "leiden_scmamba", modalities=False)[0]
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(12)]
    assert legend_of(ax)[:3] == ["0", "1", "2"]


def test_batches_that_mix_have_no_place_for_a_number():
    ax = draw(embedded(n_batches=12), "batch", modalities=False)[0]
    assert not ax.texts
    assert legend_of(ax) == [f"donor {i}" for i in range(12)]  # 10 comes after 9


def test_missing_labels_are_grey_below_the_others_and_named():
    mdata = embedded()
    mdata.obs["cell_type"] = mdata.obs["cell_type"].where(np.arange(240) % 4 > 0)
    ax = draw(mdata, "cell_type", modalities=False)[0]
    colors = [to_hex(c).upper() for c in ax.collections[0].get_facecolors()]
    assert colors[:60] == [MISSING] * 60 and MISSING not in colors[60:]
    assert legend_of(ax) == ["type 0", "type 1", "type 2", "missing"]


@pytest.mark.parametrize(
    ("column", "values", "legend"),
    [
        pytest.param("all_missing", [None] * 240, ["missing"], id="nothing_but_missing"),
        pytest.param("empty_text", ["", "a"] * 120, ["", "a"], id="empty_text"),
        pytest.param("donor", [28045, 10886] * 120, ["10886", "28045"], id="whole_numbers"),
        pytest.param(
            "cluster", [0.0, np.nan, 2.0] * 80, ["0", "2", "missing"], id="whole_numbers_of_which_some_are_missing"
        ),
    ],
)
def test_legend_lists_the_values_of_every_kind_of_column(column, values, legend):
    mdata = embedded()
    mdata.obs[column] = values
    assert legend_of(draw(mdata, column, modalities=False)[0]) == legend


def test_numbers_get_a_colour_bar_also_from_a_modality():
    mdata = embedded()
    mdata.obs["depth"] = np.r_[np.nan, np.arange(239.0)]
    axes = draw(mdata, ["depth", "rna:quality", "quality"], modalities=False)
    assert titles(axes) == ["depth", "rna:quality", "quality"]
    assert all(ax.child_axes for ax in axes)


def test_grey_of_cells_without_a_number_is_explained_below_the_colour_bar():
    mdata = embedded()
    mdata.obs["depth"] = np.arange(240.0)
    mdata.obs["of_some"] = mdata.obs["depth"].where(mdata.obs["depth"] > 9)
    whole, some = draw(mdata, ["depth", "of_some"], modalities=False)
    assert whole.get_legend() is None and legend_of(some) == ["missing"]
    assert some.get_legend().get_window_extent().y1 < some.child_axes[0].get_tightbbox().y0


def test_cells_without_coordinates_are_left_out():
    mdata = embedded()
    mdata.obsm["X_umap_scmamba"][:5] = np.nan
    ax = draw(mdata, "cell_type", modalities=False)[0]
    assert np.isfinite(ax.get_xlim()).all()


def test_points_are_pixels_in_vector_formats():
    assert all(c.get_rasterized() for ax in draw(embedded(), COLUMNS) for c in ax.collections)


def test_drawing_changes_neither_data_nor_settings():
    mdata = embedded()
    settings, state = copy.deepcopy(dict(matplotlib.rcParams)), np.random.get_state()[1].copy()
    before, obs = mdata.copy(), mdata.obs.copy()  # a copied MuData has other types of strings
    draw(mdata, COLUMNS)
    assert dict(matplotlib.rcParams) == settings
    assert (np.random.get_state()[1] == state).all()
    pd.testing.assert_frame_equal(mdata.obs, obs)
    assert set(mdata.obsm) == set(before.obsm) and dict(mdata.uns) == dict(before.uns)


NO_COORDINATES = {"X_umap_scmamba": np.full((240, 2), np.nan)}


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(lambda m: m.obsm.pop("X_umap_scmamba"), {}, ScmambaError, "workflow.integrate", id="no_umap"),
        pytest.param(
            lambda m: m["atac"].obsm.pop("X_umap_scmamba"),
            {"modalities": ["atac"]},
            ScmambaError,
            r"mdata\['atac'\].obsm",
            id="no_umap_of_a_modality",
        ),
        pytest.param(None, {"color": "cell_typ"}, UnknownNameError, "Did you mean 'cell_type'", id="unknown_colour"),
        pytest.param(None, {"modalities": ["adt"]}, UnknownNameError, "'rna', 'atac'", id="unknown_modality"),
        pytest.param(
            lambda m: m.obs.insert(0, "barcode", m.obs_names),
            {"color": "barcode"},
            ScmambaError,
            "240 different",
            id="too_many_values",
        ),
        pytest.param(
            lambda m: m.obsm.update(X_umap_scmamba=np.zeros((240, 1))), {}, ScmambaError, "two columns", id="one_column"
        ),
        pytest.param(lambda m: m.obsm.update(NO_COORDINATES), {}, ScmambaError, "no finite", id="no_coordinates"),
        pytest.param(None, {"color": None}, ScmambaError, r"color must be columns of obs, or \(\) for none", id="no_colour"),
        pytest.param(None, {"color": [], "modalities": False}, ScmambaError, "nothing to colour", id="no_panel"),
    ],
)  # fmt: skip
def test_faults_come_before_a_figure(change, arguments, error, message):
    mdata, figure = embedded(), Figure()
    if change is not None:
        change(mdata)
    with pytest.raises(error, match=message):
        pl.integration(mdata, figure=figure, **arguments)
    assert not figure.axes


def test_one_modality_alone_is_refused():
    with pytest.raises(ScmambaError, match=r"draws a MuData, got AnnData; scanpy's sc.pl.embedding\(adata"):
        pl.integration(embedded()["rna"], color="cell_type", figure=Figure())
