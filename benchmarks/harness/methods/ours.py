"""This package: its defaults, simpler versions of them, and the published shape."""

from __future__ import annotations

from ..sets import REAL, Task
from ._method import Embeddings, Fitted, Limit, Method


def scmamba(
    plan: dict[str, object] | None = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    told_batches: bool = True,
    **overrides,
):
    """`SCMAMBA` with ``overrides`` of its options and ``plan`` of those of training."""

    def fit(task: Task, seed: int) -> Fitted:
        import scvi

        from scmamba_scvi import SCMAMBA

        scvi.settings.seed = seed
        SCMAMBA.setup_mudata(task.train, modalities=task.keys, batch_key=task.batch_key if told_batches else None)
        model = SCMAMBA(task.train, **overrides)
        model.train(
            enable_progress_bar=False, plan_kwargs=dict(plan or {}), batch_size=batch_size, max_epochs=max_epochs
        )
        embeddings = embeddings_of(model, task)
        notes = {
            "epochs": len(model.history["foscttm_validation"]),
            "network kept": network_kept(model),
            **sizes(model),
        }
        return Fitted(embeddings, {**notes, "validation FOSCTTM": model.training_summary_["best"]})

    return fit


def tuned(grid: list[dict[str, object]], **overrides):
    """The fit of ``grid`` with the best FOSCTTM among the validation cells, which are taken from the training cells."""

    def fit(task: Task, seed: int) -> Fitted:
        fits = [scmamba(**overrides, **choice)(task, seed) for choice in grid]
        best = min(range(len(grid)), key=lambda i: fits[i].notes["validation FOSCTTM"])
        return Fitted(fits[best].embeddings, {**fits[best].notes, "chosen": grid[best]})

    return fit


def embeddings_of(model, task: Task) -> Embeddings:
    """The joint embedding of training and held-out cells, and that of each modality."""
    return {
        name: tuple(model.get_latent_representation(cells, modality=kind) for cells in (task.train, task.test))
        for name, kind in {"joint": None, **{kind: kind for kind in model.kinds}}.items()
    }


def network_kept(model) -> bool | None:
    """Whether training the network after the linear branch improved matching; None if there was one stage only."""
    best, starts = (model.training_summary_[key] for key in ("best_epoch", "stage_starts"))
    return best is not None and best >= starts[1] if len(starts) > 1 else None


def sizes(model) -> dict[str, object]:
    """Number of parameters and of patches, for the notes of a result."""
    return {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "patches": {kind: layout.n_patches for kind, layout in model.layouts.items()},
    }


#: The published shape in a size that two cores can train.
PAPER_SHAPE = {
    "preset": "paper", "d_model": 128, "n_layers": 2, "d_state": 64, "headdim": 64, "d_mlp": 256,
    "attention_layers": (), "patch_size": {"rna": 64, "atac": 256, "protein": 16},
}  # fmt: skip

ON_REAL = Limit(REAL, "a variant of ours: on real cells alone")
ON_SOME = Limit(
    frozenset({"bmmc_cite_starter", "bmmc_multiome_5k"}), "a variant of ours: on two sets of bone marrow alone"
)

METHODS = [
    Method("scmamba-scvi", "the defaults of this package", scmamba()),
    Method(
        "scmamba-scvi base", "`preset='base'`, 4 blocks of width 256", scmamba(preset="base"), n_seeds=1,
        limit=Limit(frozenset({"bmmc_cite_starter", "pbmc_multiome_tiny_muon"}), "hours without a GPU: on the two smallest sets alone"),
    ),
    Method(
        "scmamba-scvi, no batch_key", "the defaults, not told the batches, as the methods that correct none", scmamba(told_batches=False),
        batches=True, limit=ON_REAL,
    ),
    Method("linear", "`encoder='linear'`: the spectral initialization trained with our loss, no network", scmamba(encoder="linear")),
    Method(
        "MLP", "`encoder='mlp'` beside the spectral initialization, same loss, masking and early stopping", scmamba(encoder="mlp"),
        limit=ON_REAL,
    ),
    Method(
        "MLP, tuned", "the same, the best of 2 widths and 2 dropout rates on the validation cells",
        tuned([{"d_model": d, "dropout": r} for d in (64, 256) for r in (0.1, 0.4)], encoder="mlp"),
        limit=ON_SOME,
    ),
    Method(
        "MLP alone", "the same without the spectral initialization and the linear branch",
        scmamba(encoder="mlp", linear_branch=False, spectral=False, gate_init=1.0), n_seeds=1,
        limit=ON_REAL,
    ),
    Method(
        "scmamba-scvi from nothing", "the default network without the spectral initialization and the linear branch",
        scmamba(linear_branch=False, spectral=False, gate_init=1.0, layer_scale=None), n_seeds=1, limit=ON_SOME,
    ),
    Method(
        "paper's shape", "shared projection, last token, no linear branch, as published; 2 layers of 128 instead of "
        "10 and 12 of 512", scmamba(**PAPER_SHAPE), n_seeds=1, limit=ON_SOME,
    ),
    Method(
        "paper's preset", "`preset='paper'`: the published shape and size", scmamba(preset="paper"), n_seeds=1,
        limit=Limit(frozenset(), "hours without a GPU: {doc}`paper-preset` has what it reaches on one"),
    ),
    Method(
        "scCLIP (our version)", "transformer blocks on shared projections of patches, mean pooling, contrastive loss alone",
        scmamba(**{**PAPER_SHAPE, "attention_layers": (0, 1), "pooling": "mean", "pool_norm": "none"},
                cosine_weight=0.0, learn_temperature=True, temperature=0.07),
        n_seeds=1, limit=ON_SOME,
    ),
]  # fmt: skip
