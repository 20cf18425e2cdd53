"""Order of cells along a process, in the joint embedding and in each modality's view."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..._columns import obs_column
from ...errors import ScmambaError, UnknownNameError
from ...metrics import diffusion_pseudotime
from ...metrics.distances import as_matrix, resolve_k
from ...metrics.graph import neighbor_graph
from .cells import as_mudata, kind_of
from .embedding import EmbeddingMixin

JOINT = "joint"


class TrajectoryMixin(EmbeddingMixin):
    """`get_pseudotime` and `get_group_connectivities`."""

    def get_pseudotime(
        self,
        root: str,
        groupby: str | None = None,
        adata: MuData | AnnData | None = None,
        *,
        embeddings: Sequence[str] | None = None,
        n_neighbors: int = 30,
        n_dcs: int = 10,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Diffusion pseudotime from a root, the same cell for every embedding.

        Parameters
        ----------
        root
            Name of a cell; with ``groupby``, name of a group. The root is then the medoid of the group's cells, among
            those that have all ``embeddings``, in the first of these (the joint one by default).
        groupby
            Column of ``obs`` with the groups.
        adata
            Cells of one process; cells that do not belong to it would take part in the diffusion. `None`: those of the
            model.
        embeddings
            ``"joint"``, kinds or keys of modalities. `None`: the joint embedding and all modalities that the data have.
        n_neighbors, n_dcs
            As in :func:`scmamba_scvi.metrics.diffusion_pseudotime`.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        One row per cell, in the order and under the names of ``adata``, one column per embedding; 0 at the root to 1 at
        the farthest cell. Cells that lack the modality, or that no path connects to the root, are NaN; a warning says how
        many are not connected. Compare columns with :func:`scmamba_scvi.metrics.pseudotime_consistency` and
        :func:`scmamba_scvi.metrics.trajectory_conservation`.

        Raises
        ------
        ScmambaError
            The root is not there or lacks a modality, no cell is connected to it, or there are too few cells for
            ``n_neighbors``.

        Examples
        --------
        >>> time = model.get_pseudotime("type_1", groupby="cell_type")
        >>> time.columns.tolist()
        ['joint', 'rna', 'atac']
        """
        with as_mudata(self, adata) as mdata:
            found = self._embeddings_of(mdata, embeddings, batch_size)
            names = mdata.obs_names
            start = _root(mdata, root, groupby, found)
        out = pd.DataFrame(np.nan, index=names, columns=list(found))
        for name, z in found.items():
            has = np.isfinite(z).all(axis=1)
            start_among_these = int(has[:start].sum())
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                out.loc[has, name] = diffusion_pseudotime(
                    z[has], start_among_these, n_neighbors=n_neighbors, n_dcs=n_dcs
                )
            for warning in caught:
                if "not connected" in str(warning.message):
                    warnings.warn(f"{name}: {warning.message}", UserWarning, stacklevel=2)
                else:  # not ours: passed on as it was
                    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return out

    def get_group_connectivities(
        self,
        groupby: str,
        adata: MuData | AnnData | None = None,
        *,
        embedding: str = JOINT,
        n_neighbors: int = 15,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """How strongly groups of cells are connected, beyond what their sizes give by chance (PAGA, [Wolf19]_).

        Parameters
        ----------
        groupby
            Column of ``obs`` with the groups; cells without one are left out.
        adata
            Cells. `None`: those of the model.
        embedding
            ``"joint"``, or kind or key of a modality; cells without this modality are left out.
        n_neighbors
            Neighbours of each cell in the graph.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        Groups by groups, symmetric, 0 (not connected) to 1.

        Raises
        ------
        ScmambaError
            No such column, fewer than two groups, or too few cells.

        References
        ----------
        .. [Wolf19] Wolf et al., PAGA: graph abstraction reconciles clustering with trajectory inference, Genome Biology
           2019.

        Examples
        --------
        >>> model.get_group_connectivities("cell_type").shape
        (3, 3)
        """
        import scanpy as sc

        with as_mudata(self, adata) as mdata:
            (z,) = self._embeddings_of(mdata, [embedding], batch_size).values()
            column = obs_column(mdata, groupby, "groupby")
        keep = np.isfinite(z).all(axis=1) & column.notna().to_numpy()
        groups = column[keep].astype(str)
        if groups.nunique() < 2:
            raise ScmambaError(
                f"{groupby!r} has {groups.nunique()} groups among these cells; connectivities need at least two."
            )
        k = resolve_k(n_neighbors, None, int(keep.sum()))
        cells = neighbor_graph(as_matrix(z[keep], "the embedding"), k, 0)
        cells.obs["group"] = pd.Categorical(groups.to_numpy())
        sc.tl.paga(cells, groups="group")
        names = list(cells.obs["group"].cat.categories)
        return pd.DataFrame(cells.uns["paga"]["connectivities"].toarray(), index=names, columns=names)

    def _embeddings_of(
        self, mdata: MuData, embeddings: Sequence[str] | None, batch_size: int | None
    ) -> dict[str, np.ndarray]:
        """Embeddings ``(n, z)`` by ``"joint"`` or kind, in the order asked for; cells without a modality are NaN."""
        if embeddings is None:
            embeddings = [JOINT, *(kind for kind, key in self.kinds.items() if key in mdata.mod)]
        found = {}
        for name in [embeddings] if isinstance(embeddings, str) else embeddings:
            kind = None if name == JOINT else kind_of(self, name, "embedding")
            with warnings.catch_warnings():
                # the result shows which cells lack a modality
                warnings.filterwarnings("ignore", message=".*their embedding is NaN", category=UserWarning)
                z = self.get_latent_representation(mdata, modality=kind, batch_size=batch_size)
            found[JOINT if kind is None else kind] = z
        if not found:
            raise ScmambaError("embeddings is empty: name 'joint' or a modality.")
        return found


def _root(mdata: MuData, root: str, groupby: str | None, found: dict[str, np.ndarray]) -> int:
    """Position of the root cell, which has every embedding ``found``."""
    has_all = np.all([np.isfinite(z).all(axis=1) for z in found.values()], axis=0)
    if groupby is not None:
        return _medoid(_cells_of_group(mdata, root, groupby), root, has_all, found)
    position = mdata.obs_names.get_indexer([root])[0]
    if position < 0:
        columns = [name for name in mdata.obs if (mdata.obs[name].astype(str) == str(root)).any()]
        hint = f" It is a value of obs[{columns[0]!r}]: pass groupby={columns[0]!r}." if columns else ""
        raise ScmambaError(
            f"The root {root!r} is not among the {mdata.n_obs:,} cells, such as {mdata.obs_names[0]!r}.{hint}"
        )
    if not has_all[position]:
        raise ScmambaError(f"The root {root!r} lacks one of {list(found)}: choose a cell that has all of them.")
    return int(position)


def _cells_of_group(mdata: MuData, group: str, groupby: str) -> np.ndarray:
    """Which cells are in the group, bool ``(n,)``."""
    column = obs_column(mdata, groupby, "groupby")
    inside = (column.astype(str) == str(group)).to_numpy() & column.notna().to_numpy()
    if not inside.any():
        raise UnknownNameError(f"group of {groupby!r}", group, sorted(column.dropna().astype(str).unique()))
    return inside


def _medoid(inside: np.ndarray, group: str, has_all: np.ndarray, found: dict[str, np.ndarray]) -> int:
    """Position of the cell of a group that is nearest to the others, in the first embedding."""
    cells = np.flatnonzero(inside & has_all)
    if not len(cells):
        raise ScmambaError(f"No cell of {group!r} has all of {list(found)}: name fewer, embeddings=[...].")
    z = next(iter(found.values()))[cells]
    return int(cells[(z @ z.sum(0)).argmax()])  # for unit vectors, the largest sum of cosines
