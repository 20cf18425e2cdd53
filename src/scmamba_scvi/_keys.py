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

from typing import Final, Literal, get_args

#: Kinds of modality.
Kind = Literal["rna", "atac", "protein"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: Keys of ``mdata.mod`` that name a kind, in lower case, words joined by ``_``. Short and vague ones (ab, surface, chromatin,
#: tiles) are not among them: they may be something else.
MODALITY_NAMES: Final[dict[Kind, tuple[str, ...]]] = {
    "rna": ("rna", "gex", "expression", "gene_expression"),
    "atac": ("atac", "peaks", "atac_peaks", "accessibility", "chromatin_accessibility"),
    "protein": (
        "protein", "proteins", "prot", "adt", "adts", "antibody", "antibodies", "antibody_capture", "surface_protein",
        "surface_proteins", "protein_expression",
    ),
}  # fmt: skip
#: Keys that name what is of no kind, written likewise: samples, guides and receptors of cells.
OTHER_NAMES: Final = (
    "hto", "htos", "hashtag", "hashtags", "hashing", "cmo", "multiplexing_capture", "crispr", "crispr_guide_capture",
    "guide", "guides", "gdo", "vdj", "airr", "tcr", "bcr",
)  # fmt: skip
#: From ``var["feature_types"]``, as 10x writes it, to the kind.
FEATURE_TYPES: Final[dict[str, Kind]] = {"Gene Expression": "rna", "Peaks": "atac", "Antibody Capture": "protein"}
#: What others write there, in lower case; as keys of ``mdata.mod`` these may be something else, such as gene activity.
TYPES_IN_WORDS: Final[dict[str, Kind]] = {"gene": "rna", "genes": "rna", "mrna": "rna", "peak": "atac"}


def kind_of_key(key: str) -> Kind | None:
    """Kind of the modality with this key of ``mdata.mod``; `None` if the key does not tell it."""
    return next((kind for kind, names in MODALITY_NAMES.items() if _joined(key) in names), None)


def kind_of_type(name: str) -> Kind | None:
    """Kind that a type of features, as ``var`` names it, stands for; `None` if it is not known."""
    return FEATURE_TYPES.get(name) or kind_of_key(name) or TYPES_IN_WORDS.get(name.lower())


def is_of_no_kind(key: str) -> bool:
    """Whether the modality with this key, or this type of features, is known and no model takes it."""
    return _joined(key) in OTHER_NAMES


def _joined(name: str) -> str:
    """A name in lower case, with its words joined by ``_``."""
    return name.lower().replace(" ", "_").replace("-", "_")


#: Name of the joint embedding, where others are named after their modality.
JOINT: Final = "joint"

# Keys under which `workflow` and the command line write into the user's data; all have "scmamba" in their name.
#: ``obsm`` key of embeddings, of the MuData (joint) and of each modality.
OBSM_KEY: Final = "X_scmamba"
#: ``obsm`` key of UMAP coordinates, of the MuData (joint embedding) and of each modality.
UMAP_KEY: Final = "X_umap_scmamba"
#: ``obs`` key of the clusters of the joint embedding.
CLUSTER_KEY: Final = "leiden_scmamba"
#: ``obs`` key of the validation cells, bool: the network was not trained on them, but they chose the epoch.
VALIDATION_KEY: Final = "validation_scmamba"

# Keys of minibatches, and of the registry of scvi-tools.
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
