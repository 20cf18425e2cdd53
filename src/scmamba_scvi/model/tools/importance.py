"""Which regions of the genome, and which features, place a group of cells where it is in the embedding."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import settings
from torch import Tensor

from ..._arguments import check_count, listed
from ..._columns import obs_column
from ..._compat import warn
from ..._keys import KINDS
from ...errors import MOST_NAMES, ScmambaError, UnknownNameError
from ...nn.attribution import integrated_gradients
from ...ops.csr import column_sums
from ...pp import FeatureLayout
from ..inputs.kinds import kinds_in
from ..inputs.matrices import in_parts
from ..inputs.sampling import sample
from .cells import key_of, kind_of, registered
from .embedding import EmbeddingMixin

#: The mean of fewer cells says more about these cells than about their group.
MIN_CELLS = 5


class ImportanceMixin(EmbeddingMixin):
    """`get_region_importance`."""

    def get_region_importance(
        self,
        adata: MuData | AnnData | None = None,
        *,
        groupby: str,
        modality: str | None = None,
        groups: Sequence[str] | None = None,
        level: str = "features",
        max_cells: int = 200,
        n_steps: int = 8,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Features, or patches of the genome, that place the cells of a group where they are in the embedding.

        A group's direction leads from the mean of the other cells to its own mean, in the joint embedding as ``modality``
        alone gives it. Integrated gradients from an empty cell tell what each value of a cell adds to its position along
        that direction. This is averaged over cells of the group, less the average over other cells.

        This explains the model, not the cells: known markers of simulated types come before other features, and more often
        still by the difference of means between the group and the other cells (``benchmarks/region_importance.py``). To
        find markers, take that. Types that the modality alone cannot tell apart share their explanation.

        Parameters
        ----------
        adata
            Cells: MuData, or AnnData of ``modality``. `None`: those of the model.
        groupby
            Column of ``obs`` with the groups.
        modality
            Kind, or key of ``mdata.mod``. `None`: that of an AnnData; of a MuData accessibility, or where it has none RNA,
            both of which have a place on the genome.
        groups
            Groups to explain, each against all other cells with a group. `None`: all but those that are too small, with a
            warning that names them.
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
        ``end`` (``""`` and -1 where not known) and ``importance``, along the direction, in units of the embedding before it
        is scaled to length 1; ``patch`` is the number of the patch, by which features and patches can be joined. For patches
        also ``n_features`` and ``top_feature``, the one with the highest importance.

        Raises
        ------
        ScmambaError
            Fewer than two groups; one of ``groups``, or every group, with fewer than 5 cells that have the modality; or the
            model is not trained.
        UnknownNameError
            No such column, group, modality or level.

        See Also
        --------
        scmamba_scvi.pl.region_importance : draws it along the genome.

        Examples
        --------
        >>> table = model.get_region_importance(
        ...     groupby="cell_type", modality="atac", groups=["type_1"]
        ... )
        >>> best = table.nlargest(3, "importance")[["name", "importance"]]
        """
        if level not in ("features", "patches"):
            raise UnknownNameError("level", level, ("features", "patches"))
        for name, count in (("max_cells", max_cells), ("n_steps", n_steps), ("batch_size", batch_size)):
            check_count(name, count)
        kind, seed = kind_of(self, modality), settings.seed or 0
        data = registered(self, adata, kind)
        if kind is None:
            kinds = kinds_in(data.adata, self.kinds)
            kind = next(kind for kind in ("atac", *KINDS) if kind in kinds)
        key_of(self, data.adata, kind)
        matrix, column = data.matrix(kind), obs_column(data.adata, groupby, "groupby")
        group_of_cell = np.array([None if pd.isna(value) else str(value) for value in column], dtype=object)
        group_of_cell[~matrix.present(np.arange(len(group_of_cell)))] = None
        position = self._position(kind)

        def values_of(cells: np.ndarray) -> Iterator[Tensor]:
            for part in in_parts(sample(cells, max_cells, seed), batch_size):
                yield self.module.transform(matrix.read(part), kind)

        known, features = pd.notna(group_of_cell), _features(self, kind)
        tables = []
        for group in _groups_to_explain(group_of_cell, groups, groupby):
            of_group = group_of_cell == group
            inside, outside = (np.flatnonzero(known & cells) for cells in (of_group, ~of_group))
            own, other = (_mean_position(position, values_of(cells)) for cells in (inside, outside))
            direction = torch.nn.functional.normalize(own - other, dim=0)
            mean, mean_outside = (
                _contributions(position, values_of(cells), direction, n_steps, matrix.n_features)
                for cells in (inside, outside)
            )
            tables.append(features.assign(group=group, importance=(mean - mean_outside)[features.index]))
        table = pd.concat(tables, ignore_index=True)[["group", "name", "chrom", "start", "end", "importance", "patch"]]
        return table if level == "features" else _by_patch(table, self.layouts[kind])

    def _position(self, kind: str) -> Callable[[Tensor], Tensor]:
        """Function from values ``(n, f)`` of one modality to the joint embedding ``(n, z)`` that it alone gives, not scaled."""
        # a vector of length 1 that already points along the direction of its group would gain nothing from one more marker
        encoder, joint = self.module.eval().encoders[kind], self.module.joint
        if joint is None:
            return encoder
        return lambda values: joint.features(values, encoder(values), kind) @ joint.get_buffer(f"map_{kind}")


@torch.no_grad()
def _mean_position(position: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    return torch.cat([position(values) for values in batches]).mean(0)


def _contributions(
    position: Callable[[Tensor], Tensor], batches: Iterable[Tensor], direction: Tensor, n_steps: int, n_features: int
) -> np.ndarray:
    """What each feature adds to the cells' positions along ``direction``, their mean ``(f,)``."""
    total, n_cells = torch.zeros(n_features, dtype=torch.double, device=direction.device), 0
    for values in batches:
        added = integrated_gradients(lambda x: position(x) @ direction, values, n_steps)
        total += column_sums(added)
        n_cells += len(values)
    return (total / n_cells).cpu().numpy()


def _groups_to_explain(group_of_cell: np.ndarray, groups: Sequence[str] | None, groupby: str) -> list[str]:
    sizes = pd.Series(group_of_cell, dtype=object).value_counts()
    if len(sizes) < 2:
        raise ScmambaError(f"{groupby!r} has {len(sizes)} groups; a group is compared with others, so two are needed.")
    if groups is None:
        return _large_enough(sizes, groupby)
    asked = list(dict.fromkeys(map(str, np.atleast_1d(np.asarray(groups, dtype=object)))))
    if not asked:
        raise ScmambaError("groups is empty: name some, or pass None for all.")
    for group in asked:
        if group not in sizes:
            raise UnknownNameError(f"group of {groupby!r}", group, sorted(sizes.index))
        if sizes[group] < MIN_CELLS:
            raise ScmambaError(
                f"Group {group!r} of {groupby!r} has {sizes[group]} cells with the modality, and a mean needs "
                f"{MIN_CELLS}: merge it with another, or name the groups to explain, groups=[...]."
            )
    return asked


def _large_enough(sizes: pd.Series, groupby: str) -> list[str]:
    """Groups of which a mean can be taken, and of the other cells; a warning names the others."""
    is_small = (sizes < MIN_CELLS) | (sizes.sum() - sizes < MIN_CELLS)
    small, large = sizes[is_small].sort_index(), sizes[~is_small].sort_index()
    if not len(large):
        raise ScmambaError(
            f"No group of {groupby!r} can be explained: a mean needs {MIN_CELLS} cells with the modality, in the group and "
            f"outside of it. Merge groups."
        )
    if len(small):
        named = listed([f"{group!r} ({size} cells)" for group, size in small.items()], MOST_NAMES)
        warn(
            f"Groups of {groupby!r} that are too small are not explained: {named}. A mean needs {MIN_CELLS} cells with "
            f"the modality, in the group and outside of it."
        )
    return list(large.index)


def _features(model: ImportanceMixin, kind: str) -> pd.DataFrame:
    """Name, place and patch of each feature in the order of the genome; the index is its position in the model."""
    places, layout = model.coordinates(kind), model.layouts[kind]
    columns = {
        "name": model.feature_names(kind), "chrom": places.names(), "start": places.start, "end": places.end,
        "patch": layout.patch_of,
    }  # fmt: skip
    return pd.DataFrame(columns).iloc[np.argsort(layout.slots, kind="stable")]


def _by_patch(table: pd.DataFrame, layout: FeatureLayout) -> pd.DataFrame:
    """Sums over the features of each patch."""
    by_patch = table.groupby(["group", "patch"], sort=False)
    sums = by_patch.agg(
        chrom=("chrom", "first"), start=("start", "min"), end=("end", "max"), importance=("importance", "sum"),
        n_features=("name", "size"),
    )  # fmt: skip
    sums["top_feature"] = table.loc[by_patch["importance"].idxmax(), "name"].to_numpy()
    sums = sums.reset_index()
    sums.insert(1, "name", np.asarray(layout.patch_names)[sums["patch"]])
    return sums
