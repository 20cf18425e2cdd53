"""Do the modalities of a cell describe the same cell?"""

import itertools

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..._compat import warn
from ...errors import ScmambaError
from ..fitting.calibration import match_temperature, warn_of_uncalibrated
from ..inputs.kinds import kinds_in
from .cells import registered, warn_of_unread
from .embedding import EmbeddingMixin
from .retrieval import log_evidence

#: Cells that have both modalities: the mean over fewer does not tell how well different cells fit.
MIN_CELLS = 10


class AgreementMixin(EmbeddingMixin):
    """`get_modality_agreement`."""

    def get_modality_agreement(
        self,
        adata: MuData | AnnData | None = None,
        *,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """How well the embeddings of a cell's modalities fit each other: low for doublets, swapped and damaged cells.

        Parameters
        ----------
        adata
            Cells with two modalities or more, of which the mean over all pairs is taken. `None`: those of the model.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        One row per cell, in the order and under the names of ``adata``; cells with fewer than two modalities are
        NaN, with one warning, and so are those whose two modalities are shared by fewer than 10 cells.

        ``cosine``
            Of the two embeddings, -1 to 1; it depends on the cell alone. Cells of common types, of types with few markers
            and shallow cells score lower than others, so compare within types.
        ``evidence``
            ``log(exp(cosine / t) / mean)`` with the ``t`` of :meth:`match_cells` and the mean over all cells of ``adata`` as
            matches: the logarithm of how many times better the two embeddings of the cell fit each other than those of
            different cells. At 0 and below they fit no better. Among cells that were not trained on it finds swapped ones
            better than the cosine does; among training cells the cosine does, on most sets. Where training held out fewer
            than 10 pairs, ``t`` is the temperature of the loss, with a warning.

        The model was told the pairs of its training cells, so that these score higher than others: compare validation and
        new cells with each other.

        Raises
        ------
        ScmambaError
            The data hold only one of the modalities, fewer than 10 cells have both, or the model is not trained.

        Examples
        --------
        >>> agreement = model.get_modality_agreement()
        >>> agreement.columns.tolist()
        ['cosine', 'evidence']
        """
        data = registered(self, adata)
        warn_of_unread(self, data.adata)
        kinds, names = list(kinds_in(data.adata, self.kinds)), data.adata.obs_names
        if len(kinds) < 2:
            raise ScmambaError(
                f"Agreement needs two modalities, found {kinds}: the model knows {list(self.kinds)}, the data hold "
                f"{list(data.adata.mod)}."
            )
        found = {kind: self._embed_modality(data, kind, batch_size) for kind in kinds}
        parts, pairs = [], []
        for a, b in itertools.combinations(kinds, 2):
            both = found[a].has & found[b].has
            if both.sum() < MIN_CELLS:
                continue
            pairs.append((a, b))
            x, y = (of_kind.z[both[of_kind.has]] for of_kind in (found[a], found[b]))
            evidence = log_evidence(x, y, match_temperature(self, a, b), self.module.device)
            columns = {"cosine": (x * y).sum(axis=1, dtype=np.float64), "evidence": evidence}
            parts.append(pd.DataFrame(columns, index=np.flatnonzero(both)))
        if not parts:
            raise ScmambaError(
                f"Fewer than {MIN_CELLS} cells have two of {kinds}: too few to compare a cell with others."
            )
        warn_of_uncalibrated(self, pairs, "evidence")
        mean = pd.concat(parts).groupby(level=0).mean().reindex(range(len(names)))
        if (n_missing := int(mean["cosine"].isna().sum())) > 0:
            warn(
                f"{n_missing:,} of {len(names):,} cells have fewer than two modalities, or two that fewer than {MIN_CELLS} "
                f"cells share: their agreement is NaN."
            )
        return mean.set_axis(names)
