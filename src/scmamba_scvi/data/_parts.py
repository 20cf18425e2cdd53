"""One AnnData as its modalities: features told apart by their types, proteins taken from ``obsm``."""

import warnings
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from .._keys import FEATURE_TYPES, kind_of_key
from ..errors import ScmambaError

#: Columns of ``var`` that may hold the type of a feature.
TYPE_COLUMNS: Final = ("feature_types", "feature_type", "modality")
#: Parts of a name in ``obsm`` that say its columns are counts of proteins.
PROTEIN_WORDS: Final = ("protein", "antibody", "adt")


def parts_of(adata: AnnData, *, is_users: bool = False) -> dict[str, AnnData]:
    """An AnnData by the types of its features, with the proteins that its ``obsm`` holds; ``""`` for a type that is not known.

    A single type is ``adata`` itself, its features numbered, unless it ``is_users``, which stays as it is.
    """
    columns = (adata.var[name].astype(str) for name in TYPE_COLUMNS if name in adata.var)
    # a column of that name may hold others than types of features, such as the biotypes of genes
    types = next((c for c in columns if any(map(_kind_of_type, c.unique()))), pd.Series("", index=adata.var_names))
    parts: dict[str, AnnData] = {}
    kinds = {value: _kind_of_type(value) or value for value in types.unique()}
    for value, name in kinds.items():
        if name in parts:
            alike = " and ".join(repr(other) for other, kind in kinds.items() if kind == name)
            raise ScmambaError(
                f"Features of types {alike} both look like {name}: leave out those of one, or make a MuData with a modality "
                f"for each."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)  # yet
            part = adata if len(kinds) == 1 else adata[:, (types == value).to_numpy()]
            parts[name] = part.copy() if part.is_view or is_users else part
        # a gene and a protein may share a name, two genes may not
        parts[name].var_names = make_index_unique(parts[name].var_names)
    proteins = [key for key in adata.obsm if any(word in key.lower() for word in PROTEIN_WORDS)]
    if proteins and "protein" not in parts:
        if len(proteins) > 1:
            raise ScmambaError(f"Several entries of obsm may hold counts of proteins, {proteins}: leave one of them.")
        if "" in parts:
            parts["rna"] = parts.pop("")
        parts["protein"] = _proteins(adata, proteins[0])
    return parts


def _proteins(adata: AnnData, key: str) -> AnnData:
    """Proteins of ``obsm[key]`` as a modality; a table has their names, an array has them in ``uns``."""
    values = adata.obsm[key]
    if isinstance(values, pd.DataFrame):
        names = values.columns.astype(str)
        values = values.to_numpy()
    else:
        known = [adata.uns[k] for k in (f"{key}_names", "protein_names") if k in adata.uns]
        if not known or len(known[0]) != values.shape[1]:
            raise ScmambaError(
                f"obsm[{key!r}] holds {values.shape[1]} proteins without names: make it a pandas DataFrame with the names as "
                f"columns, or put the names into uns['protein_names']."
            )
        names = pd.Index(np.asarray(known[0]).astype(str))
    return AnnData(sparse.csr_matrix(values), obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=names))


def _kind_of_type(name: str) -> str | None:
    """Kind that a type of features stands for."""
    return FEATURE_TYPES.get(name) or kind_of_key(name)
