"""The published shape in two sizes, its published settings, and the remedies that `paper_preset.py` measures one by one."""

from __future__ import annotations

import dataclasses

from .paths import RESULTS as FOLDER

RESULTS = FOLDER / "paper_preset.jsonl"


@dataclasses.dataclass(frozen=True)
class Size:
    """A size of the network and of its training."""

    about: str
    batch_size: int
    epochs: int
    n_train: int | None = None  # training cells; None is all
    options: dict[str, object] = dataclasses.field(default_factory=dict)
    plan: dict[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What differs from the preset, in the network and in its training."""

    about: str
    options: dict[str, object] = dataclasses.field(default_factory=dict)
    plan: dict[str, object] = dataclasses.field(default_factory=dict)


SIZES = {
    "small": Size(
        "3 blocks of width 32 on patches of 256 genes and 2,048 peaks, 4,000 training cells, minibatches of 256. Its step size is "
        "0.002: a narrow network takes larger steps than a wide one, and collapses at this one as the full size does at 0.0005",
        batch_size=256, epochs=20, n_train=4_000, plan={"lr": 2e-3},
        options={"d_model": 32, "headdim": 32, "d_state": 16, "d_mlp": 64, "n_layers": 3,
                 "patch_size": {"rna": 256, "atac": 2048, "protein": 128}},
    ),
    "full": Size(
        "`preset=\"paper\"` as it is, 10 and 12 blocks of width 512, all training cells, minibatches of 512",
        batch_size=512, epochs=20,
    ),
}  # fmt: skip

#: What the paper has, or leaves open and this package had before: no norm before the head, no masking.
PUBLISHED: dict[str, object] = {"pool_norm": "none", "mask_rate": 0.0}
VARIANTS = {
    "as published": Variant("no norm before the head, fixed temperature 0.2, cosine term of weight 1, no masking", PUBLISHED),
    "batch norm": Variant("BatchNorm between the last token and the head", {**PUBLISHED, "pool_norm": "batch"}),
    "masking": Variant("half of the input masked", {**PUBLISHED, "mask_rate": 0.5}),
    "no cosine term": Variant("its weight 0", {**PUBLISHED, "cosine_weight": 0.0}),
    "contrast doubled": Variant("weight 2 of the contrastive loss", {**PUBLISHED, "contrastive_weight": 2.0}),
    "learned temperature": Variant(
        "from 0.07 instead of fixed at 0.2", {**PUBLISHED, "temperature": 0.07, "learn_temperature": True}
    ),
    "small branches": Variant("residual branches multiplied by a vector that starts at 0.1", {**PUBLISHED, "layer_scale": 0.1}),
    "smaller steps": Variant("step size 0.0001", PUBLISHED, {"lr": 1e-4}),
    "mean of the tokens": Variant("instead of the last one", {**PUBLISHED, "pooling": "mean"}),
    "preset": Variant('`preset="paper"`: BatchNorm, a quarter of the input masked'),
    "preset, half masked": Variant("the same with half of the input masked", {"mask_rate": 0.5}),
    "preset, half masked, mean of the tokens": Variant("the same with the mean of the tokens", {"mask_rate": 0.5, "pooling": "mean"}),
}  # fmt: skip
