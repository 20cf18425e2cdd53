"""String keys that several modules share, each with its meaning, and the letters of tensor dimensions.

Dimensions
----------
====  =========================================================================
``n``  cells of a minibatch
``f``  features of one modality (genes, peaks, proteins), in the order of ``var``
``c``  patches, i.e. tokens of the sequence (``C`` in the paper, section 4.1.1)
``w``  features of a patch, padded (``P`` in the paper)
``e``  dimensions of a feature embedding
``d``  width of the network (``D`` in the paper)
``i``  inner width of the Mamba2 mixer, ``i = h * p``
``h``  heads of the mixer
``p``  dimensions of a head
``s``  state dimensions (``N`` in the Mamba2 paper)
``q``  tokens of a chunk of the scan
``z``  latent dimensions
====  =========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from .errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of modality.
Kind = Literal["rna", "atac", "protein"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: Keys of ``mdata.mod`` that name a kind, in lower case.
MODALITY_NAMES: Final[dict[Kind, tuple[str, ...]]] = {
    "rna": ("rna", "gex", "expression", "gene_expression"),
    "atac": ("atac", "peaks", "accessibility", "chromatin_accessibility"),
    "protein": ("protein", "proteins", "prot", "adt"),
}
#: From ``var["feature_types"]``, as 10x writes it, to the kind.
FEATURE_TYPES: Final[dict[str, Kind]] = {"Gene Expression": "rna", "Peaks": "atac", "Antibody Capture": "protein"}

#: ``obsm`` key under which `workflow` and the command line write embeddings.
OBSM_KEY: Final = "X_scmamba"
#: ``obs`` key of the cells that training never saw, bool: how well partners find each other is scored on these.
HELD_OUT_KEY: Final = "held_out_scmamba"
#: Minibatch and registry key of the batch, int64 ``(n, 1)``.
BATCH_KEY: Final = "batch"
#: Minibatch and registry key of the labels, int64 ``(n, 1)``.
LABELS_KEY: Final = "labels"
#: Minibatch key of the cells' positions in ``mdata.obs``, int64 ``(n,)``.
CELLS_KEY: Final = "cells"


def x_key(kind: str) -> str:
    """Registry and minibatch key of a modality's counts, ``(n, f)`` float32, CSR or dense."""
    return f"X_{kind}"


def present_key(kind: str) -> str:
    """Minibatch key of the mask of cells that have the modality, ``(n,)`` bool."""
    return f"present_{kind}"


def obs_column(data: Any, name: str, argument: str) -> pd.Series:
    """Value of each cell in the column ``name`` of a MuData or an AnnData, missing where nothing holds one.

    A column that ``data.obs`` lacks is read from the modalities, where each cell takes the first value that one of them
    has for it; ``"rna:name"`` is that of one modality.

    Parameters
    ----------
    argument
        What ``name`` is called in the error.

    Raises
    ------
    UnknownNameError
        Neither ``data.obs`` nor a modality has the column.
    """
    if name in data.obs:
        return data.obs[name]
    modalities = getattr(data, "mod", {})
    named = {f"{key}:{column}": (key, column) for key, part in modalities.items() for column in part.obs}
    found = [named[name]] if name in named else [(key, column) for key, column in named.values() if column == name]
    if not found:
        raise UnknownNameError(argument, name, dict.fromkeys([*data.obs, *(c for _, c in named.values()), *named]))
    # as objects: missing cells would turn whole numbers into fractions, and categories differ between modalities
    columns = [modalities[key].obs[column].astype(object).reindex(data.obs_names) for key, column in found]
    first = columns[0]
    for other in columns[1:]:
        first = first.where(first.notna(), other)
    return first
