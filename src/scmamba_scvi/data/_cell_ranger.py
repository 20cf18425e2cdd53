"""What Cell Ranger writes: where its tables of counts lie, and how each form of them is read."""

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from ..errors import ScmambaError

#: Names of the tables of counts. The ``.h5`` come first: they are read faster, and know the genome.
TABLES: Final = (
    "filtered_feature_bc_matrix.h5", "sample_filtered_feature_bc_matrix.h5", "filtered_gene_bc_matrices_h5.h5",
    "filtered_feature_bc_matrix", "sample_filtered_feature_bc_matrix",
)  # fmt: skip
#: Where they lie in a folder: ``outs`` of Count and ARC, a sample of Multi, its ``per_sample_outs``, its ``outs``.
PLACES: Final = ("", "count/", "*/count/", "per_sample_outs/*/count/")
#: Arrays of a genome in the ``.h5`` of Cell Ranger 2.
ARRAYS_OF_GENOME: Final = {"barcodes", "data", "gene_names", "genes", "indices", "indptr", "shape"}


def tables_in(folder: Path) -> list[Path]:
    """The table of counts in a folder of Cell Ranger, or one for each sample; empty for another folder."""
    for place in PLACES:
        found: dict[Path, Path] = {}
        for name in TABLES:
            for table in sorted(folder.glob(place + name)):
                found.setdefault(table.parent, table)
        if found:
            return list(found.values())
    return []


def only_table_in(folder: Path) -> Path | None:
    """The table of counts in a folder of Cell Ranger; `None` for another folder. A choice among samples is the user's."""
    found = tables_in(folder)
    if len(found) < 2:
        return found[0] if found else None
    samples = [table.parent.parent for table in found]
    raise ScmambaError(
        f"{folder} has {len(samples)} samples of Cell Ranger: {', '.join(sample.name for sample in samples)}. Pass the folder of "
        f"one, such as {samples[0]}."
    )


def genomes_of(file: Any) -> list[str]:
    """Genomes of an open ``.h5`` of Cell Ranger 2, which has a group for each; empty for another file."""
    return [name for name, part in file.items() if hasattr(part, "keys") and set(part) >= ARRAYS_OF_GENOME]


def read_h5(path: Path, genomes: list[str]) -> AnnData:
    """The ``.h5``; ``genomes`` are those of `genomes_of`."""
    import scanpy as sc

    if len(genomes) > 1:
        raise ScmambaError(
            f"{path} holds counts of several genomes, as Cell Ranger 2 writes them: {', '.join(genomes)}. Write those of one into "
            f"a file, scanpy.read_10x_h5({str(path)!r}, genome={genomes[0]!r}).write_h5ad('cells.h5ad')."
        )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # names repeat; `parts_of` numbers them
        return sc.read_10x_h5(path, gex_only=False)


def holds_mtx(folder: Path) -> bool:
    """Whether a folder is the one of ``matrix.mtx.gz``."""
    return any((folder / name).exists() for name in ("matrix.mtx.gz", "matrix.mtx"))


def read_mtx(folder: Path) -> AnnData:
    """The folder of ``matrix.mtx.gz``; ARC writes the place of each feature into the fourth to sixth column."""
    import scanpy as sc

    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # names repeat, and `parts_of` numbers them as those of the .h5: scanpy would number a protein that shares a gene's name
        adata = sc.read_10x_mtx(folder, gex_only=False, make_unique=False)
    adata.X = sparse.csr_matrix(adata.X)
    table = next(folder / name for name in ("features.tsv.gz", "features.tsv", "genes.tsv") if (folder / name).exists())
    columns = pd.read_csv(table, sep="\t", header=None, dtype={3: str})
    if columns.shape[1] >= 6:
        adata.var["chrom"] = columns[3].fillna("").to_numpy()
        for name, column in (("start", 4), ("end", 5)):
            adata.var[name] = columns[column].fillna(-1).astype(np.int64).to_numpy()
    return adata
