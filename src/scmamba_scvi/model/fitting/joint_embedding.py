"""What of the joint embedding is fitted to the training cells: components before training, maps and batches after it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...nn.joint import N_CLUSTERS, JointEmbedding
from ...nn.reliability import are_counts, coefficient_alpha, split_counts, split_half_reliability
from ...nn.spectral import TruncatedSVD
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix, in_parts, iterate_blocks
from ..inputs.sampling import sample
from .initialization import MAX_CELLS

#: Cells of a cluster on average: enough for the mean of each batch in it.
CELLS_PER_CLUSTER = 50
#: The offset of a batch that came after training is a mean over its cells: of fewer it would describe just these cells.
MIN_CELLS_OF_BATCH = 20
#: Rounds of clustering and of comparing batches within clusters; the offsets change little after the third.
N_ROUNDS = 5


def initialize_joint(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    svds: Mapping[str, TruncatedSVD],
    seed: int,
) -> None:
    """Give the joint embedding the components of every modality, each weighted by its reliability on ``cells``."""
    for kind, matrix in matrices.items():
        components = svds[kind].components
        if all(are_counts(block) for block in iterate_blocks(matrix, cells)):
            generator = torch.Generator().manual_seed(seed)
            halves = (split_counts(block, generator) for block in iterate_blocks(matrix, cells))
            transformed = ((module.transform(a, kind), module.transform(b, kind)) for a, b in halves)
            reliability = split_half_reliability(transformed, components)
        else:
            values = (module.transform(block, kind) for block in iterate_blocks(matrix, cells))
            reliability = coefficient_alpha(values, components)
        module.joint.set_components(kind, svds[kind], reliability)


@torch.inference_mode()
def fit_joint(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    batches: np.ndarray | None,
    seed: int,
) -> None:
    """Fit what depends on the trained encoders.

    Parameters
    ----------
    cells
        Training cells.
    batches
        Number of the batch of each of ``cells``; `None`: batches are not corrected for.
    seed
        Of the clusters.
    """
    features, present = _features(module, matrices, cells)
    weight = module.config.joint_shared_weight
    if batches is None:
        module.joint.fit_maps(features, present, weight)
        return
    joint = module.joint
    batch = (
        torch.from_numpy(batches).long().clamp(max=joint.n_batches)
    )  # batches that came after the first training count as one
    for kind in features:  # the first offsets give every batch the same mean
        _set_shift(joint, kind, _offsets(features[kind], batch, torch.zeros_like(batch), present[kind]))
    for i in range(N_ROUNDS):
        joint.fit_maps(_shifted(joint, features, batch), present, weight)
        cluster = _clusters(joint, features, present, batch, seed + i)
        for kind in features:
            _set_shift(joint, kind, _offsets(features[kind], batch, cluster, present[kind]))
    joint.fit_maps(_shifted(joint, features, batch), present, weight)
    _keep_centroids(joint, features, present, batch, seed + N_ROUNDS)


@torch.inference_mode()
def fit_new_batches(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], batches: np.ndarray, first_new: int, seed: int
) -> dict[int, int]:
    """Estimate the offsets of batches that the reference was not trained on; everything else stays as it is.

    Parameters
    ----------
    batches
        Number of the batch of every cell ``(n_obs,)``; those from ``first_new`` on are new.

    Returns
    -------
    New batches with fewer than `MIN_CELLS_OF_BATCH` cells, whose offsets stay zero, and their numbers of cells.
    """
    small = {}
    for number in np.unique(batches[batches >= first_new]):
        cells = np.flatnonzero(batches == number)
        if len(cells) < MIN_CELLS_OF_BATCH:
            small[int(number)] = len(cells)
            continue
        features, present = _features(module, matrices, sample(cells, MAX_CELLS, seed))
        device = module.joint.centroid.device
        module.joint.fit_shift(_to(device, features), _to(device, present), int(number), N_ROUNDS)
    return small


def _keep_centroids(
    joint: JointEmbedding, features: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: Tensor, seed: int
) -> None:
    """Keep, per cluster, what new batches will be compared with."""
    cluster = _clusters(joint, features, present, batch, seed)
    device = joint.centroid.device
    shifted, present = _to(device, _shifted(joint, features, batch)), _to(device, present)
    # offsets are subtracted already: the number of an unknown batch subtracts none
    z = joint(shifted, present, torch.full((len(batch),), joint.n_batches, device=device))
    joint.set_centroids(shifted, present, z, cluster.to(device))


def _features(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the joint embedding reads of the cells ``(n, 2 z)``, and who has each modality ``(n,)``, on the CPU."""
    module.eval()
    device = next(module.parameters()).device
    features, present = {}, {}
    for kind, matrix in matrices.items():
        present[kind] = torch.from_numpy(matrix.present(cells))
        features[kind] = torch.cat([
            module.joint_features(
                matrix.read(part).to(device), kind, torch.from_numpy(matrix.present(part)).to(device)
            ).float().cpu()
            for part in in_parts(cells, 512)
        ])  # fmt: skip
    return features, present


def _to(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {kind: x.to(device) for kind, x in tensors.items()}


def _shifted(joint: JointEmbedding, features: Mapping[str, Tensor], batch: Tensor) -> dict[str, Tensor]:
    return {kind: x - joint.get_buffer(f"shift_{kind}").cpu()[batch] for kind, x in features.items()}


def _set_shift(joint: JointEmbedding, kind: str, offsets: Tensor) -> None:
    shift = joint.get_buffer(f"shift_{kind}")
    known = offsets[: joint.n_batches].to(shift)
    shift[: len(known)] = known


def _clusters(
    joint: JointEmbedding, features: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: Tensor, seed: int
) -> Tensor:
    from sklearn.cluster import KMeans

    device = joint.centroid.device
    z = joint(_to(device, features), _to(device, present), batch.to(device))
    k_means = KMeans(max(1, min(N_CLUSTERS, len(z) // CELLS_PER_CLUSTER)), n_init=2, random_state=seed)
    return torch.from_numpy(k_means.fit_predict(z.cpu().numpy())).long()


def _offsets(x: Tensor, batch: Tensor, cluster: Tensor, present: Tensor) -> Tensor:
    """Offsets of the batches ``(batches, 2 z)``, from least squares of ``x`` on cluster and batch; mean zero over cells."""
    n_batches = int(batch.max()) + 1
    x, batch, cluster = x[present].double(), batch[present], cluster[present]
    of_batch = torch.nn.functional.one_hot(batch, n_batches).double()
    of_cluster = torch.nn.functional.one_hot(cluster).double()
    size = of_cluster.sum(0).clamp_min(1)[:, None]

    def within(y: Tensor) -> Tensor:  # what the clusters do not explain
        return y - of_cluster @ ((of_cluster.T @ y) / size)

    # a batch that shares no cluster with another one has no unique offset: the smallest solution is taken
    offsets = torch.linalg.lstsq(within(of_batch), within(x), rcond=1e-6, driver="gelsd").solution
    return (offsets - of_batch.mean(0) @ offsets).float()
