"""Which regions of the genome, and which features, make a group of cells lie where it lies."""

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

from ..errors import ScmambaError, UnknownNameError
from ..nn.attribution import integrated_gradients
from ..ops.csr import is_csr
from ._cells import kind_of, opened
from ._genome import places_of
from ._matrix import in_parts
from ._start import sample

if TYPE_CHECKING:
    from ._matrix import ModalityMatrix

#: Fewer cells have no mean to speak of.
MIN_CELLS = 5


class ImportanceMixin:
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
        """Features, or patches of the genome, that draw the cells of a group to where they lie.

        A group's direction leads from the mean of the other cells to its own mean, in the joint embedding as ``modality``
        alone gives it. What each value of a cell adds to the cell's place along that direction is found by integrated
        gradients from an empty cell, and averaged over cells of the group, less the average over other cells, so that
        features that all cells have cancel. This explains the model, not the cells: types that the modality alone cannot
        tell apart share their explanation, and a difference of means finds markers better. On a simulated set of three
        types, known markers rank above others with a mean AUROC of 0.9; for rare types, and siblings seen by
        accessibility alone, it can fall to chance.

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
            Cells of a group, and as many others, drawn at random with the seed of scvi-tools; means over 200 cells hardly
            change with more.
        n_steps
            Points on the line from the empty cell; with 8, shares sum to the score within 1e-5 on simulated sets.
        batch_size
            Cells of a minibatch: memory is that of one training step with so many.

        Returns
        -------
        One row per group and feature or patch, in the order of the genome: ``group``, ``name``, ``chrom``, ``start``,
        ``end`` (``""`` and -1 where not known), ``importance`` (along the direction, in units of the embedding before it is scaled to length 1)
        and ``score``, importance over its standard error between cells, which is what ranks features of unlike
        abundance; for patches also ``n_features`` and ``top_feature``, the one with the highest importance.

        Raises
        ------
        ScmambaError
            No such column or group, fewer than two groups, or a group with fewer than 5 cells that have the modality.

        See Also
        --------
        scmamba_scvi.pl.region_importance : draws it along the genome.

        Examples
        --------
        >>> table = model.get_region_importance("cell_type", "atac", groups=["type_1"])
        >>> best = table.nlargest(3, "score")[["name", "importance", "score"]]
        """
        if level not in ("features", "patches"):
            raise UnknownNameError("level", level, ("features", "patches"))
        kind = kind_of(self, modality)
        with opened(self, adata, kind if isinstance(adata, AnnData) else None) as mdata:
            if self.kinds[kind] not in mdata.mod:
                raise ScmambaError(f"The data have no modality {self.kinds[kind]!r}; they have {list(mdata.mod)}.")
            manager = self.get_anndata_manager(self._validate_anndata(mdata), required=True)
            matrix = manager.matrix(kind)
            column = _groups(mdata, self.kinds[kind], groupby)
            column[~matrix.present(np.arange(mdata.n_obs))] = None
            asked = _asked(column, groups, groupby)
            found = {
                group: self._importance_of(matrix, kind, column, group, max_cells, n_steps, batch_size)
                for group in asked
            }
        table = _by_feature(self, kind, found)
        return table if level == "features" else _by_patch(table, self.layouts[kind])

    def _importance_of(
        self, matrix: ModalityMatrix, kind: str, column: np.ndarray, group: str, max_cells: int, n_steps: int, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Importance and score ``(f,)`` of one group."""
        seed = settings.seed or 0
        known = np.flatnonzero([value is not None for value in column])
        inside = sample(known[column[known] == group], max_cells, seed)
        outside = sample(known[column[known] != group], max_cells, seed)
        self.module.eval()
        here, there = (self._mean_place(matrix, kind, cells, size) for cells in (inside, outside))
        direction = torch.nn.functional.normalize(here - there, dim=0)
        mean, error = zip(
            *(self._shares(matrix, kind, cells, direction, n_steps, size) for cells in (inside, outside)), strict=True
        )
        importance = mean[0] - mean[1]
        spread = (error[0] + error[1]).sqrt()
        score = torch.where(spread > 0, importance / spread.clamp_min(1e-12), 0.0)
        return importance.cpu().numpy(), score.cpu().numpy()

    def _place(self, kind: str) -> Callable[[Tensor], Tensor]:
        """From values ``(n, f)`` of one modality to the joint embedding ``(n, z)`` that it alone gives.

        Before it is scaled to length 1: near their own direction cells of a group would gain nothing more from a marker.
        """
        encoder, joint = self.module.encoders[kind], self.module.joint

        def place(values: Tensor) -> Tensor:
            view = encoder(values)
            if joint is None:
                return view
            return joint.features(values, view, kind) @ joint.get_buffer(f"map_{kind}")

        return place

    def _values(self, matrix: ModalityMatrix, kind: str, cells: np.ndarray) -> Tensor:
        return self.module.values[kind](matrix.read(cells).to(self.module.device))

    @torch.no_grad()
    def _mean_place(self, matrix: ModalityMatrix, kind: str, cells: np.ndarray, size: int) -> Tensor:
        place = self._place(kind)
        return sum(place(self._values(matrix, kind, part)).sum(0) for part in in_parts(cells, size)) / len(cells)

    def _shares(
        self, matrix: ModalityMatrix, kind: str, cells: np.ndarray, direction: Tensor, n_steps: int, size: int
    ) -> tuple[Tensor, Tensor]:
        """Mean share of each feature in the cells' places along ``direction`` ``(f,)``, and its squared error."""
        place = self._place(kind)
        total, square = torch.zeros(2, matrix.n_features, dtype=torch.double, device=direction.device)
        for part in in_parts(cells, size):
            values = self._values(matrix, kind, part).detach()
            shares = integrated_gradients(lambda x: place(x) @ direction, values, n_steps)
            if is_csr(shares):
                at, of = shares.col_indices().long(), shares.values().double()
                total.index_add_(0, at, of)
                square.index_add_(0, at, of.square())
            else:
                total += shares.double().sum(0)
                square += shares.double().square().sum(0)
        mean = total / len(cells)
        return mean, (square / len(cells) - mean.square()).clamp_min(0) / len(cells)


def _groups(mdata: MuData, key: str, groupby: str) -> np.ndarray:
    """Group of each cell as text, `None` for cells without one."""
    if groupby in mdata.obs:
        column = mdata.obs[groupby]
    elif groupby in mdata.mod[key].obs:
        column = mdata.mod[key].obs[groupby].reindex(mdata.obs_names)
    else:
        raise UnknownNameError("groupby", groupby, dict.fromkeys([*mdata.obs, *mdata.mod[key].obs]))
    return np.array([None if pd.isna(value) else str(value) for value in column], dtype=object)


def _asked(column: np.ndarray, groups: Sequence[str] | None, groupby: str) -> list[str]:
    sizes = pd.Series(column, dtype=object).value_counts()
    if len(sizes) < 2:
        raise ScmambaError(f"{groupby!r} has {len(sizes)} groups; a direction needs one and another to lead from.")
    asked = sorted(sizes.index) if groups is None else [groups] if isinstance(groups, str) else list(map(str, groups))
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
    places, layout = places_of(model, kind), model.layouts[kind]
    order = np.argsort(layout.slots, kind="stable")  # of the genome
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


def _by_patch(table: pd.DataFrame, layout) -> pd.DataFrame:
    best = table.loc[table.groupby(["group", "patch"], sort=False)["importance"].idxmax(), ["group", "patch", "name"]]
    table = table.assign(variance=(table["importance"] / table["score"].where(table["score"] != 0)).fillna(0) ** 2)
    sums = table.groupby(["group", "patch"], sort=False).agg(
        chrom=("chrom", "first"), start=("start", "min"), end=("end", "max"), importance=("importance", "sum"),
        variance=("variance", "sum"), n_features=("name", "size"),
    )  # fmt: skip
    sums["score"] = sums["importance"] / np.sqrt(sums.pop("variance")).replace(0, np.nan)
    sums = sums.reset_index().merge(best.rename(columns={"name": "top_feature"}), on=["group", "patch"])
    sums.insert(1, "name", np.asarray(layout.patch_names)[sums["patch"]])
    return sums.assign(score=sums["score"].fillna(0.0))
