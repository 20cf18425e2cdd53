"""Order of cells along a process, in the joint embedding and in that of each modality."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..._columns import obs_column
from ..._compat import warn
from ..._keys import JOINT
from ...errors import ScmambaError, UnknownNameError
from ...metrics import diffusion_pseudotime
from ...metrics.distances import medoid
from ..inputs.kinds import kinds_in
from ..inputs.manager import MultiModalManager
from .cells import kind_of, registered
from .embedding import EmbeddingMixin


class TrajectoryMixin(EmbeddingMixin):
    """`get_pseudotime`."""

    def get_pseudotime(
        self,
        adata: MuData | AnnData | None = None,
        *,
        root: str,
        groupby: str | None = None,
        embeddings: Sequence[str] | None = None,
        n_neighbors: int = 30,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Diffusion pseudotime from a root, the same cell for every embedding.

        Parameters
        ----------
        adata
            Cells of one process, as MuData or AnnData of one modality; cells that do not belong to it would take part in
            the diffusion. `None`: those of the model.
        root
            Name of a cell; with ``groupby``, name of a group. The root is then the medoid of the group's cells, among
            those that have all ``embeddings``, in the first of these (the joint one by default).
        groupby
            Column of ``obs`` with the groups.
        embeddings
            ``"joint"``, kinds or keys of modalities. `None`: the joint embedding and all modalities that the data have.
        n_neighbors
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
            The root is not there or lacks a modality, no cell is connected to it, there are too few cells for
            ``n_neighbors``, or the model is not trained.

        Examples
        --------
        >>> time = model.get_pseudotime(root="type_1", groupby="cell_type")
        >>> time.columns.tolist()
        ['joint', 'rna', 'atac']
        """
        data = registered(self, adata)
        found = self._embeddings_of(data, embeddings, batch_size)
        root_cell = _root(data.adata, root, groupby, found)
        out = pd.DataFrame(np.nan, index=data.adata.obs_names, columns=list(found))
        for name, z in found.items():
            has = np.isfinite(z).all(axis=1)
            time = diffusion_pseudotime(z[has], int(has[:root_cell].sum()), n_neighbors=n_neighbors)
            out.loc[has, name] = time
            if np.isnan(time).any():
                warn(
                    f"{name}: {np.isnan(time).sum():,} of {len(time):,} cells are not connected to the root and have no "
                    f"pseudotime (NaN); more neighbours than {n_neighbors} may connect them."
                )
        return out

    def _embeddings_of(
        self, data: MultiModalManager, embeddings: Sequence[str] | None, batch_size: int | None
    ) -> dict[str, np.ndarray]:
        """Embeddings ``(n, z)`` by ``"joint"`` or kind, in the order asked for; cells without a modality are NaN."""
        if embeddings is None:
            embeddings = [JOINT, *kinds_in(data.adata, self.kinds)]
        found = {}
        for name in [embeddings] if isinstance(embeddings, str) else embeddings:
            kind = None if name == JOINT else kind_of(self, name, "embedding")
            found[kind or JOINT] = self._embed(data, kind, np.arange(data.adata.n_obs), batch_size)
        if not found:
            raise ScmambaError("embeddings is empty: name 'joint' or a modality.")
        return found


def _root(mdata: MuData, root: str, groupby: str | None, found: dict[str, np.ndarray]) -> int:
    """Position of the root cell, which has every embedding ``found``."""
    has_all = np.all([np.isfinite(z).all(axis=1) for z in found.values()], axis=0)
    if groupby is not None:
        groups = obs_column(mdata, groupby, "groupby")
        groups = groups.astype(str).where(groups.notna())
        cells = np.flatnonzero((groups == str(root)) & has_all)
        if not (groups == str(root)).any():
            raise UnknownNameError(f"group of {groupby!r}", root, sorted(groups.dropna().unique()))
        if not len(cells):
            raise ScmambaError(f"No cell of {root!r} has all of {list(found)}: name fewer, embeddings=[...].")
        z = next(iter(found.values()))[cells]
        return int(cells[medoid(z)])
    position = int(mdata.obs_names.get_indexer([root])[0])
    if position < 0:
        tables = [mdata.obs, *(part.obs for part in mdata.mod.values())]
        columns = [name for obs in tables for name in obs if (obs[name].astype(str) == str(root)).any()]
        hint = f" It is a value of obs[{columns[0]!r}]: pass groupby={columns[0]!r}." if columns else ""
        raise ScmambaError(
            f"The root {root!r} is not among the {mdata.n_obs:,} cells, such as {mdata.obs_names[0]!r}.{hint}"
        )
    if not has_all[position]:
        raise ScmambaError(f"The root {root!r} lacks one of {list(found)}: choose a cell that has all of them.")
    return position
