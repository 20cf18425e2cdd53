"""From results after integration to docs/after-integration-results.md. What they mean in words is in findings.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .markdown import header, machines, mean_and_spread, read_findings, row
from .paths import DOCS, RESULTS
from .sets import title_of
from .verdicts import N_DEVIATIONS

PAGE = DOCS / "after-integration-results.md"


def write_page() -> None:
    """The page, from the results that are there."""
    PAGE.write_text("\n".join(page_lines(RESULTS)))


def page_lines(results: Path) -> list[str]:
    """Lines of the page, from the files in the folder ``results``."""
    lines, measured = ["# Results after integration", "", read_findings()["after"], ""], []
    for topic, section in SECTIONS.items():
        path = results / f"{topic}.json"
        if path.exists():
            found = json.loads(path.read_text())
            lines += section(found)
            measured += [seed["machine"] for of_set in found["sets"].values() for seed in of_set.values()]
    return [*lines, *machines(measured)]


def rows_of(found: dict, each: Callable[[dict], Iterator[dict]]) -> pd.DataFrame:
    """The rows that ``each`` makes of one result, for all sets and seeds, with the columns ``set`` and ``seed``."""
    return pd.DataFrame([
        {"set": title_of(name), "seed": seed, **values}
        for name, of_set in found["sets"].items()
        for seed, result in of_set.items()
        for values in each({key: value for key, value in result.items() if key != "machine"})
    ])  # fmt: skip


def table(rows: pd.DataFrame, by: Sequence[str], scores: dict[str, str]) -> list[str]:
    """Mean and spread over seeds of ``scores`` (column -> its heading), for each combination of the columns ``by``."""
    lines = header([*by, "seeds", *scores.values()], n_left=len(by))
    for names, of_these in rows.groupby(list(by), sort=False):
        lines.append(row([*map(str, names), str(len(of_these)), *(mean_and_spread(of_these[s]) for s in scores)]))
    return [*lines, ""]


# -- annotation ------------------------------------------------------------------------------------------------------


def _annotation(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for split, of_split in result.items():
            for method, scores in of_split["scores"].items():
                yield {"split": split, "method": method, "cells": of_split["cells"], **scores}

    def probabilities(result: dict) -> Iterator[dict]:
        for split, of_split in result.items():
            sure = of_split["threshold 0.9"]
            yield {"split": split, "accuracy": of_split["scores"]["predict"]["accuracy"],
                   "probability": of_split["mean probability"], "named": sure["named"], "right": sure["accuracy"]}  # fmt: skip

    rows = rows_of(found, each)
    lines = ["## Cell types", "", *_against(rows)]
    for (name, split), of_split in rows.groupby(["set", "split"], sort=False):
        lines += [f"### {name}: {split}, {of_split['cells'].iloc[0]:,} cells asked", ""]
        lines += table(of_split, ["method"], {"accuracy": "accuracy", "f1": "macro F1"})
    lines += [
        "### Do the probabilities come true?", "",
        "The mean probability of the label given should be the accuracy. The last two columns are of cells whose label is",
        "at least 0.9 probable: their fraction, and how many of them are right.", "",
    ]  # fmt: skip
    columns = {"accuracy": "accuracy", "probability": "mean probability", "named": "named at 0.9", "right": "right of these"}  # fmt: skip
    return lines + table(rows_of(found, probabilities), ["set", "split"], columns)


def _against(rows: pd.DataFrame) -> list[str]:
    """`predict` beside every baseline: what it gains, and whether that is more than chance."""
    lines = [
        "`predict` reads all that was measured of a cell. What it gains over each baseline; a gain or a loss counts beyond the",
        f"margin, {N_DEVIATIONS} standard deviations over seeds or one binomial standard error of the cells asked, whichever is",
        "larger.", "",
        row(["set", "split", "against", "accuracy", "macro F1", "margins", "accuracy is", "macro F1 is"]),
        row(["---"] * 3 + ["--:"] * 3 + ["---"] * 2),
    ]  # fmt: skip
    for (name, split), of_split in rows.groupby(["set", "split"], sort=False):
        means = of_split.groupby("method", sort=False)[["accuracy", "f1"]].mean()
        ours = of_split[of_split["method"] == "predict"]
        margins = {score: margin(ours[score], ours["cells"].iloc[0]) for score in ("accuracy", "f1")}
        for method in means.index[~means.index.str.startswith("predict")]:
            gains = means.loc["predict"] - means.loc[method]
            numbers = [f"{gains[score]:+.3f}" for score in margins] + [" / ".join(f"{m:.3f}" for m in margins.values())]
            verdicts = [verdict(gains[score], margins[score]) for score in margins]
            lines.append(row([name, split, method, *numbers, *verdicts]))
    return [*lines, ""]


def margin(scores: pd.Series, n_cells: int) -> float:
    """What a difference must exceed: spread over seeds, or the standard error of a fraction of ``n_cells``."""
    spread = N_DEVIATIONS * scores.std() if len(scores) > 1 else 0.0
    return float(max(spread, np.sqrt(scores.mean() * (1 - scores.mean()) / n_cells)))


def verdict(gain: float, margin: float) -> str:
    return "better" if gain > margin else "**worse**" if gain < -margin else "the same"


# -- matching, imputation, swapped pairs, missing modalities -----------------------------------------------------------


def _matching(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for direction, scores in result.items():
            if " to " in direction:
                chance = f"{result['chance_recall_10']:.3f}"
                yield {"direction": direction, "cells": f"{result['cells']:,}", "chance@10": chance, **scores}

    columns = {"recall_1": "recall@1", "confidence_1": "confidence", "recall_10": "recall@10",
               "confidence_10": "confidence", "one_to_one_right": "one to one, right"}  # fmt: skip
    lines = [
        "## Matching", "",
        "Held-out cells among held-out cells. The confidence of a rank, or its sum over ten, should be the recall.", "",
        *table(rows_of(found, each), ["set", "cells", "direction", "chance@10"], columns),
    ]  # fmt: skip
    if "search" not in found:
        return lines
    lines += [
        "### The search", "",
        "Simulated embeddings, as many queries as references; the memory that all cosines would take stands beside what the",
        "search adds to the process.", "",
        row(["cells on a side", "search", "CPU s", "MB added", "MB of all cosines", "true match first"]),
        row(["--:", "---"] + ["--:"] * 4),
    ]  # fmt: skip
    for cells, of_size in found["search"].items():
        one = of_size["top_k"]
        memory = [f"{one['raised_mb']:,}", f"{of_size['all_cosines_mb']:,}"]
        lines.append(
            row([cells, f"{of_size['k']} nearest", f"{one['cpu_seconds']:,.0f}", *memory, f"{one['own']:.3f}"])
        )
    return [*lines, ""]


def _imputation(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for k, scores in result.items():
            if k.startswith("k="):
                yield {"imputed": f"{result['features']:,} of {result['modality']}", "neighbours": k[2:], **scores}

    rows = rows_of(found, each)
    columns = {"impute": "`impute`", "k-NN on RNA PCA": "k-NN on RNA PCA"}
    return [
        "## The other modality, imputed from RNA", "",
        "Per feature the correlation of imputed and true values over held-out cells, mean over features: all proteins, or the",
        "1,000 peaks seen in most of these cells. Single peaks of single cells are zero or one by chance, which bounds what",
        "any method can reach there.", "",
        *table(rows, ["set", "imputed", "neighbours"], columns),
    ]  # fmt: skip


def _agreement(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for part, scores in result.items():
            yield {**scores, "cells": part, "swapped": f"{scores['swapped']:,} of {scores['cells']:,}"}

    columns = {"AUROC of evidence": "evidence", "AUROC of cosine": "cosine"}
    return [
        "## Swapped pairs", "",
        "One in twenty cells got the other modality of another cell before training. AUROC of finding them by",
        "`get_modality_agreement`: 1 is every one before all others, 0.5 chance.", "",
        *table(rows_of(found, each), ["set", "cells", "swapped"], columns),
    ]  # fmt: skip


def _region_importance(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for kind, of_kind in result.items():
            if isinstance(of_kind, dict):
                about = f"{result['types']}, the rarest has {result['rarest']} of {result['cells']:,} cells"
                for column, aurocs in of_kind.items():
                    yield {"types": about, "features": kind, "ranked by": column, **aurocs}

    return [
        "## Which regions matter", "",
        "AUROC of the known markers of a simulated type among all features, ranked by `get_region_importance`, or by",
        "the difference of mean log counts between the cells of the type and the others: mean over types, and lowest of them.",
        "Models are fitted on all cells.", "",
        *table(rows_of(found, each), ["set", "types", "features", "ranked by"], {"mean": "mean", "lowest": "lowest"}),
    ]  # fmt: skip


#: Encoder of a model -> what the page calls it.
NETWORKS = {"linear": "linear branch alone", "mamba": "default"}


def _region_links(found: dict) -> list[str]:
    results = [
        (title_of(name), NETWORKS[encoder], result)
        for name, of_set in found["sets"].items()
        for encoder, result in of_set.items()
    ]
    pairs = header(["set", "network", "cells", "pairs", "q < 0.1", "true of these", "true of all pairs"], n_left=2)
    scores = header(["set", "network", "AUROC", *LINK_SCORES], n_left=3)
    distances = header(["set", "network", "distance", "pairs", "correlation", "z", "p < 0.01", "q < 0.1"], n_left=3)
    for name, network, result in results:
        true = [
            f"{result[key]:.0%}" if key in result else "–" for key in ("true among q < 0.1", "true among all pairs")
        ]
        pairs.append(row([name, network, *(f"{result[key]:,}" for key in ("cells", "pairs", "q < 0.1")), *true]))
        for key, what in AUROCS_OF_LINKS.items():
            if key in result:
                scores.append(row([name, network, what, *(f"{result[key][score]:.3f}" for score in LINK_SCORES)]))
        for distance, of_these in result["by distance"].items():
            means = [f"{of_these[key]:.2f}" for key in ("correlation", "z")]
            fractions = [f"{of_these[key]:.1%}" for key in ("p < 0.01", "q < 0.1")]
            distances.append(row([name, network, distance, f"{of_these['pairs']:,}", *means, *fractions]))
    return [
        "## Links of peaks with genes", "",
        "Pairs of a gene and a peak within 250 kb of it, by models of all cells. The correlation is that of `get_region_links`, of which",
        "z is the distance from the background; the cosine of the weights that the network gives to gene and peak, and the",
        "correlation of their log counts over cells are simpler scores. On simulated sets true links are known; elsewhere near",
        "pairs are compared with far ones, for lack of a truth.", "", *scores, "",
        "How many pairs are called at q < 0.1, and how many of them are true links:", "", *pairs, "",
        "By distance of gene and peak, the mean of correlation and z, and the fraction of pairs with a low p or q:", "", *distances, "",
    ]  # fmt: skip


#: Scores of a pair, and what an AUROC of them is of.
LINK_SCORES = ("z", "correlation", "cosine of weights", "correlation of log counts")
AUROCS_OF_LINKS = {
    "AUROC of true links, all genes": "true links among all pairs",
    "AUROC of true links, markers": "the same, markers of a type",
    "AUROC, < 2 kb against > 100 kb": "pairs nearer than 2 kb against farther than 100 kb",
}


def _mosaic(found: dict) -> list[str]:
    def each(result: dict) -> Iterator[dict]:
        for name, scores in result.items():
            if isinstance(scores, dict):
                yield {"training cells": name, **{k: v for k, v in scores.items() if k != "these cells"}}

    def incomplete(result: dict) -> Iterator[dict]:
        for name, scores in result.items():
            if isinstance(scores, dict) and "these cells" in scores:
                yield {"training cells": name, "asked": f"{scores['these cells']['cells']:,}", **scores["these cells"]}

    recall = {"recall@10": "recall@10"}
    return [
        "## Cells with one modality beside cells with both", "",
        "A third of the training cells loses one modality, or is left out. Scores of the held-out fifth, which is whole:", "",
        *table(rows_of(found, each), ["set", "training cells"], {"FOSCTTM": "FOSCTTM ↓", **recall, "kNN accuracy": "kNN accuracy"}),
        "And of the cells that lost something: the cosine of their joint embedding with the one that they have whole, and how",
        "well their embedding of what they kept finds the profile that they lost.", "",
        *table(rows_of(found, incomplete), ["set", "training cells", "asked"],
               {"cosine with whole": "cosine with whole", "FOSCTTM of lost profile": "FOSCTTM ↓", **recall}),
    ]  # fmt: skip


#: Name of a file of results -> its section, in the order of the page.
SECTIONS: dict[str, Callable[[dict], list[str]]] = {
    "annotation": _annotation, "matching": _matching, "imputation": _imputation, "agreement": _agreement,
    "mosaic": _mosaic, "region_importance": _region_importance, "region_links": _region_links,
}  # fmt: skip
