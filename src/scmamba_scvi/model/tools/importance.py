"""Which regions of the genome, and which features, place a group of cells where it is in the embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import settings
from torch import Tensor

from ..._columns import obs_column
from ...errors import ScmambaError, UnknownNameError
from ...nn.attribution import integrated_gradients
from ...ops.csr import is_csr
from ..inputs.arguments import check_count
from ..inputs.matrices import in_parts
from ..inputs.sampling import sample
from .cells import as_mudata, kind_of
from .embedding import EmbeddingMixin

if TYPE_CHECKING:
    from ...pp import FeatureLayout
    from ..inputs.matrices import ModalityMatrix

#: The mean of fewer cells says more about these cells than about their group.
MIN_CELLS = 5


class ImportanceMixin(EmbeddingMixin):
    """`get_region_importance`."""

    def get_region_importance(
        self,
        groupby: str,
        modality: str = "atac",
        groups: Sequence[str] | None = None,
        adata: MuData | AnnData | None = None,
        *,
        level: str = "features",
        max_cells: int = 200,
        n_steps: int = 8,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Features, or patches of the genome, that place the cells of a group where they are in the embedding.

        A group's direction leads from the mean of the other cells to its own mean, in the joint embedding as ``modality``
        alone gives it. Integrated gradients from an empty cell tell what each value of a cell adds to its position along
        that direction. This is averaged over cells of the group, less the average over other cells, so that features
        that all cells have cancel.

        Rank features by ``importance``, not by ``score``: known markers of simulated types come before other features
        more often so. By the difference of means between the group and the other cells they do so more often still
        (docs/after-integration-results.md, measured by ``benchmarks/region_importance.py``).

        So this explains the model, not the cells: to find markers, take the difference of means. Types that the modality
        alone cannot tell apart share their explanation.

        Parameters
        ----------
        groupby
            Column of ``obs`` with the groups.
        modality
            Kind, or key of ``mdata.mod``.
        groups
            Groups to explain, each against all other cells with a group. `None`: all.
        adata
            Cells. `None`: those of the model.
        level
            ``"features"`` or ``"patches"``, whose importance is the sum over their features.
        max_cells
            At most so many cells of a group, and of the others, drawn at random with the seed of scvi-tools; means over
            200 cells hardly change with more.
        n_steps
            Points on the line from the empty cell: the more there are, the closer what the features add sums to a cell's
            position.
        batch_size
            Cells of a minibatch: memory is that of a training step with so many cells.

        Returns
        -------
        One row per group and feature or patch, in the order of the genome: ``group``, ``name``, ``chrom``, ``start``,
        ``end`` (``""`` and -1 where not known), ``importance`` (along the direction, in units of the embedding before it
        is scaled to length 1) and ``score``, importance over its standard error between cells: how sure it is that there
        is an effect at all, however small. For patches also ``n_features`` and ``top_feature``, the one with the highest
        importance.

        Raises
        ------
        ScmambaError
            No such column or group, fewer than two groups, a group with fewer than 5 cells that have the modality, or
            ``max_cells``, ``n_steps`` or ``batch_size`` below 1.

        See Also
        --------
        scmamba_scvi.pl.region_importance : draws it along the genome.

        Examples
        --------
        >>> table = model.get_region_importance("cell_type", "atac", groups=["type_1"])
        >>> best = table.nlargest(3, "importance")[["name", "importance", "score"]]
        """
        if level not in ("features", "patches"):
            raise UnknownNameError("level", level, ("features", "patches"))
        for name, count in (("max_cells", max_cells), ("n_steps", n_steps), ("batch_size", batch_size)):
            check_count(name, count)
        kind = kind_of(self, modality)
        with as_mudata(self, adata, kind if isinstance(adata, AnnData) else None) as mdata:
            if self.kinds[kind] not in mdata.mod:
                raise ScmambaError(f"The data have no modality {self.kinds[kind]!r}; they have {list(mdata.mod)}.")
            manager = self.get_anndata_manager(self._validate_anndata(mdata), required=True)
            matrix = manager.matrix(kind)
            group_of_cell = _group_of_cell(mdata, groupby)
            group_of_cell[~matrix.present(np.arange(mdata.n_obs))] = None
            found = {
                group: self._importance_of(matrix, kind, group_of_cell, group, max_cells, n_steps, batch_size)
                for group in _groups_to_explain(group_of_cell, groups, groupby)
            }
        table = _by_feature(self, kind, found)
        return table if level == "features" else _by_patch(table, self.layouts[kind])

    def _importance_of(
        self,
        matrix: ModalityMatrix,
        kind: str,
        group_of_cell: np.ndarray,
        group: str,
        max_cells: int,
        n_steps: int,
        batch_size: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Importance and score ``(f,)`` of one group."""
        seed = settings.seed or 0
        known = np.flatnonzero([value is not None for value in group_of_cell])
        inside = sample(known[group_of_cell[known] == group], max_cells, seed)
        outside = sample(known[group_of_cell[known] != group], max_cells, seed)
        self.module.eval()
        own, other = (self._mean_position(matrix, kind, cells, batch_size) for cells in (inside, outside))
        direction = torch.nn.functional.normalize(own - other, dim=0)
        (mean, variance), (mean_outside, variance_outside) = (
            self._shares(matrix, kind, cells, direction, n_steps, batch_size) for cells in (inside, outside)
        )
        importance = mean - mean_outside
        error = (variance + variance_outside).sqrt()
        score = torch.where(error > 0, importance / error.clamp_min(1e-12), 0.0)
        return importance.cpu().numpy(), score.cpu().numpy()

    def _position(self, kind: str) -> Callable[[Tensor], Tensor]:
        """Function from values ``(n, f)`` of one modality to the joint embedding ``(n, z)`` that it alone gives.

        The embedding is not scaled to length 1: a scaled vector that already points along the direction of its group
        would gain nothing from one more marker.
        """
        encoder, joint = self.module.encoders[kind], self.module.joint

        def position(values: Tensor) -> Tensor:
            view = encoder(values)
            if joint is None:
                return view
            return joint.features(values, view, kind) @ joint.get_buffer(f"map_{kind}")

        return position

    def _values(self, matrix: ModalityMatrix, kind: str, cells: np.ndarray) -> Tensor:
        return self.module.values[kind](matrix.read(cells).to(self.module.device))

    @torch.no_grad()
    def _mean_position(self, matrix: ModalityMatrix, kind: str, cells: np.ndarray, batch_size: int) -> Tensor:
        position = self._position(kind)
        sums = (position(self._values(matrix, kind, part)).sum(0) for part in in_parts(cells, batch_size))
        return sum(sums) / len(cells)

    def _shares(
        self, matrix: ModalityMatrix, kind: str, cells: np.ndarray, direction: Tensor, n_steps: int, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Share of each feature in the cells' positions along ``direction``: mean ``(f,)``, and variance of this mean."""
        position = self._position(kind)
        total, square = torch.zeros(2, matrix.n_features, dtype=torch.double, device=direction.device)
        for part in in_parts(cells, batch_size):
            values = self._values(matrix, kind, part).detach()
            shares = integrated_gradients(lambda x: position(x) @ direction, values, n_steps)
            if is_csr(shares):
                features, stored = shares.col_indices().long(), shares.values().double()
                total.index_add_(0, features, stored)
                square.index_add_(0, features, stored.square())
            else:
                total += shares.double().sum(0)
                square += shares.double().square().sum(0)
        mean = total / len(cells)
        return mean, (square / len(cells) - mean.square()).clamp_min(0) / len(cells)


def _group_of_cell(mdata: MuData, groupby: str) -> np.ndarray:
    """Group of each cell as text, `None` for cells without one."""
    column = obs_column(mdata, groupby, "groupby")
    return np.array([None if pd.isna(value) else str(value) for value in column], dtype=object)


def _groups_to_explain(group_of_cell: np.ndarray, groups: Sequence[str] | None, groupby: str) -> list[str]:
    sizes = pd.Series(group_of_cell, dtype=object).value_counts()
    if len(sizes) < 2:
        raise ScmambaError(f"{groupby!r} has {len(sizes)} groups; a group is compared with others, so two are needed.")
    if groups is None:
        asked = sorted(sizes.index)
    else:
        asked = [groups] if isinstance(groups, str) else [str(group) for group in groups]
    for group in asked:
        if group not in sizes:
            raise UnknownNameError(f"group of {groupby!r}", group, sorted(sizes.index))
        if sizes[group] < MIN_CELLS:
            raise ScmambaError(
                f"Group {group!r} of {groupby!r} has {sizes[group]} cells with the modality, and a mean needs "
                f"{MIN_CELLS}: merge it with another, or name the groups to explain, groups=[...]."
            )
    return asked


def _by_feature(model: ImportanceMixin, kind: str, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    places, layout = model.coordinates(kind), model.layouts[kind]
    order = np.argsort(layout.slots, kind="stable")  # that of the genome
    names = pd.Index(model.feature_names(kind))[order]
    parts = [
        pd.DataFrame(
            {
                "group": group, "name": names, "chrom": places.names()[order], "start": places.start[order],
                "end": places.end[order], "importance": importance[order], "score": score[order],
                "patch": layout.patch_of[order],
            }
        )
        for group, (importance, score) in found.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _by_patch(table: pd.DataFrame, layout: FeatureLayout) -> pd.DataFrame:
    """Sums over the features of each patch; variances are added as if features were independent."""
    best = table.loc[table.groupby(["group", "patch"], sort=False)["importance"].idxmax(), ["group", "patch", "name"]]
    # score is importance over its standard error, so the ratio gives the error back
    table = table.assign(variance=(table["importance"] / table["score"].where(table["score"] != 0)).fillna(0) ** 2)
    sums = table.groupby(["group", "patch"], sort=False).agg(
        chrom=("chrom", "first"), start=("start", "min"), end=("end", "max"), importance=("importance", "sum"),
        variance=("variance", "sum"), n_features=("name", "size"),
    )  # fmt: skip
    sums["score"] = sums["importance"] / np.sqrt(sums.pop("variance")).replace(0, np.nan)
    sums = sums.reset_index().merge(best.rename(columns={"name": "top_feature"}), on=["group", "patch"])
    sums.insert(1, "name", np.asarray(layout.patch_names)[sums["patch"]])
    return sums.assign(score=sums["score"].fillna(0.0))
