"""Real data from file to embedding with defaults: cells that training never saw find their partners."""

import dataclasses

import mudata
import numpy as np
import pytest

from scmamba_scvi import SCMAMBA, read
from scmamba_scvi.data import open_mudata
from scmamba_scvi.metrics import foscttm, true_match_ranks
from scmamba_scvi.model.tools.query import MIN_OVERLAP
from scmamba_scvi.pp.coordinates import parse_coordinates
from scmamba_scvi.pp.overlap import best_overlaps

pytestmark = pytest.mark.filterwarnings("ignore")


def split(mdata, n_cells=None):
    order = np.random.default_rng(0).permutation(mdata.n_obs)[:n_cells]
    cut = len(order) // 5
    return mdata[np.sort(order[cut:])].copy(), mdata[np.sort(order[:cut])].copy()


def fit(train, encoder="mamba", **arguments):
    SCMAMBA.setup_mudata(train)
    model = SCMAMBA(train, encoder=encoder)
    model.train(enable_progress_bar=False, accelerator="cpu", **arguments)
    return model


def views(model, mdata):
    return [model.get_latent_representation(mdata, modality=kind) for kind in model.kinds]


def test_new_cells_find_their_partners_in_rna_and_protein(real_data):
    train, test = split(mudata.read_h5mu(real_data / "bmmc_cite_starter" / "bmmc_cite_starter.h5mu"))
    model = fit(train)
    assert model.kinds == {"rna": "rna", "protein": "prot"}
    x, y = views(model, test)
    assert np.mean(foscttm(x, y)) < 0.06  # canonical correlation without weights: 0.068, chance: 0.5
    assert true_match_ranks(x, y).recall(10)[0] > 0.7


def test_new_cells_find_their_partners_in_rna_and_accessibility(real_data):
    path = real_data / "snareseq_mouse_cortex" / "snareseq_mouse_cortex.h5mu"
    train, test = split(mudata.read_h5mu(path), n_cells=3000)
    model = fit(train, max_epochs=8)
    x, y = views(model, test)
    assert np.mean(foscttm(x, y)) < 0.2
    assert np.mean(foscttm(x, y[np.random.default_rng(0).permutation(len(y))])) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_chance_calls_about_a_quarter_of_the_links_of_mouse_cortex(real_data):
    """Of genes that are moved to another chromosome no link is true."""
    mdata = mudata.read_h5mu(real_data / "snareseq_mouse_cortex" / "snareseq_mouse_cortex.h5mu")
    model = fit(mdata, encoder="linear")
    table, rng = model.get_region_links(), np.random.default_rng(0)
    called = table["q"] < 0.1
    places = mdata["rna"].var[["chrom", "start", "end", "strand"]]
    by_chance = []
    for _ in range(5):
        rows = rng.permutation(len(places))
        mdata["rna"].var[places.columns] = places.iloc[rows].to_numpy()
        moved = mdata["rna"].var_names[places["chrom"].to_numpy() != places["chrom"].to_numpy()[rows]]
        null = model.get_region_links(genes=moved[mdata["rna"].var.loc[moved, "chrom"] != ""])["p"].dropna()
        by_chance.append([(null < p).mean() for p in (0.05, 0.001, table["p"][called].max())])
    below_05, below_001, as_low = np.mean(by_chance, axis=0)
    assert below_05 == pytest.approx(0.07, abs=0.01) and below_001 == pytest.approx(0.003, abs=0.001)
    assert as_low * table["p"].notna().sum() / called.sum() == pytest.approx(0.25, abs=0.1)


def test_intervals_as_10x_writes_them_place_every_peak(real_data):
    # written before modalities were marked as AnnData: mudata 0.4 cannot read it
    mdata = open_mudata(real_data / "pbmc_multiome_tiny_muon" / "test_rna_atac.h5mu")
    model = fit(mdata, max_epochs=3)
    assert model.layouts["atac"].n_placed == mdata["atac"].n_vars == 174
    assert np.isfinite(model.get_latent_representation()).all()


def test_peaks_of_another_caller_overlap_and_those_of_another_build_do_not(real_data):
    """Moved by the width of a peak, as callers differ, and by as much as builds differ."""
    var = open_mudata(real_data / "snareseq_mouse_cortex" / "snareseq_mouse_cortex.h5mu")["atac"].var
    peaks = parse_coordinates(var)

    def share(bases):
        moved = dataclasses.replace(peaks, start=peaks.start + bases, end=peaks.end + bases)
        return (best_overlaps(moved, peaks)[peaks.placed] >= 0).mean()

    assert share(100) > 0.75 > MIN_OVERLAP > 0.05 > share(100_000)


def test_the_workflow_goes_from_file_to_file(real_data, tmp_path):
    from scmamba_scvi import workflow

    mdata = read(real_data / "bmmc_cite_starter" / "bmmc_cite_starter.h5mu")
    model = workflow.integrate(
        mdata, batch_key="batch", labels_key="cell_type", max_epochs=3, enable_progress_bar=False
    )
    workflow.write_mudata(mdata, tmp_path / "out.h5mu")
    back = mudata.read_h5mu(tmp_path / "out.h5mu")
    np.testing.assert_allclose(back.obsm["X_scmamba"], model.get_latent_representation(), atol=1e-6)
    assert set(back["rna"].obsm) >= {"X_scmamba", "X_umap_scmamba"} and "leiden_scmamba" in back.obs
