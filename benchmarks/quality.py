"""How well held-out cells are embedded: one JSON line per (method, set, seed).

Every method is fitted on 80 % of the cells and scored on the others, which it never sees; labels reach no method.
The split is the one of `numpy.random.default_rng(0)`, its first fifth is held out.

    python benchmarks/quality.py                                # every method on every set that is there
    python benchmarks/quality.py --sets snareseq_mouse_cortex --methods scmamba linear --seeds 0 1 2
    python benchmarks/quality.py --table                        # write docs/benchmarks.md from the results
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quality.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"
DATA = Path(os.environ.get("SCMAMBA_DATA", ROOT.parent / "shared" / "data"))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Where a set is, and what of it is scored."""

    path: str
    label: str | None = None
    ignore: tuple[str, ...] = ()  # labels that mean "not known"
    batch: str | None = None


SETS = {
    "snareseq_mouse_cortex": DataSet("snareseq_mouse_cortex/snareseq_mouse_cortex.h5mu", "cell_type", ("Mis",)),
    "bmmc_cite_starter": DataSet("bmmc_cite_starter/bmmc_cite_starter.h5mu", "cell_type", batch="batch"),
    "pbmc_reapseq": DataSet("pbmc_reapseq/pbmc_reapseq.h5mu", batch="batch"),
    "pbmc_multiome_tiny_muon": DataSet("pbmc_multiome_tiny_muon/test_rna_atac.h5mu"),
}

#: Embeddings of training and of held-out cells: one of each view and the joint one, all ``(cells, dimensions)``.
Embeddings = dict[str, tuple[np.ndarray, np.ndarray]]


def scmamba(**overrides: object) -> Callable:
    """The model of this package with its defaults, or with what is overridden."""

    def fit(train, test, seed: int) -> Embeddings:
        import scvi

        from scmamba_scvi import SCMAMBA

        scvi.settings.seed = seed
        SCMAMBA.setup_mudata(train)
        model = SCMAMBA(train, **overrides)
        model.train(enable_progress_bar=False)
        views = {"joint": None, **dict(zip(("x", "y"), model.kinds, strict=True))}
        return {
            name: (model.get_latent_representation(train, kind), model.get_latent_representation(test, kind))
            for name, kind in views.items()
        }

    return fit


def weighted_cca(train, test, seed: int) -> Embeddings:
    """Correlation-weighted CCA of 50 principal components of each view, written with scikit-learn alone."""
    from sklearn.decomposition import TruncatedSVD

    scores = []
    for key in train.mod:
        x, y = simple_values(train[key], test[key], key)
        mean = x.mean(0)
        svd = TruncatedSVD(min(50, x.shape[1] - 1), random_state=seed).fit(x)
        offset = np.asarray(mean).ravel() @ svd.components_.T
        scores.append((x @ svd.components_.T - offset, y @ svd.components_.T - offset))
    (a, a_test), (b, b_test) = scores
    wa, wb = (_inverse_sqrt(np.cov(s.T, bias=True)) for s in (a, b))
    u, correlations, vt = np.linalg.svd(wa @ (a.T @ b / len(a)) @ wb)
    k = len(correlations)
    ma, mb = wa @ u[:, :k] * correlations, wb @ vt.T[:, :k] * correlations
    views = {"x": (_unit(a @ ma), _unit(a_test @ ma)), "y": (_unit(b @ mb), _unit(b_test @ mb))}
    joint = tuple(views["x"][i] + views["y"][i] for i in (0, 1))
    return {**views, "joint": joint}


def single_modality(position: int) -> Callable:
    """PCA / LSI of one modality alone, the yardstick for telling cell types apart."""

    def fit(train, test, seed: int) -> Embeddings:
        from sklearn.decomposition import TruncatedSVD

        key = list(train.mod)[position]
        x, y = simple_values(train[key], test[key], key)
        svd = TruncatedSVD(min(50, x.shape[1] - 1), random_state=seed).fit(x)
        return {"joint": (svd.transform(x), svd.transform(y))}

    return fit


METHODS: dict[str, Callable] = {
    "scmamba": scmamba(),
    "linear": scmamba(encoder="linear"),
    "mlp": scmamba(encoder="mlp"),
    "weighted CCA": weighted_cca,
    "first modality alone": single_modality(0),
    "second modality alone": single_modality(1),
}


def simple_values(train, test, key: str):
    """Log-normalised RNA, unit-length tf-idf of accessibility, centred log-ratio of protein."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    a, b = sparse.csr_matrix(train.X), sparse.csr_matrix(test.X)
    if key in ("prot", "protein", "adt"):
        return tuple(np.log1p(m.toarray()) - np.log1p(m.toarray()).mean(1, keepdims=True) for m in (a, b))
    if key == "atac":
        a, b = (m > 0 for m in (a, b))
        idf = np.log1p(a.shape[0] / np.maximum(np.asarray(a.sum(0)).ravel(), 1))
        unit = TfidfTransformer(use_idf=False)
        return tuple(unit.fit_transform(m.astype(np.float64) @ sparse.diags(idf)) for m in (a, b))
    return tuple(sparse.diags(1e4 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)).dot(m).log1p() for m in (a, b))


def score(embeddings: Embeddings, train, test, data: DataSet) -> dict[str, float]:
    """Matching of the held-out views, and cell types of held-out cells from the joint embedding."""
    from scmamba_scvi.metrics import foscttm, recall_at_k

    scores: dict[str, float] = {}
    if "x" in embeddings:
        x, y = embeddings["x"][1], embeddings["y"][1]
        scores["foscttm"] = float(np.mean(np.concatenate(foscttm(x, y))))
        scores["recall@10"] = recall_at_k(x, y, 10)
        scores["recall@1"] = recall_at_k(x, y, 1)
        scores["modality_gap"] = float(np.linalg.norm(x.mean(0) - y.mean(0)))
    if data.label is not None:
        scores |= score_types(*embeddings["joint"], train, test, data)
    return scores


def score_types(z_train, z_test, train, test, data: DataSet) -> dict[str, float]:
    """Accuracy of 15 nearest neighbours and best ARI / NMI over 20 Leiden resolutions (paper, section 4.2.1)."""
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier

    of_train, of_test = (m.obs[data.label].astype(str).to_numpy() for m in (train, test))
    known_train, known_test = (~np.isin(labels, data.ignore) for labels in (of_train, of_test))
    knn = KNeighborsClassifier(15, metric="cosine").fit(z_train[known_train], of_train[known_train])
    cells = AnnData(obsm={"z": z_test[known_test]}, obs=pd.DataFrame(index=np.arange(known_test.sum()).astype(str)))
    sc.pp.neighbors(cells, use_rep="z", transformer="sklearn", metric="cosine")
    ari, nmi = [], []
    for resolution in np.arange(0.1, 2.01, 0.1):
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, directed=False)
        ari.append(adjusted_rand_score(of_test[known_test], cells.obs["leiden"]))
        nmi.append(normalized_mutual_info_score(of_test[known_test], cells.obs["leiden"]))
    accuracy = knn.score(z_test[known_test], of_test[known_test])
    return {"knn_accuracy": float(accuracy), "ari": float(max(ari)), "nmi": float(max(nmi))}


def runs(sets: list[str], methods: list[str], seeds: list[int]) -> Iterator[dict]:
    """Results, one by one."""
    import mudata

    for name in sets:
        data = SETS[name]
        path = DATA / data.path
        if not path.exists():
            print(f"{name}: skipped, {path.name} is not in SCMAMBA_DATA", file=sys.stderr)
            continue
        whole = mudata.read_h5mu(path)
        order = np.random.default_rng(0).permutation(whole.n_obs)
        cut = whole.n_obs // 5
        train, test = whole[np.sort(order[cut:])].copy(), whole[np.sort(order[:cut])].copy()
        for method in methods:
            for seed in seeds if METHODS[method].__qualname__.startswith("scmamba") else seeds[:1]:
                begun = time.perf_counter()
                embeddings = METHODS[method](train, test, seed)
                seconds = time.perf_counter() - begun
                yield {
                    "method": method, "set": name, "seed": seed, **score(embeddings, train, test, data),
                    "fit_and_embed_s": round(seconds, 1), "cells": train.n_obs, **machine(),
                }  # fmt: skip


def machine() -> dict[str, object]:
    """What a number depends on beside the code."""
    import torch

    return {
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cpu_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "versions": {n: version(n) for n in ("scmamba-scvi", "scvi-tools", "torch", "scanpy", "anndata", "numpy")}
        | {"python": platform.python_version()},
    }


def write_table() -> None:
    """Mean over seeds of every score, a table per set, into docs/benchmarks.md."""
    frame = pd.DataFrame([json.loads(line) for line in RESULTS.read_text().splitlines()])
    columns = ["foscttm", "recall@10", "recall@1", "knn_accuracy", "ari", "nmi", "fit_and_embed_s"]
    lines = [
        "# Benchmarks",
        "",
        "Every method is fitted on 80 % of the cells and scored on the other 20 %, which it never sees; labels reach no",
        "method. Mean over the seeds, standard deviation behind it where there are several. FOSCTTM: share of cells closer",
        "than the true partner, 0 is perfect, 0.5 is chance. Recall@k: share of cells whose partner is among the k nearest.",
        "kNN accuracy, ARI (best of 20 Leiden resolutions) and NMI: cell types in the joint embedding of held-out cells.",
        "Written by `python benchmarks/quality.py --table` from `benchmarks/results/quality.jsonl`.",
    ]
    for name, of_set in frame.groupby("set", sort=False):
        shown = [c for c in columns if c in of_set and of_set[c].notna().any()]
        lines += [
            "",
            f"## {name}",
            "",
            "| method | seeds | " + " | ".join(shown) + " |",
            "|---|---|" + "---|" * len(shown),
        ]
        for method, rows in of_set.groupby("method", sort=False):
            cells = [_mean(rows[c]) for c in shown]
            lines.append(f"| {method} | {len(rows)} | " + " | ".join(cells) + " |")
    versions = ", ".join(f"{k} {v}" for k, v in frame["versions"].iloc[-1].items())
    lines += [
        "",
        f"Measured with {versions}, {frame['cpu_threads'].iloc[-1]} threads of {frame['device'].iloc[-1]}.",
        "",
    ]
    PAGE.write_text("\n".join(lines))


def _mean(values: pd.Series) -> str:
    if values.isna().all():
        return ""
    digits = 1 if values.name.endswith("_s") else 3
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def _inverse_sqrt(covariance: np.ndarray, ridge: float = 1e-2) -> np.ndarray:
    values, vectors = np.linalg.eigh(
        covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    return vectors / np.sqrt(values) @ vectors.T


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main() -> None:
    """Run, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only write docs/benchmarks.md from the results")
    arguments = parser.parse_args()
    if not arguments.table:
        warnings.simplefilter("ignore")
        RESULTS.parent.mkdir(exist_ok=True)
        for result in runs(arguments.sets, arguments.methods, arguments.seeds):
            print(
                {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items() if k != "versions"},
                flush=True,
            )
            kept = [] if not RESULTS.exists() else [json.loads(line) for line in RESULTS.read_text().splitlines()]
            same = ("method", "set", "seed")
            kept = [r for r in kept if any(r[k] != result[k] for k in same)]
            RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*kept, result]))
    write_table()


if __name__ == "__main__":
    main()
