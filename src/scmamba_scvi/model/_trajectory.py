"""Order of cells along a process, in the joint embedding and in each modality's view."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..errors import ScmambaError, UnknownNameError
from ..metrics import diffusion_pseudotime
from ..metrics._distances import as_matrix, check_k
from ..metrics._graph import neighbor_graph
from ._cells import kind_of, opened
from ._columns import obs_column

JOINT = "joint"


class TrajectoryMixin:
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
            Name of a cell; or with ``groupby`` of a group, whose medoid in the joint embedding is taken, among its cells
            that have everything asked for.
        groupby
            Column of ``obs``.
        adata
            Cells of one process; others take part in the diffusion. `None`: those of the model.
        embeddings
            ``"joint"``, kinds or keys of modalities. `None`: all that the data have.
        n_neighbors, n_dcs
            As in :func:`scmamba_scvi.metrics.diffusion_pseudotime`.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        Cells, in the order and under the names of ``adata``, by embeddings; 0 at the root to 1 at the farthest cell. Cells
        that lack a modality, or that no path joins to the root, are NaN; a warning says how many of the latter.
        Compare columns with :func:`scmamba_scvi.metrics.pseudotime_consistency` and
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
        with opened(self, adata) as mdata:
            found = self._embeddings_of(mdata, embeddings, batch_size)
            names = mdata.obs_names
            start = _root(mdata, root, groupby, found)
        out = pd.DataFrame(np.nan, index=names, columns=list(found))
        for name, z in found.items():
            has = np.isfinite(z).all(axis=1)
            position = int(has[:start].sum())
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                out.loc[has, name] = diffusion_pseudotime(z[has], position, n_neighbors=n_neighbors, n_dcs=n_dcs)
            for warning in said:
                if "not connected" in str(warning.message):
                    warnings.warn(f"{name}: {warning.message}", UserWarning, stacklevel=2)
                else:  # of others, to be seen as if nothing had listened
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
        """How strongly groups of cells are joined, beyond what their sizes give by chance (PAGA, [Wolf19]_).

        Parameters
        ----------
        groupby
            Column of ``obs`` with the groups; cells without one are left out.
        adata
            Cells. `None`: those of the model.
        embedding
            ``"joint"``, or kind or key of a modality.
        n_neighbors
            Of each cell.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        Groups by groups, symmetric, 0 (not joined) to 1.

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

        with opened(self, adata) as mdata:
            (z,) = self._embeddings_of(mdata, [embedding], batch_size).values()
            column = obs_column(mdata, groupby, "groupby")
        keep = np.isfinite(z).all(axis=1) & column.notna().to_numpy()
        groups = column[keep].astype(str)
        if groups.nunique() < 2:
            raise ScmambaError(f"{groupby!r} has {groups.nunique()} groups among these cells; joins need two.")
        check_k(n_neighbors, None, int(keep.sum()))
        cells = neighbor_graph(as_matrix(z[keep], "the embedding"), n_neighbors, 0)
        cells.obs["group"] = pd.Categorical(groups.to_numpy())
        sc.tl.paga(cells, groups="group")
        names = list(cells.obs["group"].cat.categories)
        return pd.DataFrame(cells.uns["paga"]["connectivities"].toarray(), index=names, columns=names)

    def _embeddings_of(
        self, mdata: MuData, embeddings: Sequence[str] | None, batch_size: int | None
    ) -> dict[str, np.ndarray]:
        if embeddings is None:
            embeddings = [JOINT, *(kind for kind, key in self.kinds.items() if key in mdata.mod)]
        asked = [embeddings] if isinstance(embeddings, str) else list(embeddings)
        found = {}
        for name in asked:
            kind = None if name == JOINT else kind_of(self, name, "embedding")
            with warnings.catch_warnings():
                # cells without a modality are marked in the result
                warnings.filterwarnings("ignore", message=".*their embedding is NaN", category=UserWarning)
                z = self.get_latent_representation(mdata, modality=kind, batch_size=batch_size)
            found[JOINT if kind is None else kind] = z
        if not found:
            raise ScmambaError("embeddings is empty: name 'joint' or a modality.")
        return found


def _root(mdata: MuData, root: str, groupby: str | None, found: dict[str, np.ndarray]) -> int:
    """Position of the root cell."""
    has = np.all([np.isfinite(z).all(axis=1) for z in found.values()], axis=0)
    if groupby is None:
        at = mdata.obs_names.get_indexer([root])[0]
        if at < 0:
            columns = [name for name in mdata.obs if (mdata.obs[name].astype(str) == str(root)).any()]
            hint = f" It is a value of obs[{columns[0]!r}]: pass groupby={columns[0]!r}." if columns else ""
            raise ScmambaError(
                f"The root {root!r} is not among the {mdata.n_obs:,} cells, such as {mdata.obs_names[0]!r}.{hint}"
            )
        if not has[at]:
            raise ScmambaError(f"The root {root!r} lacks one of {list(found)}: choose a cell that has all of them.")
        return int(at)
    column = obs_column(mdata, groupby, "groupby")
    inside = (column.astype(str) == str(root)).to_numpy() & column.notna().to_numpy()
    if not inside.any():
        raise UnknownNameError(f"group of {groupby!r}", root, sorted(column.dropna().astype(str).unique()))
    if not (inside & has).any():
        raise ScmambaError(f"No cell of {root!r} has all of {list(found)}: name fewer, embeddings=[...].")
    at = np.flatnonzero(inside & has)
    z = next(iter(found.values()))[at]
    return int(at[(z @ z.sum(0)).argmax()])  # of unit vectors the one with the least mean distance to the others
