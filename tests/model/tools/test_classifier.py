"""Predicted labels are right as often as their probabilities say, for cells of any set of modalities."""

import json
import re

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import open_mudata, simulate_multiome
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.workflow import write_mudata

QUICK = {"enable_progress_bar": False, "accelerator": "cpu"}


def scores_of(truth, found):
    return {"accuracy": accuracy_score(truth, found), "f1": f1_score(truth, found, average="macro")}


def fitted(mdata, **arguments):
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="label")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**QUICK, **arguments)
    return model


@pytest.fixture(scope="module")
def annotated():
    """A model of cells of which a fifth have no label, and their true labels."""
    mdata = simulate_multiome(n_cells=1500, n_genes=600, n_peaks=2000, n_cell_types=6, seed=5)
    truth = mdata.obs["cell_type"].astype(str).to_numpy()
    hidden = np.random.default_rng(0).random(mdata.n_obs) < 0.2
    mdata.obs["label"] = np.where(hidden, "Unknown", truth)
    model = fitted(mdata, max_epochs=4)
    model.train_classifier()
    return model, mdata, truth, hidden


def of_rna_alone(train, test, labels):
    """What k-NN and logistic regression predict from principal components of log-normalised RNA."""
    logs = [np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1)) for x in (m.X.toarray() for m in (train, test))]
    pca = PCA(50, random_state=0).fit(logs[0])
    known, asked = (pca.transform(x) for x in logs)
    scale = known.std(0)
    return {
        "k-NN": KNeighborsClassifier(15).fit(known, labels).predict(asked),
        "regression": LogisticRegression(max_iter=500).fit(known / scale, labels).predict(asked / scale),
    }


def test_labels_of_held_out_cells_are_no_worse_than_those_from_rna_alone(annotated):
    model, mdata, truth, hidden = annotated
    found = model.predict(indices=hidden)
    ours = scores_of(truth[hidden], found)
    others = of_rna_alone(mdata["rna"][~hidden], mdata["rna"][hidden], truth[~hidden])
    assert ours["accuracy"] > 0.9 and ours["f1"] > 0.8
    for name, theirs in others.items():
        assert ours["accuracy"] >= scores_of(truth[hidden], theirs)["accuracy"] - 0.01, name


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_cells_of_one_modality_get_labels(annotated, kind):
    model, mdata, truth, hidden = annotated
    alone = mdata[kind][hidden][::-1].copy()
    found = model.predict(alone)
    assert (found[::-1] == truth[hidden]).mean() > {"rna": 0.88, "atac": 0.6}[kind]
    np.testing.assert_array_equal(model.predict(indices=hidden, modality=kind), found[::-1])
    classifiers = model.classifier_["by_modalities"]
    assert list(classifiers) == ["rna+atac", "rna", "atac"] and classifiers["rna"] != classifiers["rna+atac"]


def test_probabilities_come_true(annotated):
    model, mdata, truth, hidden = annotated
    p = model.predict(indices=hidden, soft=True)
    assert list(p.index) == list(mdata.obs_names[hidden]) and set(p.columns) == set(truth)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    hard = model.predict(indices=hidden)
    assert (p.idxmax(axis=1).to_numpy() == hard).all()
    assert p.max(axis=1).mean() == pytest.approx((hard == truth[hidden]).mean(), abs=0.04)
    cautious = model.predict(indices=hidden, threshold=0.9)
    np.testing.assert_array_equal(cautious == "unsure", (p.max(axis=1) < 0.9).to_numpy())
    kept = cautious != "unsure"
    assert (cautious[kept] == truth[hidden][kept]).mean() > (hard == truth[hidden]).mean()


def test_a_mosaic_uses_the_classifier_of_what_each_cell_has(annotated):
    model, mdata, *_ = annotated
    with without_pulling():
        mosaic = mudata.MuData({"rna": mdata["rna"][:60].copy(), "atac": mdata["atac"][40:90].copy()})
    mosaic.obs["batch"] = mdata.obs["batch"].reindex(mosaic.obs_names)
    found = model.predict(mosaic, soft=True)
    assert list(found.index) == list(mosaic.obs_names)
    for kind, cells in (("rna", slice(0, 40)), ("atac", slice(60, 90)), (None, slice(40, 60))):
        want = model.predict(indices=np.arange(mdata.n_obs)[cells], modality=kind, soft=True)
        np.testing.assert_allclose(found.loc[want.index], want, atol=1e-4)
    with pytest.warns(UserWarning, match="30 of 90 cells have nothing to predict from"):
        of_rna = model.predict(mosaic, modality="rna")
    assert (np.equal(of_rna, None) == ~mosaic.obs_names.isin(mosaic["rna"].obs_names)).all()


def test_a_classifier_is_saved_and_exported_with_its_model(annotated, tmp_path):
    model, mdata, *_ = annotated
    want = model.predict(soft=True)
    model.save(tmp_path / "saved")
    model.export(tmp_path / "exported")
    for other in (SCMAMBA.load(tmp_path / "saved", adata=mdata), SCMAMBA.from_export(tmp_path / "exported", mdata)):
        pd.testing.assert_frame_equal(other.predict(soft=True), want, atol=1e-6)
    path = tmp_path / "exported" / "model.json"
    described = json.loads(path.read_text())
    described["classifier"]["by_modalities"]["rna"]["bias"] = [0.0]
    path.write_text(json.dumps(described))
    with pytest.raises(ScmambaError, match="do not fit its labels"):
        SCMAMBA.from_export(tmp_path / "exported")


def test_training_again_forgets_the_classifier(mdata):
    mdata.obs["label"] = mdata.obs["cell_type"]
    model = fitted(mdata, max_epochs=2)
    model.train_classifier(mdata, labels_key="cell_type")
    with pytest.warns(UserWarning, match="call train_classifier again"):
        model.train(max_epochs=2, **QUICK)
    with pytest.raises(ScmambaError, match="no classifier yet"):
        model.predict()


def test_a_training_that_fails_before_its_first_epoch_keeps_the_classifier(mdata):
    class Fails(Callback):
        def setup(self, trainer, plan, stage):
            raise RuntimeError("before anything is scored")

    mdata.obs["label"] = mdata.obs["cell_type"]
    model = fitted(mdata, max_epochs=2)
    model.train_classifier(mdata, labels_key="cell_type")
    before = model.predict()
    with pytest.raises(RuntimeError, match="before anything is scored"):
        model.train(max_epochs=2, callbacks=Fails(), **QUICK)
    np.testing.assert_array_equal(model.predict(), before)


@pytest.fixture(scope="module")
def plain():
    """A model of cells without batches, and its data."""
    mdata = simulate_multiome(n_cells=200, n_genes=150, n_peaks=400, n_cell_types=3, seed=1)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=2, **QUICK)
    return model, mdata


def one_cell_of_a_type(labels):
    labels[3] = "rare"
    return labels


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(None, {"labels_key": "cell_typ"}, UnknownNameError, "labels_key 'cell_typ'.*'cell_type'", id="unknown key"),
        pytest.param(None, {}, ScmambaError, "Which labels", id="no key"),
        pytest.param(one_cell_of_a_type, {"labels_key": "label"}, ScmambaError, "Labels of a single cell .*'rare'. Merge them.*replace", id="one cell"),
        pytest.param(lambda x: np.full(len(x), "T"), {"labels_key": "label"}, ScmambaError, "two labels; 'label' has", id="one label"),
        pytest.param(lambda x: np.full(len(x), "Unknown"), {"labels_key": "label"}, ScmambaError, "0 labelled cells", id="no label"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned_are_named(plain, change, arguments, error, message):
    model, mdata = plain
    if change is not None:
        mdata.obs["label"] = change(mdata.obs["cell_type"].astype(str).to_numpy(dtype=object))
    with pytest.raises(error, match=message):
        model.train_classifier(**arguments)


@pytest.mark.parametrize(
    ("unknown", "dtype"), [(-1, "float"), (-1.0, "category"), ("-1", "Float64"), ("-1.0", "object")]
)
def test_a_number_that_stands_for_no_label_is_none_however_it_is_written(plain, unknown, dtype):
    model, mdata = plain
    numbers = mdata.obs["cell_type"].cat.codes.astype(float)
    mdata.obs["number"] = numbers.where(np.arange(200) % 5 > 0, -1.0).astype(dtype)
    model.train_classifier(labels_key="number", unlabeled_category=unknown)
    assert model.classifier_["by_modalities"]["rna"]["classes"] == ["0.0", "1.0", "2.0"]


def test_truth_values_are_no_numbers(plain):
    model, mdata = plain
    mdata.obs["is first"] = mdata.obs["cell_type"] == "type_1"
    model.train_classifier(labels_key="is first", unlabeled_category=1)
    assert set(model.predict()) == {"True", "False"}


def test_the_way_out_of_a_label_with_one_cell_leaves_unlabelled_cells_unlabelled(plain):
    model, mdata = plain
    obs = mdata["rna"].obs
    obs["few"] = pd.Series(one_cell_of_a_type(list(mdata.obs["cell_type"])), obs.index).where(np.arange(200) > 0)
    with pytest.raises(ScmambaError, match="'rare'") as caught:
        model.train_classifier(labels_key="few")
    exec(
        re.search(r"unknown: (.*), in the obs that has", str(caught.value))[1], {"obs": obs}
    )  # in no obs of the MuData
    model.train_classifier(labels_key="few")
    assert set(model.predict()) == set(mdata.obs["cell_type"])


@pytest.mark.filterwarnings("ignore:obs_names are not unique")
def test_names_that_occur_twice_are_named(plain):
    model, mdata = plain
    rna = mdata["rna"].copy()
    model.train_classifier(rna, labels_key="cell_type")
    rna.obs_names = [*rna.obs_names[:-1], rna.obs_names[0]]
    with pytest.raises(ScmambaError, match="1 cell names that occur more than once"):
        model.train_classifier(rna, labels_key="cell_type")
    with pytest.raises(ScmambaError, match="1 cell names that occur more than once"):
        model.predict(rna, modality="rna")


def test_cells_of_a_modality_without_a_classifier_are_refused(plain):
    model, mdata = plain
    model.train_classifier(mdata["rna"], labels_key="cell_type")
    assert list(model.classifier_["by_modalities"]) == ["rna"]
    with pytest.raises(ScmambaError, match="200 cells have atac only, and the classifier was trained on cells with"):
        model.predict(mdata["atac"])


def test_arguments_of_predict_that_cannot_be_used_are_named(annotated):
    model, *_ = annotated
    for threshold in (1.5, "a"):
        with pytest.raises(ScmambaError, match="threshold is a probability"):
            model.predict(threshold=threshold)
    with pytest.raises(UnknownNameError, match="modality 'protein'"):
        model.predict(modality="protein")


def test_labels_in_the_obs_of_each_modality_are_used_together(plain):
    """No cell has both modalities here: labels of the first modality alone would leave the other without a classifier."""
    model, mdata = plain
    mods = {"rna": mdata["rna"][:100].copy(), "atac": mdata["atac"][100:].copy()}
    for mod in mods.values():
        mod.obs["kind"] = mdata.obs["cell_type"].reindex(mod.obs_names)
    with without_pulling():
        apart = mudata.MuData(mods)
    model.train_classifier(apart, labels_key="kind")
    assert list(model.classifier_["by_modalities"]) == ["rna", "atac"]


def test_counts_in_a_file_are_checked_once_however_many_sets_of_modalities_are_embedded(plain, tmp_path, monkeypatch):
    model, mdata = plain
    write_mudata(mudata.MuData(dict(mdata.mod)), tmp_path / "m.h5mu")
    opened, n_read, read = open_mudata(tmp_path / "m.h5mu"), [0], h5py.Dataset.__getitem__

    def counting(dataset, rows, **options):
        found = read(dataset, rows, **options)
        n_read[0] += found.size if dataset.name == "/mod/rna/X/data" else 0
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    model.train_classifier(opened, labels_key="cell_type")
    assert n_read[0] == 3 * mdata["rna"].X.nnz  # to check, of both modalities, of RNA alone
    model.predict(opened, modality="rna")
    assert n_read[0] == 5 * mdata["rna"].X.nnz


# -- real cells -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_batch_of_bone_marrow_labels_the_other_better_than_rna_alone(real_data):
    mdata = mudata.read_h5mu(real_data / "bmmc_cite_starter" / "bmmc_cite_starter.h5mu")
    truth = mdata.obs["cell_type"].astype(str)
    first = (mdata.obs["batch"] == mdata.obs["batch"].iloc[0]).to_numpy()
    counts = truth[first].value_counts()
    known = first & truth.isin(counts.index[counts > 1]).to_numpy()
    asked = ~first & truth.isin(counts.index[counts > 1]).to_numpy()
    mdata.obs["label"] = np.where(known, truth, "Unknown")
    model = fitted(mdata)
    model.train_classifier()
    truth = truth.to_numpy()
    ours = {m: scores_of(truth[asked], model.predict(indices=asked, modality=m)) for m in (None, "rna")}
    for name, found in of_rna_alone(mdata["rna"][known], mdata["rna"][asked], truth[known]).items():
        theirs = scores_of(truth[asked], found)
        for score in ("accuracy", "f1"):
            assert ours[None][score] > theirs[score], (name, score)
            assert ours["rna"][score] > theirs[score] - 0.02, (name, score)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_labels_of_mouse_cortex_are_no_worse_than_those_from_rna_alone(real_data):
    mdata = mudata.read_h5mu(real_data / "snareseq_mouse_cortex" / "snareseq_mouse_cortex.h5mu")
    truth = mdata.obs["cell_type_fine"].astype(str).to_numpy()
    hidden = np.random.default_rng(0).random(mdata.n_obs) < 0.2
    mdata.obs["label"] = np.where(hidden, "Mis", truth)
    SCMAMBA.setup_mudata(mdata, labels_key="label", unlabeled_category="Mis")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**QUICK)
    model.train_classifier()
    asked, known = hidden & (truth != "Mis"), ~hidden & (truth != "Mis")
    ours = scores_of(truth[asked], model.predict(indices=asked))
    for name, found in of_rna_alone(mdata["rna"][known], mdata["rna"][asked], truth[known]).items():
        theirs = scores_of(truth[asked], found)
        assert ours["accuracy"] >= theirs["accuracy"] - 0.005 and ours["f1"] > theirs["f1"], name
