"""Do the modalities of a cell describe the same cell?"""

import itertools

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..._compat import warn
from ...errors import ScmambaError
from ..fitting.calibration import match_temperature
from .cells import as_mudata, embed_modality, refuse_anndata
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
            different cells. At 0 and below they fit no better. It finds swapped cells best on most sets.

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
        refuse_anndata(adata)
        with as_mudata(self, adata) as mdata:
            kinds = [kind for kind, key in self.kinds.items() if key in mdata.mod]
            if len(kinds) < 2:
                raise ScmambaError(
                    f"Agreement needs two modalities, found {kinds}: the model knows {list(self.kinds)}, the data hold "
                    f"{list(mdata.mod)}."
                )
            found = {kind: embed_modality(self, mdata, kind, batch_size) for kind in kinds}
            names = mdata.obs_names
        parts = []
        for a, b in itertools.combinations(kinds, 2):
            both = found[a].has & found[b].has
            if both.sum() < MIN_CELLS:
                continue
            x, y = (of_kind.z[both[of_kind.has]] for of_kind in (found[a], found[b]))
            evidence = log_evidence(x, y, match_temperature(self, a, b)[0], self.module.device)
            part = np.full((len(names), 2), np.nan)
            part[both] = np.column_stack([(x * y).sum(axis=1), evidence])
            parts.append(part)
        if not parts:
            raise ScmambaError(
                f"Fewer than {MIN_CELLS} cells have two of {kinds}: too few to compare a cell with others."
            )
        return _mean_of_known(parts, names)


def _mean_of_known(parts: list[np.ndarray], names: pd.Index) -> pd.DataFrame:
    """Mean of ``(n, 2)`` over the pairs of modalities that a cell has; warn of cells that have none."""
    stacked = np.stack(parts)
    known = np.isfinite(stacked[..., 0]).any(axis=0)
    if not known.all():
        warn(
            f"{int((~known).sum()):,} of {len(names):,} cells have fewer than two modalities, or two that fewer "
            f"than {MIN_CELLS} cells share: their agreement is NaN."
        )
    mean = np.full((len(names), 2), np.nan)
    mean[known] = np.nanmean(stacked[:, known], axis=0)
    return pd.DataFrame(mean, index=names, columns=["cosine", "evidence"])
