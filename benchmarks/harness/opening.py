"""What stands first on docs/benchmarks.md, one figure and one table of at most eight methods, and what stands last, our losses."""

from __future__ import annotations

import pandas as pd

from . import verdicts
from .all_cells import WITHOUT_BATCHES
from .markdown import header, row
from .methods import OWN_VARIANTS
from .summary import summary

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
        "without its network (`encoder=\"linear\"`). Weighted CCA is a canonical correlation analysis (CCA) whose directions count by their",
        "correlation. Grey dots are other methods; a figure of {doc}`benchmarks-results` names them.", "",
        *_table(held_out, all_cells), "",
        "Cortex is mouse cortex (SNARE-seq, RNA + ATAC). Multiome (RNA + ATAC) and CITE-seq (RNA + proteins) are human bone marrow of",
        "several donors. 1 is the best possible number in every column.", "",
        "- *Overall* is the paper's score of held-out cells, 0.6 of four scores of cell types and 0.4 of four scores of how well the",
        "  modalities lie together. Each goes from 0 for the worst to 1 for the best method of the set.",
        "- *Types* is what the figure shows.",
        "- *Pairs* is the fraction of held-out cells whose {term}`true match` is among the 10 nearest cells of the other modality.",
        f"- *{BEST_OTHER.capitalize()}*: in each column the best of the other methods, not always the same; variants of ours are not counted.",
        "- A dash stands for a method that embeds no new cells, that embeds both modalities as one, that is made for other modalities, or",
        "  that was not run on all cells. {doc}`benchmarks-results` says which.", "",
    ]  # fmt: skip


def losses(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    """Every method that is better than the defaults in some score, and by how much."""
    return [
        *header(["cells", "method", "better than the defaults in"], n_left=3),
        *_losses("held-out", verdicts.compare(held_out)), *_losses("all", verdicts.compare(all_cells, held_out)), "",
        f"A difference counts if it is more than {verdicts.N_DEVIATIONS} standard deviations over seeds. With one seed, the deviation is the median",
        "of the sets that have several. {doc}`benchmarks-results` says what each score is. ASW is a silhouette width, ARI the agreement of",
        "clusters with types.", "",
    ]  # fmt: skip


def _table(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    columns: dict[str, pd.Series] = {}
    for name, short in SHORT.items():
        of_set = _scored(held_out, name)
        scores = summary(of_set, "minmax")
        columns[f"overall: {short}"] = pd.Series(dtype=float) if scores is None else scores["overall"]
    for name, short in SHORT.items():
        columns[f"types: {short}"] = _scored(all_cells, name).groupby("method")["kNN accuracy"].mean()
    for name, short in SHORT.items():
        columns[f"pairs: {short}"] = _scored(held_out, name).groupby("method")["recall@10"].mean()
    table = pd.DataFrame(columns)
    others = table[~table.index.isin((*FRONT, *OWN_VARIANTS))].max()
    table = table.reindex(FRONT)
    table.loc[BEST_OTHER] = others
    best = table.round(2).max()
    lines = header(["method", *table])
    for method, values in table.iterrows():
        lines.append(row([method, *(_number(v, bold=round(v, 2) == best[c]) for c, v in values.items())]))
    return lines


def _scored(results: pd.DataFrame, name: str) -> pd.DataFrame:
    return results[(results["set"] == name) & results["fit_s"].notna()]


def _number(value: float, bold: bool) -> str:
    return "–" if pd.isna(value) else f"**{value:.2f}**" if bold else f"{value:.2f}"


def _losses(what: str, compared: pd.DataFrame) -> list[str]:
    """A row for each method that is better than the defaults on a set, with the scores and the differences."""
    lost = compared[compared["gain"] < -compared["margin"]]
    lines = []
    for name, short in SHORT.items():
        of_set = lost[lost["set"] == name].groupby("method", sort=False)
        for method, rows in of_set:
            lines.append(
                row(
                    [
                        f"{what}, {short}",
                        method,
                        ", ".join(f"{one.score} ({-one.gain:.3f})" for one in rows.itertuples()),
                    ]
                )
            )
        if not len(of_set):
            lines.append(row([f"{what}, {short}", "none", ""]))
    return lines
