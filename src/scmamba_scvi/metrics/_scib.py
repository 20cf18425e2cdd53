"""The scores of scib-metrics, by its own Benchmarker."""

import numpy as np
import pandas as pd

from .._keys import JOINT
from ..errors import ScmambaError
from ._inputs import Inputs

#: The Benchmarker looks at so many neighbours.
N_NEIGHBORS = 90


def scib_scores(inputs: Inputs, progress: bool) -> pd.DataFrame:
    """Joint embeddings in rows; columns of two levels, the Benchmarker's kind of a score and its name.

    Scores of batches need batches. That of explained variance (PCR) is left out: it compares with data before integration.
    """
    try:
        from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation
    except ImportError as error:
        raise ScmambaError("panel='scib' needs scib-metrics: pip install scib-metrics.") from error
    from anndata import AnnData

    lacking = [repr(method) for method, parts in inputs.methods.items() if JOINT not in parts]
    if lacking:
        raise ScmambaError(f"panel='scib' scores joint embeddings, which {', '.join(lacking)} lacks.")
    joint = {method: parts[JOINT] for method, parts in inputs.methods.items()}
    with_batches = not pd.isna(inputs.batches).all()
    usable = np.all([np.isfinite(x).all(axis=1) for x in joint.values()], axis=0) & pd.notna(inputs.labels)
    if with_batches:
        usable &= pd.notna(inputs.batches)
    if usable.sum() <= N_NEIGHBORS:
        raise ScmambaError(
            f"panel='scib' needs more than {N_NEIGHBORS} cells with a label (labels_key), a joint embedding of every method "
            f"and, if batch_key is given, a batch; {usable.sum():,} of {len(usable):,} have them."
        )
    batches = inputs.batches if with_batches else np.full(len(usable), "one")
    cells = AnnData(
        obs=pd.DataFrame(
            {"label": inputs.labels[usable], "batch": batches[usable]},
            dtype="category", index=inputs.cells[usable].astype(str),
        ),
        obsm={method: np.asarray(x[usable], dtype=np.float32) for method, x in joint.items()},
    )  # fmt: skip
    bench = Benchmarker(
        cells, "batch", "label", list(joint),
        bio_conservation_metrics=BioConservation(isolated_labels=with_batches),
        batch_correction_metrics=BatchCorrection(pcr_comparison=False) if with_batches else None,
        pre_integrated_embedding_obsm_key=next(iter(joint)),  # asked for, and read by PCR alone
        progress_bar=progress,
    )  # fmt: skip
    bench.benchmark()
    found = bench.get_results(min_max_scale=False)
    kinds = found.loc["Metric Type"]
    scores = found.drop(index="Metric Type").astype(float).rename_axis(index="method")
    return scores.set_axis(pd.MultiIndex.from_arrays([kinds, scores.columns], names=["group", "metric"]), axis=1)
