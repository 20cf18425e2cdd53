"""What of the joint embedding is fitted to the training cells: components before training, maps and batches after it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...nn.joint import N_CLUSTERS, JointEmbedding, cluster_sums
from ...nn.reliability import are_counts, coefficient_alpha, split_counts, split_half_reliability
from ...nn.spectral import TruncatedSVD
from ...ops.csr import product
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix, iterate_blocks
from ..inputs.sampling import sample
from .held_out import apply_to_cells
from .initialization import MAX_CELLS

#: Cells of a cluster on average: enough for the mean of each batch in it.
CELLS_PER_CLUSTER = 50
#: The offset of a batch is a mean over its cells: of fewer it would describe just these cells, and take out what they are.
MIN_CELLS_OF_BATCH = 20
#: Of fewer cells, the reliability of a component is hardly better known than without measuring it.
MIN_CELLS_OF_RELIABILITY = 20
#: Rounds of clustering and of comparing batches within clusters; the offsets change little after the third.
N_ROUNDS = 5


def initialize_joint(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    held_out: np.ndarray,
    svds: Mapping[str, TruncatedSVD],
    seed: int,
    known_counts: bool,
) -> None:
    """Give the joint embedding the components of every modality, each weighted by its reliability.

    It is measured on the cells ``held_out``: a component holds some of the noise of the ``cells`` that it was fitted to, and
    both halves of such a cell have their part of it, so that most components of accessibility look reliable there and are not.
    ``known_counts``: all values were checked to be counts at setup, which saves a pass over them.
    """
    reliabilities = {}
    for kind, matrix in matrices.items():
        components = svds[kind].components
        measured = held_out if matrix.present(held_out).sum() >= MIN_CELLS_OF_RELIABILITY else cells
        if known_counts or all(are_counts(block) for block in iterate_blocks(matrix, measured)):
            generator = torch.Generator(module.device).manual_seed(seed)
            blocks = (block.to(module.device) for block in iterate_blocks(matrix, measured))
            halves = (split_counts(block, generator) for block in blocks)
            transformed = ((module.transform(a, kind), module.transform(b, kind)) for a, b in halves)
            reliabilities[kind] = split_half_reliability(transformed, components)
        else:
            values = (module.transform(block, kind) for block in iterate_blocks(matrix, measured))
            reliabilities[kind] = coefficient_alpha(values, components)
    _joint(module).set_components(svds, reliabilities)


@torch.inference_mode()
def fit_joint(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    batches: np.ndarray | None,
    seed: int,
) -> dict[str, float]:
    """Fit what depends on the trained encoders to the training ``cells`` and their ``batches``, if these are corrected for.

    Returns, per kind, the fraction of the variance of what the joint embedding reads that batch offsets take out.
    """
    features, present = _features(module, matrices, cells)
    joint = _joint(module)
    if batches is None:
        joint.fit_maps(features, present, module.config.joint_shared_weight)
        return {}
    batch = torch.from_numpy(batches).long().to(module.device)
    cluster = torch.zeros_like(batch)  # one for all: the first offsets give every batch the same mean
    corrected, z, cluster = _fit_offsets(module, features, present, batch, cluster, seed)
    without_means = _own_clusters(joint, features, corrected, present, z, batch, cluster)
    if not torch.equal(without_means, cluster):
        corrected, z, cluster = _fit_offsets(module, features, present, batch, without_means, seed)
    joint.set_centroids(cluster_sums(corrected, present, z, cluster))  # what new batches will be compared with
    left = {kind: corrected[kind][has].var(0).sum() / features[kind][has].var(0).sum() for kind, has in present.items()}
    return {kind: 1 - float(fraction) for kind, fraction in left.items()}


def _fit_offsets(
    module: SCMAMBAModule,
    features: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    batch: Tensor,
    cluster: Tensor,
    seed: int,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fit offsets and maps, beginning with ``cluster`` ``(n,)``: features without offsets, embedding and clusters after it."""
    joint, weight = _joint(module), module.config.joint_shared_weight
    for i in range(N_ROUNDS + 1):
        for kind, x in features.items():
            # on the CPU, which adds in the same order every time
            parts = (part.cpu() for part in (x, batch, cluster, present[kind]))
            known = _batch_offsets(*parts)
            joint.get_buffer(f"batch_offset_{kind}")[: len(known)] = known.to(module.device)
        corrected = joint.without_batch_offsets(features, batch)
        joint.fit_maps(corrected, present, weight)
        z = joint(features, present, batch)
        cluster = _clusters(z, seed + i)
    return corrected, z, cluster


def _own_clusters(
    joint: JointEmbedding,
    features: Mapping[str, Tensor],
    corrected: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    z: Tensor,
    batch: Tensor,
    cluster: Tensor,
) -> Tensor:
    """Clusters ``(n,)`` to begin again with: those of ``cluster``, or others for a batch that was moved onto other cells.

    The first difference of means moves a batch of one type onto whatever the other batches have most of, and it fits there too.
    If most of its cells are in other clusters when its offset is fitted from that of the other batches, they begin in these.
    """
    found = cluster.clone()
    of_all = cluster_sums(corrected, present, z, cluster)
    offsets = {kind: joint.get_buffer(f"batch_offset_{kind}")[:-1] for kind in features}
    n_cells = {kind: torch.bincount(batch[has], minlength=joint.n_batches).float() for kind, has in present.items()}
    for number in batch.unique().tolist():
        rows = (batch == number).nonzero().squeeze(1)
        if len(rows) == len(batch) or len(rows) < MIN_CELLS_OF_BATCH:
            continue
        of_batch, kept, has = ({kind: x[rows] for kind, x in each.items()} for each in (features, corrected, present))
        own = cluster_sums(kept, has, z[rows], cluster[rows])
        joint.set_centroids({name: of_all[name] - sums for name, sums in own.items()})
        given = {kind: of_kind[number] for kind, of_kind in offsets.items()}
        others = {kind: n * (torch.arange(len(n), device=n.device) != number) for kind, n in n_cells.items()}
        of_others = {kind: product(n, offsets[kind]) / n.sum().clamp_min(1) for kind, n in others.items()}
        nearer = joint.fitted_offset(of_others, given, of_batch, has, N_ROUNDS)
        before, after = (joint.nearest_clusters(of_batch, has, offset) for offset in (given, nearer))
        if (before != after).float().mean() > 0.5:
            found[rows] = after
    return found


@torch.inference_mode()
def fit_new_batches(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    batches: np.ndarray,
    is_new: Mapping[str, np.ndarray],
    seed: int,
) -> None:
    """Estimate the offsets of batches that the joint embedding was not fitted to; everything else stays as it is.

    ``batches`` ``(n_obs,)`` are the batches of all cells, ``is_new`` ``(n_obs,)`` tells per modality the cells that have it and
    whose batch needs an offset in it. Those of `small_batches` stay as they are.
    """
    n_batches = _joint(module).n_batches
    sizes = {kind: np.bincount(batches[new], minlength=n_batches) for kind, new in is_new.items()}
    for number in range(n_batches):
        enough = {kind: matrices[kind] for kind, n in sizes.items() if n[number] >= MIN_CELLS_OF_BATCH}
        if enough:
            features, present = _features(module, enough, sample(np.flatnonzero(batches == number), MAX_CELLS, seed))
            _joint(module).fit_batch_offset(features, present, number, N_ROUNDS)


def small_batches(batches: np.ndarray, present: Mapping[str, np.ndarray]) -> dict[int, dict[str, int]]:
    """Batches of which some cells, fewer than `MIN_CELLS_OF_BATCH`, have a modality: how many per modality."""
    small: dict[int, dict[str, int]] = {}
    for kind, has in present.items():
        numbers, sizes = np.unique(batches[has], return_counts=True)
        for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
            if size < MIN_CELLS_OF_BATCH:
                small.setdefault(number, {})[kind] = size
    return small


def _joint(module: SCMAMBAModule) -> JointEmbedding:
    assert module.joint is not None, "only called for a model that has one"
    return module.joint


def _features(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the joint embedding reads of the cells ``(n, 2 z)``, and who has each modality ``(n,)``."""
    return apply_to_cells(module.joint_features, module, matrices, cells)


def _clusters(z: Tensor, seed: int) -> Tensor:
    """Number of the cluster of each row of ``z`` ``(n,)``."""
    from sklearn.cluster import KMeans

    n_clusters = max(1, min(N_CLUSTERS, len(z) // CELLS_PER_CLUSTER))
    found = KMeans(n_clusters, n_init=2, random_state=seed).fit_predict(z.cpu().numpy())
    return torch.from_numpy(found).long().to(z.device)


def _batch_offsets(x: Tensor, batch: Tensor, cluster: Tensor, present: Tensor) -> Tensor:
    """Offsets of all batches ``(batches, 2 z)``, from least squares of ``x`` on cluster and batch; mean zero over cells.

    The normal equations need sums over the cells of each batch and each cluster only.
    """
    n_batches = int(batch.max()) + 1
    x, batch, cluster = x[present].double(), batch[present], cluster[present]
    together = torch.bincount(batch * N_CLUSTERS + cluster, minlength=n_batches * N_CLUSTERS)
    together = together.view(n_batches, N_CLUSTERS).double()  # cells of each batch in each cluster
    n_cells, share = together.sum(1), together / together.sum(0).clamp_min(1)
    of_batch, of_cluster = (
        x.new_zeros(n, x.shape[1]).index_add_(0, group, x) for n, group in ((n_batches, batch), (N_CLUSTERS, cluster))
    )
    # a batch that shares no cluster with another one has no unique offset: the smallest solution is taken
    inverse = torch.linalg.pinv(torch.diag(n_cells) - share @ together.T, rtol=1e-9, hermitian=True)
    offsets = inverse @ (of_batch - share @ of_cluster)
    centred = offsets - n_cells @ offsets / n_cells.sum()
    return (centred * (n_cells >= MIN_CELLS_OF_BATCH)[:, None]).float()  # of a small batch too little is known
