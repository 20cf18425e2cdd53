"""What stands first on docs/benchmarks.md: one figure, and one table of at most eight methods."""

from __future__ import annotations

import pandas as pd

from .all_cells import WITHOUT_BATCHES
from .markdown import header, row
from .methods import OWN_VARIANTS
from .summary import with_means
from .tables import scored_on

#: At most eight.
FRONT = (
    "scmamba-scvi", "SnapATAC2", "WNN", "MultiVI", "CVQVAE (our version)", "weighted CCA + gene activity", "weighted CCA", "RNA PCA",
)  # fmt: skip
#: The last row of the table: of every column the best of the methods that it has no row for.
BEST_OTHER = "best of all others"
#: Methods that have a name in the figure.
NAMED = (FRONT[0], WITHOUT_BATCHES, "linear", *FRONT[1:4], "totalVI", "MOFA+", *FRONT[4:])
#: Short names of the real sets with labels that have thousands of cells.
SHORT = {"snareseq_mouse_cortex": "cortex", "bmmc_multiome_5k": "Multiome", "bmmc_cite_5k": "CITE-seq"}


def section(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    """Figure, table, and what its columns are."""
    return [
        "![Cell types found, against CPU seconds](_static/types_and_seconds.png)", "",
        "Upwards: how many cells have the type of their nearest neighbours in the joint embedding of all cells. To the right: the",
        "CPU time of the fit. Up is better, left is faster. The black star is this package with its defaults, the grey one the same without a",
        "`batch_key`, which corrects no batches. Of the other methods with a name there, only MultiVI and totalVI do. The black dot, linear, is the package",
        "without its network (`encoder=\"linear\"`), other seeds of which took longer ({doc}`benchmarks-cost`). Weighted CCA is a",
        "canonical correlation analysis (CCA) whose directions count by their correlation. Grey dots are other methods; the figure of {doc}`benchmarks-cost` names them.", "",
        *_table(held_out, all_cells), "",
        "Cortex is mouse cortex (SNARE-seq, RNA + ATAC). Multiome (RNA + ATAC) and CITE-seq (RNA + proteins) are human bone marrow of",
        "several donors. 1 is the best possible number in every column.", "",
        "- *Overall* is the paper's score of held-out cells, 0.6 of four scores of cell types and 0.4 of four scores of how well the",
        "  modalities lie together. Each goes from 0 for the worst to 1 for the best method of the set.",
        "- *Types* is what the figure shows.",
        "- *Pairs* is the fraction of held-out cells whose {term}`true match` is among the 10 nearest cells of the other modality.",
        f"- *{BEST_OTHER.capitalize()}*: in each column the best of the methods that have no row of their own; variants of ours are not",
        "  counted.",
        "- A dash stands for a method that embeds no new cells, that embeds both modalities as one, that is made for other modalities, or",
        "  that was not run on all cells. {doc}`benchmarks-methods` says which.", "",
    ]  # fmt: skip


def _table(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    of_held_out, of_all = ({name: scored_on(name, of) for name in SHORT} for of in (held_out, all_cells))
    table = pd.DataFrame({
        **{f"overall: {short}": _mean(with_means(of_held_out[name]), "overall") for name, short in SHORT.items()},
        **{f"types: {short}": _mean(of_all[name], "kNN accuracy") for name, short in SHORT.items()},
        **{f"pairs: {short}": _mean(of_held_out[name], "recall@10") for name, short in SHORT.items()},
    })  # fmt: skip
    others = table[~table.index.isin((*FRONT, *OWN_VARIANTS))].max()
    table = table.reindex(FRONT)
    table.loc[BEST_OTHER] = others
    best = table.round(2).max()
    lines = header(["method", *table])
    for method, values in table.iterrows():
        lines.append(row([method, *(_number(v, bold=round(v, 2) == best[c]) for c, v in values.items())]))
    return lines


def _mean(scored: pd.DataFrame, score: str) -> pd.Series:
    return scored.groupby("method")[score].mean() if score in scored else pd.Series(dtype=float)


def _number(value: float, bold: bool) -> str:
    return "–" if pd.isna(value) else f"**{value:.2f}**" if bold else f"{value:.2f}"
