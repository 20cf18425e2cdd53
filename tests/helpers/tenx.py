"""Files as Cell Ranger ARC writes them, of four cells with three genes and two peaks."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
from scipy import io, sparse

X = sparse.csr_matrix(np.array([[1, 0, 2, 0, 7], [0, 3, 0, 0, 0], [0, 0, 0, 5, 1], [4, 0, 0, 0, 0]], dtype=np.int32))
BARCODES = ["AAA-1", "CCC-1", "GGG-1", "TTT-1"]
IDS = ["ENSG1", "ENSG2", "chr1:5-9", "ENSG3", "chr2:1-4"]
NAMES = ["A", "B", "chr1:5-9", "A", "chr2:1-4"]
TYPES = ["Gene Expression", "Gene Expression", "Peaks", "Gene Expression", "Peaks"]
INTERVALS = ["chr1:1-2", "NA", "chr1:5-9", "chr3:7-8", "chr2:1-4"]


def write_10x(path: Path, types: list[str] | None = TYPES, names: list[str] = NAMES) -> None:
    """The ``.h5``: barcodes as columns, strings of fixed length; without ``types`` as very old files are."""
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(BARCODES, dtype="S")
        matrix["data"] = X.data
        matrix["indices"], matrix["indptr"] = X.indices.astype("int64"), X.indptr.astype("int64")
        matrix["shape"] = np.array([5, 4])
        features = matrix.create_group("features")
        features["id"], features["name"] = np.array(IDS, dtype="S"), np.array(names, dtype="S")
        if types is not None:
            features["feature_type"] = np.array(types, dtype="S")
        features["genome"], features["interval"] = np.array(["GRCh38"] * 5, dtype="S"), np.array(INTERVALS, dtype="S")
        features["_all_tag_keys"] = np.array([b"genome", b"interval"])


def write_10x_folder(folder: Path) -> None:
    """The folder ``filtered_feature_bc_matrix``, with places in the fourth to sixth column of the features."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        io.mmwrite(file, X.T)
    rows = []
    for name, gene, kind, where in zip(NAMES, IDS, TYPES, INTERVALS, strict=True):
        chrom, _, span = where.partition(":")
        rows.append("\t".join([gene, name, kind, *(["", "", ""] if where == "NA" else [chrom, *span.split("-")])]))
    for name, lines in (("features.tsv.gz", rows), ("barcodes.tsv.gz", BARCODES)):
        with gzip.open(folder / name, "wt") as file:
            file.write("\n".join(lines) + "\n")
