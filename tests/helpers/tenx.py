"""Files as Cell Ranger writes them, of four cells with three genes and two peaks or proteins."""

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


def write_10x(
    path: Path, types: list[str] | None = TYPES, names=NAMES, *, x=X, barcodes=BARCODES, ids=IDS, intervals=INTERVALS
) -> None:
    """The ``.h5``: barcodes as columns, strings of fixed length; without ``types`` as very old files are."""
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, dtype="S")
        matrix["data"] = x.data
        matrix["indices"], matrix["indptr"] = x.indices.astype("int64"), x.indptr.astype("int64")
        matrix["shape"] = np.array(x.T.shape)
        features = matrix.create_group("features")
        features["id"], features["name"] = np.array(ids, dtype="S"), np.array(names, dtype="S")
        if types is not None:
            features["feature_type"] = np.array(types, dtype="S")
        features["genome"], features["interval"] = (
            np.array(["GRCh38"] * len(ids), dtype="S"),
            np.array(intervals, dtype="S"),
        )
        features["_all_tag_keys"] = np.array([b"genome", b"interval"])


def write_10x_folder(
    folder: Path, types=TYPES, names=NAMES, *, x=X, barcodes=BARCODES, ids=IDS, intervals=INTERVALS
) -> None:
    """The folder ``filtered_feature_bc_matrix``, with places in the fourth to sixth column of the features."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        io.mmwrite(file, x.T)
    rows = []
    for name, gene, kind, where in zip(names, ids, types, intervals, strict=True):
        chrom, _, span = where.partition(":")
        rows.append("\t".join([gene, name, kind, *(["", "", ""] if where == "NA" else [chrom, *span.split("-")])]))
    for name, lines in (("features.tsv.gz", rows), ("barcodes.tsv.gz", barcodes)):
        with gzip.open(folder / name, "wt") as file:
            file.write("\n".join(lines) + "\n")


def write_10x_v2(
    path: Path, genomes=("GRCh38",), names=("A", "B", "A"), *, x=X[:, [0, 1, 3]], barcodes=BARCODES
) -> None:
    """The ``.h5`` of Cell Ranger 2, with a group for each genome and without types of features."""
    with h5py.File(path, "w") as file:
        for genome in genomes:
            group = file.create_group(genome)
            group["barcodes"], group["shape"] = np.array(barcodes, dtype="S"), np.array(x.T.shape)
            group["data"], group["indices"], group["indptr"] = (
                x.data,
                x.indices.astype("int64"),
                x.indptr.astype("int64"),
            )
            group["gene_names"] = np.array(names, dtype="S")
            group["genes"] = np.array([f"ENSG{i}" for i in range(len(names))], dtype="S")
