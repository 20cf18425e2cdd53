"""Alignment after training is decided on held-out cells, and users get it everywhere that modalities are compared."""

import copy
import dataclasses

import numpy as np
import pytest
import scvi
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.metrics import other_modality
from scmamba_scvi.model.fitting.alignment import MIN_PAIRS, fit_alignment
from scmamba_scvi.model.fitting.held_out import embed_all

QUICK = {"max_epochs": 6, "enable_progress_bar": False, "accelerator": "cpu"}


def fitted(mdata, **options):
    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear", **options)
    model.train(**QUICK)
    return model


@pytest.fixture(scope="module")
def cells():
    mdata = simulate_multiome(n_cells=1500, n_genes=300, n_peaks=1500, seed=2)
    with without_pulling():
        return mdata[:1000].copy(), mdata[1000:].copy()


@pytest.fixture(scope="module")
def aligned(cells):
    return fitted(cells[0])


def refitted(aligned, train_on, held_out):
    """A copy of the model, of which the alignment is fitted to other cells."""
    model = copy.deepcopy(aligned)
    fit_alignment(model.module, model._matrices(), np.asarray(train_on), held_out, 0)
    return model


def embedded(model, cells):
    with torch.inference_mode():
        return embed_all(model.module, model._matrices(), cells)


def mixing(model, mdata):
    return other_modality(*(model.get_latent_representation(mdata, modality=kind) for kind in model.kinds)).mean()


def test_new_cells_of_both_modalities_lie_together(cells, aligned):
    train, test = cells
    assert mixing(aligned, test) > mixing(fitted(train, align=False), test) + 0.01
    assert mixing(aligned, test) > mixing(fitted(train, negatives="other", align=False), test) + 0.03


def test_alignment_is_saved_and_exported(cells, aligned, tmp_path):
    train, test = cells
    before = aligned.get_latent_representation(test, modality="atac")
    aligned.save(tmp_path / "saved")
    aligned.export(tmp_path / "exported")
    for again in (SCMAMBA.load(tmp_path / "saved", adata=train), SCMAMBA.from_export(tmp_path / "exported")):
        np.testing.assert_allclose(again.get_latent_representation(test, modality="atac"), before, atol=1e-5)


def test_with_few_held_out_pairs_cells_are_recalled_and_moments_stay(aligned):
    held_out = embedded(aligned, np.asarray(aligned.validation_indices)[: MIN_PAIRS - 1])
    alignment = refitted(aligned, aligned.train_indices, held_out).module.alignment
    assert alignment.memory.any() and torch.equal(alignment.map_rna, torch.eye(64)) and not alignment.offset_atac.any()


def test_without_held_out_pairs_embeddings_are_those_of_the_encoders(cells, aligned):
    _, test = cells
    model = refitted(aligned, aligned.train_indices, embedded(aligned, np.asarray(aligned.validation_indices)[:1]))
    z = model.get_latent_representation(test, modality="rna")
    model.module.alignment = None
    np.testing.assert_allclose(model.get_latent_representation(test, modality="rna"), z, atol=1e-6)


def test_memory_with_which_held_out_cells_are_matched_worse_is_not_kept(aligned):
    """Each pair is at one point, where nothing can bring it closer together; all cells are drawn to the same few."""
    assert aligned.module.alignment.memory.any()
    held_out = embedded(aligned, np.asarray(aligned.validation_indices))
    same = held_out._replace(z=dict.fromkeys(held_out.z, held_out.z["rna"]))
    assert not refitted(aligned, aligned.train_indices[:3], same).module.alignment.memory.any()


@pytest.mark.parametrize(
    ("better", "n_cells", "counts"),
    [
        ("rna", 1500, {"rna_counts": 1000, "atac_counts": 150}),
        ("rna", 300, {"rna_counts": 1000, "atac_counts": 150}),  # 30 validation cells
        ("atac", 1500, {"rna_counts": 60, "atac_counts": 3000}),
    ],
)
def test_the_modality_that_tells_more_of_a_cell_is_moved_least(better, n_cells, counts):
    mdata = simulate_multiome(n_cells=n_cells, n_genes=300, n_peaks=1500, seed=0, **counts)
    alignment = fitted(mdata).module.alignment
    weights = {kind: alignment.get_buffer(f"memory_weight_{kind}").item() for kind in ("rna", "atac")}
    assert min(weights, key=weights.get) == better and len(set(weights.values())) == 2


def test_the_option_of_negatives_reaches_the_loss(cells):
    SCMAMBA.setup_mudata(cells[0])
    model = SCMAMBA(cells[0], encoder="linear")
    x, y = np.eye(2, 64, dtype=np.float32)[[0, 0, 1]], np.eye(2, 64, dtype=np.float32)[[0, 1, 1]]
    present = dict.fromkeys(model.kinds, torch.ones(3, dtype=torch.bool))
    outputs = {"z": dict(zip(model.kinds, map(torch.from_numpy, (x, y)), strict=True)), "present": present}
    both = model.module.loss({}, outputs, {}).loss
    model.module.config = dataclasses.replace(model.module.config, negatives="other")
    assert both > model.module.loss({}, outputs, {}).loss
