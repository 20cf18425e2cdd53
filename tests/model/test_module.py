"""The module carries cells to the encoders: those without a modality are zero, and plans of scvi-tools can call it."""

import torch
from scvi.train import TrainingPlan


def counts_of(model, kind, n=6):
    return model.adata_manager.create_torch_dataset()[range(n)][f"X_{kind}"]


def without(x, present):
    """As the loader gives cells without the modality: with nothing stored."""
    return (x.to_dense() * present[:, None]).to_sparse_csr()


def test_rows_of_cells_without_the_modality_are_zero_and_others_do_not_see_them(trained):
    module, x = trained.module.eval(), counts_of(trained, "rna")
    present = torch.tensor([True, False, True, True, False, True])
    with torch.no_grad():
        z, whole = (
            module.encode(without(x, present), "rna", present),
            module.encode(x, "rna", torch.ones(6, dtype=torch.bool)),
        )
    assert (z[~present] == 0).all()
    torch.testing.assert_close(z[present], whole[present])
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(6))


def test_the_joint_embedding_of_a_cell_without_any_modality_is_zero(trained):
    module = trained.module.eval()
    here = torch.tensor([True] * 5 + [False])
    counts = {kind: without(counts_of(trained, kind), here) for kind in module.kinds}
    with torch.no_grad():
        z = module.embed_jointly(counts, dict.fromkeys(module.kinds, here))
    assert (z[5] == 0).all()
    torch.testing.assert_close(z[:5].norm(dim=1), torch.ones(5))


def test_the_alignment_is_not_rounded_by_autocast(trained):
    """Confidences are fitted while a GPU trains in bf16, to the vectors that users get afterwards."""
    module = trained.module.eval()
    with torch.no_grad():
        z = module.encode(counts_of(trained, "rna"), "rna")
        exact = module.align(z, "rna")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module.align(z, "rna"), exact)
    assert not torch.allclose(exact, z)


def test_a_training_plan_of_scvi_tools_can_call_the_module(trained):
    """With options for parts of a variational module, and for outputs without a loss."""
    batch = trained.adata_manager.create_torch_dataset()[range(12)]
    outputs, _ = TrainingPlan(trained.module).forward(batch, compute_loss=False)
    assert outputs["z"]["rna"].shape == (12, 64)
