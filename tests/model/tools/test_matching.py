"""True matches across modalities: an exact search, calibrated probabilities, the same result in any order of cells."""

import mudata
import numpy as np
import pytest
import scvi
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax
from shapes import pairs_of_vectors, unit

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import true_match_ranks
from scmamba_scvi.model.fitting.calibration import calibrate, fit_temperature
from scmamba_scvi.model.fitting.held_out import MIN_PAIRS, HeldOut
from scmamba_scvi.model.tools import matching
from scmamba_scvi.model.tools.matching import assign


def rows(mdata, cells):
    with without_pulling():
        return mdata[cells].copy()


@pytest.fixture(scope="module")
def citeseq():
    """A model, the cells it was trained on, and cells of the same kind that it never saw."""
    mdata = simulate_multiome(n_peaks=0, n_proteins=50, n_cells=2000, n_genes=800, n_cell_types=6, seed=3)
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    train, test = rows(mdata, order[:1400]), rows(mdata, order[1400:])
    SCMAMBA.setup_mudata(train, batch_key="batch", labels_key="cell_type")
    scvi.settings.seed = 0  # whatever tests ran before
    model = SCMAMBA(train, encoder="linear")
    model.train(max_epochs=6, enable_progress_bar=False, accelerator="cpu")
    return model, train, test


# -- calibration -----------------------------------------------------------------------------------------------------


def test_temperature_is_the_one_of_known_truth():
    """True matches drawn with probability proportional to exp(cosine / t): the fit returns t."""
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(1500, 6)))
    pool = unit(rng.normal(size=(6000, 6)))
    p = softmax(x @ pool.T / 0.15, axis=1)
    y = pool[[rng.choice(len(pool), p=row / row.sum()) for row in p.astype(np.float64)]]
    assert fit_temperature(x, y) == pytest.approx(0.15, rel=0.07)


def test_temperatures_are_those_of_the_cells_that_have_both(trained):
    """Rows of cells that lack a modality are zero, and as like to each other as can be."""
    x, y = (torch.from_numpy(z) for z in pairs_of_vectors(60, z=64))
    has = {"rna": torch.arange(60) >= 10, "atac": torch.arange(60) < 50}
    held_out = HeldOut({kind: z * has[kind][:, None] for kind, z in (("rna", x), ("atac", y))}, has)
    with torch.inference_mode():
        expected = fit_temperature(*(trained.module.align(z[10:50], k).numpy() for k, z in (("rna", x), ("atac", y))))
    assert calibrate(trained.module, held_out, 0) == {"rna-atac": pytest.approx(expected)}
    few = HeldOut(*({kind: of_cells[: 9 + MIN_PAIRS] for kind, of_cells in part.items()} for part in held_out))
    assert calibrate(trained.module, few, 0) == {}


# -- one to one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 57), (57, 40), (1, 9), (9, 1), (3, 0)])
def test_no_reference_is_given_twice_and_the_sum_of_cosines_is_the_largest(n, m):
    (x, _), (_, y) = pairs_of_vectors(n), pairs_of_vectors(max(m, 1), seed=1)
    y = y[:m]
    found = assign(x, y)
    given = found[found >= 0]
    assert len(np.unique(given)) == len(given) == min(n, m)
    rows, columns = linear_sum_assignment(-(x @ y.T))
    assert (x[found >= 0] * y[given]).sum() == pytest.approx((x[rows] * y[columns]).sum(), abs=1e-4)


def test_more_pairs_than_fit_into_memory_are_refused_with_what_to_do_instead(monkeypatch):
    x, y = pairs_of_vectors(50)
    monkeypatch.setattr(matching, "MAX_PAIRS", 2499)
    with pytest.raises(
        ScmambaError, match="at most 2,499 pairs, and 50 times 50 are more: match the cells of one type"
    ):
        assign(x, y)


# -- a model ----------------------------------------------------------------------------------------------------------


def rank_of_own(found):
    """Rank of each query's own name among its matches, from 1; 0 if it is not among them."""
    hit = found.reference_names.to_numpy()[found.indices] == found.query_names.to_numpy()[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1, 0)


def test_recall_of_held_out_cells_is_that_of_the_metric(citeseq):
    model, _, test = citeseq
    found = model.match_cells(test, test, query_modality="rna", reference_modality="protein", k=10)
    x, y = (model.get_latent_representation(test, modality=kind) for kind in ("rna", "protein"))
    recall = (rank_of_own(found) > 0).mean()
    ranks = true_match_ranks(x, y)
    assert recall == pytest.approx((ranks.closer[0] < 10).mean(), abs=0.005)
    assert recall > 0.35  # 10 of 600 by chance: 0.017


def test_confidence_is_calibrated(citeseq):
    model, _, test = citeseq
    found = model.match_cells(test, test, query_modality="rna", reference_modality="protein", k=10)
    rank = rank_of_own(found)
    assert found.confidence[:, 0].mean() == pytest.approx((rank == 1).mean(), abs=0.06)
    sure = found.confidence.sum(1)
    for part in np.array_split(np.argsort(sure), 3):  # where it is low and where it is high
        assert sure[part].mean() == pytest.approx((rank[part] > 0).mean(), abs=0.12)
    few = model.match_cells(
        rows(test, slice(60)), rows(test, slice(60)), query_modality="rna", reference_modality="protein", k=1
    )
    assert few.confidence.mean() == pytest.approx(
        (rank_of_own(few) == 1).mean(), abs=0.15
    )  # with a tenth of the candidates


def test_order_of_cells_container_and_name_of_the_modality_do_not_matter(citeseq):
    model, _, test = citeseq
    want = model.match_cells(test, test, query_modality="rna", reference_modality="protein", k=3)
    other = test["protein"][::-1].copy()
    assert not other.is_view
    before = list(other.obs)
    found = model.match_cells(
        test["rna"][::-1].copy(), other, query_modality="rna", reference_modality=model.kinds["protein"], k=3
    )
    assert list(found.query_names) == list(test.obs_names[::-1]) and list(other.obs) == before
    np.testing.assert_allclose(found.scores[::-1], want.scores, atol=1e-5)
    assert (
        found.reference_names.to_numpy()[found.indices[::-1]] == want.reference_names.to_numpy()[want.indices]
    ).mean() > 0.999


def test_matches_are_printed_in_one_line(citeseq):
    model, _, test = citeseq
    found = model.match_cells(test, k=2)
    assert repr(found) == "CellMatches: the 2 best of 1,400 cells for each of 600, by to_frame()"


def test_cells_without_the_modality_are_named_not_dropped(citeseq):
    model, _, test = citeseq
    with without_pulling():
        mosaic = mudata.MuData({"rna": test["rna"][20:100].copy(), "protein": test["protein"][:90].copy()})
    mosaic.obs["batch"] = test.obs["batch"].reindex(mosaic.obs_names)
    lacking = ~mosaic.obs_names.isin(mosaic["rna"].obs_names)
    with pytest.warns(UserWarning, match="20 of 100 cells lack rna"):
        found = model.match_cells(
            mosaic, mosaic, query_modality="rna", reference_modality="protein", k=4, one_to_one=True
        )
    assert (found.indices[lacking] == -1).all() and np.isnan(found.scores[lacking]).all()
    assert (found.indices[~lacking] >= 0).all() and np.isfinite(found.confidence[~lacking]).all()
    matched = set(found.reference_names[found.indices[found.indices >= 0]])
    assert matched <= set(mosaic["protein"].obs_names)
    table = found.to_frame()
    assert len(table) == 400 and table["reference"].isna().sum() == 80
    assigned = found.to_series()
    assert list(assigned.index) == list(mosaic.obs_names)
    assert assigned[~lacking].dropna().is_unique and assigned[lacking].isna().all()


def test_saved_and_exported_models_match_alike(citeseq, tmp_path):
    model, train, test = citeseq
    want = model.match_cells(test, test, query_modality="rna", reference_modality="protein", k=2)
    model.save(tmp_path / "saved")
    model.export(tmp_path / "exported")
    for other in (SCMAMBA.load(tmp_path / "saved", adata=train), SCMAMBA.from_export(tmp_path / "exported")):
        found = other.match_cells(
            rows(test, slice(None)), rows(test, slice(None)), query_modality="rna", reference_modality="protein", k=2
        )
        np.testing.assert_allclose(found.confidence, want.confidence, atol=1e-5)


def test_without_held_out_pairs_a_warning_says_that_confidence_is_not_calibrated(trained, monkeypatch):
    monkeypatch.setattr(trained, "match_temperatures_", {})
    with pytest.warns(UserWarning, match="not calibrated"):
        trained.match_cells(k=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"reference_modality": "protein"}, UnknownNameError, "reference_modality 'protein'", id="unknown"),
        pytest.param(
            {"query_modality": "atac", "reference_modality": "atac"},
            ScmambaError,
            "both are atac: name two of",
            id="twice the same",
        ),
        pytest.param({"k": 301}, ScmambaError, "between 1 and the 300 reference cells.*301", id="k beyond the cells"),
        pytest.param({"k": 0}, ScmambaError, "k must be at least 1", id="k of nothing"),
        pytest.param({"adata": np.eye(3)}, ScmambaError, "adata must be a MuData, or an AnnData", id="an array"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(trained, arguments, error, message):
    with pytest.raises(error, match=message):
        trained.match_cells(**arguments)
    with pytest.raises(ScmambaError, match="No one-to-one assignment"):
        trained.match_cells(k=1).to_series()
