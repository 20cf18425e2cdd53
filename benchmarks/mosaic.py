"""Cells that lack a modality beside cells that have both: do they help, and what is known of them afterwards?

    python benchmarks/mosaic.py
    python benchmarks/mosaic.py --sets pbmc_reapseq

Of the training cells of a set a third loses one modality. Three models: of all cells whole, of the whole two thirds alone,
and of the mosaic. Scores are of the held-out fifth, and of the cells that lost something: recall of their lost profile
(the embedding of what they kept against embeddings of what they lost) and the cosine of their joint embedding with the one that
they have whole. Writes benchmarks/results/mosaic.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from harness.after import fitted, get_set, parser, run
from harness.sets import DataSet, kinds_of, train_and_test

if TYPE_CHECKING:
    from mudata import MuData

    from scmamba_scvi import SCMAMBA

NAMES = ("bmmc_cite_starter", "multiome_weak_batches", "pbmc_reapseq")
FRACTION = 1 / 3


def without(mdata: MuData, kind: str, names: np.ndarray, *, altogether: bool) -> MuData:
    """The cells ``names`` without one modality, or not there at all."""
    import mudata

    from scmamba_scvi._compat import without_pulling

    lost = {key for k, key in kinds_of(mdata).items() if altogether or k == kind}
    left = {key: mod[~mod.obs_names.isin(names)] if key in lost else mod for key, mod in mdata.mod.items()}
    with without_pulling():
        out = mudata.MuData({key: mod.copy() for key, mod in left.items() if mod.n_obs})
    for column in mdata.obs:
        out.obs[column] = mdata.obs[column].reindex(out.obs_names)
    return out


def scores(model: SCMAMBA, train: MuData, test: MuData, dataset: DataSet) -> dict[str, float]:
    """Scores of held-out cells. Every model's cell types are voted by the same training cells: all of them, with both modalities."""
    from sklearn.neighbors import KNeighborsClassifier

    from scmamba_scvi import metrics

    embeddings = [model.get_latent_representation(test, modality=kind) for kind in model.kinds]
    ranks = metrics.true_match_ranks(*embeddings)
    out = {"FOSCTTM": float(np.mean(ranks.fractions)), "recall@10": float(ranks.recall(10)[0])}
    if dataset.labels_key is not None:
        z, z_test = (model.get_latent_representation(mdata) for mdata in (train, test))
        labels, truth = (mdata.obs[dataset.labels_key].astype(str) for mdata in (train, test))
        out["kNN accuracy"] = float(KNeighborsClassifier(15).fit(z, labels).score(z_test, truth))
    return out


def scores_of_incomplete(model: SCMAMBA, whole: MuData, kind: str, names: np.ndarray) -> dict[str, float]:
    """Scores of the cells ``names``, which lost ``kind``: their embedding without it beside that with it."""
    from scmamba_scvi import metrics

    had = whole[names].copy()
    lost = without(had, kind, names, altogether=False)
    z, truth = model.get_latent_representation(lost), model.get_latent_representation(had)
    z = z[lost.obs_names.get_indexer(had.obs_names)]
    other = next(k for k in model.kinds if k != kind)
    embeddings = [model.get_latent_representation(had, modality=k) for k in (other, kind)]
    ranks = metrics.true_match_ranks(*embeddings)
    return {"cells": len(names), "cosine with whole": float((z * truth).sum(1).mean()),
            "FOSCTTM of lost profile": float(np.mean(ranks.fractions)), "recall@10": float(ranks.recall(10)[0])}  # fmt: skip


def measure(name: str, seed: int) -> dict[str, object]:
    dataset = get_set(name)
    train, test = train_and_test(dataset)
    names = np.random.default_rng(seed).choice(train.obs_names, round(FRACTION * train.n_obs), replace=False)
    kinds = list(kinds_of(train))
    whole = without(train, kinds[0], names, altogether=True)
    out: dict[str, object] = {
        "training cells": train.n_obs, "held-out cells": test.n_obs,
        "all whole": scores(fitted(dataset, train.copy(), seed), train, test, dataset),
        "two thirds whole": scores(fitted(dataset, whole, seed), train, test, dataset),
    }  # fmt: skip
    for kind in kinds:
        model = fitted(dataset, without(train, kind, names, altogether=False), seed)
        of_these = scores_of_incomplete(model, train, kind, names)
        out[f"a third without {kind}"] = scores(model, train, test, dataset) | {"these cells": of_these}
    return out


def main(argv: list[str] | None = None) -> None:
    run("mosaic", measure, parser(__doc__, NAMES).parse_args(argv))


if __name__ == "__main__":
    main()
