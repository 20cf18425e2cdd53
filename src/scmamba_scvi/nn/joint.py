"""The joint embedding of a cell: what its modalities share, and what each of them shows on its own.

A contrastive loss keeps what the modalities agree on and drops the rest, so that the mean of the modality-specific
embeddings tells cell types apart less well than the better modality alone. The joint embedding adds the rest: the leading
components of each modality, weighted by how reliably they are measured.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.csr import product
from .moments import ridge_prediction, second_moments
from .spectral import TruncatedSVD

#: Clusters of the training cells within which batches are compared, so that a cell type that one batch lacks is not
#: taken for an effect of the batch; from 5 to 40 the scores hardly move. Their means are kept for later batches.
N_CLUSTERS = 20
#: An offset from a far start counts if it leaves less than this fraction of the squares: cells of one type can be moved onto
#: any type, and there fit as well by chance.
CLEARLY_CLOSER = 0.9
#: Of the largest spread of a component in float32. Below, a component shows rounding errors, as the last one of centred
#: log-ratios of few proteins, which add up to zero.
LEAST_SPREAD = 1e-5


class JointEmbedding(nn.Module):
    """Linear map of embeddings and weighted components to unit vectors, fitted in closed form and not by gradients.

    For a cell with all modalities it is ``unit(R.T @ [own_1, ..., own_M, a * (shared_1 + ... + shared_M) / g])``:
    ``shared_m`` the embedding of one modality; ``own_m`` its components, each scaled to variance 1 and by its reliability,
    those of all modalities together of mean square ``M``; ``g`` the root mean square of the sum; ``R`` the leading
    directions of these vectors over the training cells. For a cell that lacks modalities it is the ridge prediction of that
    from what the cell has.

    Parameters
    ----------
    n_features
        ``f`` of each kind of modality.
    n_latent
        ``z``.
    n_batches
        Batches of the training data. Their offsets, the buffers ``batch_offset_<kind>``, are zero until they are written.
    """

    centroid: Tensor

    def __init__(self, n_features: Mapping[str, int], n_latent: int, n_batches: int) -> None:
        super().__init__()
        self.kinds = list(n_features)
        self.n_latent, self.n_batches = n_latent, n_batches
        for kind, f in n_features.items():
            self.register_buffer(f"components_{kind}", torch.zeros(f, n_latent))
            self.register_buffer(f"mean_{kind}", torch.zeros(n_latent))  # of the components
            # last row: batch not known
            self.register_buffer(f"batch_offset_{kind}", torch.zeros(n_batches + 1, 2 * n_latent))
            self.register_buffer(f"centroid_{kind}", torch.zeros(N_CLUSTERS, 2 * n_latent))
            self.register_buffer(f"centroid_cells_{kind}", torch.zeros(N_CLUSTERS))  # cells in each mean
        self.register_buffer("centroid", torch.zeros(N_CLUSTERS, n_latent))  # zero rows: no cluster
        for some in subsets(self.kinds):
            self.register_buffer(f"map_{'_'.join(some)}", torch.zeros(2 * n_latent * len(some), n_latent))

    @torch.no_grad()
    def set_components(self, svds: Mapping[str, TruncatedSVD], reliabilities: Mapping[str, Tensor]) -> None:
        """Take the components of every modality; reliabilities ``(k,)`` are between 0 and 1.

        No modality is scaled for itself: one with few components that can be trusted has less to say about a cell.
        """
        tiny = torch.finfo(torch.float32).tiny
        scales = {}
        for kind, svd in svds.items():
            spread = svd.scores[:, : self.n_latent].double().std(0, correction=0).float()
            trusted = torch.where(spread > LEAST_SPREAD * spread.max(), reliabilities[kind][: self.n_latent].cpu(), 0.0)
            scales[kind] = trusted, spread
        total = torch.cat([trusted for trusted, _ in scales.values()]).norm().clamp_min(tiny)
        for kind, (trusted, spread) in scales.items():
            svd, k = svds[kind], len(trusted)
            scale = (trusted / spread.clamp_min(tiny) / total * len(svds) ** 0.5).to(svd.components.device)
            self.get_buffer(f"components_{kind}").zero_()[:, :k] = svd.components[:, :k] * scale
            self.get_buffer(f"mean_{kind}").zero_()[:k] = svd.mean @ svd.components[:, :k] * scale

    def features(self, values: Tensor, shared: Tensor, kind: str) -> Tensor:
        """Components and embedding of cells that have the modality: ``(n, f)`` and ``(n, z)`` to ``(n, 2 z)``."""
        own = product(values, self.get_buffer(f"components_{kind}")) - self.get_buffer(f"mean_{kind}")
        return torch.cat([own, shared.to(own.dtype)], dim=1)

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor | None], batch: Tensor) -> Tensor:
        """Joint embedding ``(n, z)``, zero for cells without any of the modalities.

        Parameters
        ----------
        features
            ``(n, 2 z)`` per modality, of any values for cells that lack it.
        present
            Mask ``(n,)`` per modality, `None` if every cell has it.
        batch
            Index of the batch ``(n,)``; ``n_batches`` where it is not known.
        """
        features = self.without_batch_offsets(features, batch)
        kinds = [kind for kind in self.kinds if kind in features]
        masks = {kind: mask for kind, mask in present.items() if mask is not None and kind in features}
        if not masks:
            return F.normalize(self._mapped(features, kinds), dim=-1)
        everyone = torch.ones_like(batch, dtype=torch.bool)
        has = {kind: masks.get(kind, everyone) for kind in kinds}
        z = torch.zeros(len(batch), self.n_latent, device=batch.device)
        for some in subsets(kinds):
            rows = torch.stack([has[kind] if kind in some else ~has[kind] for kind in kinds]).all(0)
            if rows.any():
                z[rows] = self._mapped({kind: features[kind][rows] for kind in some}, some)
        return F.normalize(z, dim=-1)

    def _mapped(self, features: Mapping[str, Tensor], kinds: Sequence[str]) -> Tensor:
        return product(torch.cat([features[kind] for kind in kinds], dim=1), self.get_buffer(f"map_{'_'.join(kinds)}"))

    def without_batch_offsets(self, features: Mapping[str, Tensor], batch: Tensor) -> dict[str, Tensor]:
        """Features ``(n, 2 z)`` minus the offsets of the cells' batches ``(n,)``."""
        return {kind: x - self.get_buffer(f"batch_offset_{kind}")[batch] for kind, x in features.items()}

    @torch.no_grad()
    def set_centroids(self, sums: Mapping[str, Tensor]) -> None:
        """Keep the means of clusters of the training cells, given what `cluster_sums` returns."""
        cells = torch.stack([sums[kind][:, -1] for kind in self.kinds if kind in sums])
        # a difference of sums leaves rounding errors where no cell is left
        self.centroid.copy_(torch.where(cells.any(0)[:, None], F.normalize(sums["z"].float(), dim=-1), 0.0))
        for kind, n in zip((kind for kind in self.kinds if kind in sums), cells, strict=True):
            self.get_buffer(f"centroid_cells_{kind}").copy_(n)
            self.get_buffer(f"centroid_{kind}").copy_(sums[kind][:, :-1] / n.clamp_min(1)[:, None])

    @torch.no_grad()
    def fit_batch_offset(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: int, n_rounds: int
    ) -> None:
        """Learn the offset of a batch that came after training: how its cells differ from the centroids of their clusters.

        Cells are assigned to clusters and compared with their centroids in turn, from an offset of zero. The difference between
        the means of all cells is another start, kept where it fits clearly closer.

        Parameters
        ----------
        features, present
            Of the cells of this batch, as in `forward`; no offset is subtracted yet.
        batch
            Index of the batch.
        n_rounds
            Rounds of assigning and comparing.
        """
        zero, of_means = {}, {}
        for kind, x in features.items():
            cells = self.get_buffer(f"centroid_cells_{kind}")
            mean = product(cells, self.get_buffer(f"centroid_{kind}")) / cells.sum().clamp_min(1)
            zero[kind] = torch.zeros_like(mean)
            of_means[kind] = x[present[kind]].mean(0) - mean if present[kind].any() else zero[kind]
        for kind, value in self.fitted_offset(zero, of_means, features, present, n_rounds).items():
            self.get_buffer(f"batch_offset_{kind}")[batch] = value

    @torch.no_grad()
    def fitted_offset(
        self,
        near: dict[str, Tensor],
        far: dict[str, Tensor],
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        n_rounds: int,
    ) -> dict[str, Tensor]:
        """Offset of the cells of one batch, by comparing them with the centroids of their clusters.

        Parameters
        ----------
        near, far
            Two starts per modality, ``(2 z,)``; what comes of the second is taken where it fits clearly closer.
        features, present, n_rounds
            As in `fit_batch_offset`.

        Returns
        -------
        The offset per modality, ``(2 z,)``.
        """
        (left, offset), (left_of_far, of_far) = (self._fit_from(o, features, present, n_rounds) for o in (near, far))
        return of_far if left_of_far < CLEARLY_CLOSER * left else offset

    def _fit_from(
        self, offset: dict[str, Tensor], features: Mapping[str, Tensor], present: Mapping[str, Tensor], n_rounds: int
    ) -> tuple[float, dict[str, Tensor]]:
        """Sum of the squares that are left, and the offset after ``n_rounds``."""
        for _ in range(n_rounds):
            differences = self._from_centroids(features, present, offset)
            offset = {kind: d.mean(0) if len(d) else offset[kind] for kind, d in differences.items()}
        differences = self._from_centroids(features, present, offset)
        return sum(float((d - offset[kind]).square().sum()) for kind, d in differences.items()), offset

    def _from_centroids(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], offset: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Per kind, features minus the centroid of the cell's cluster, ``(m, 2 z)`` for the ``m`` cells that have one."""
        cluster = self.nearest_clusters(features, present, offset)
        differences = {}
        for kind, x in features.items():
            has_centroid = present[kind] & (self.get_buffer(f"centroid_cells_{kind}")[cluster] > 0)
            differences[kind] = (x - self.get_buffer(f"centroid_{kind}")[cluster])[has_centroid]
        return differences

    @torch.no_grad()
    def nearest_clusters(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], offset: Mapping[str, Tensor]
    ) -> Tensor:
        """Cluster ``(n,)`` whose centroid is nearest to each cell of a batch without its ``offset``.

        Parameters
        ----------
        features, present
            As in `fit_batch_offset`.
        offset
            Of the batch per modality, ``(2 z,)``.

        Returns
        -------
        Numbers of clusters that have a centroid.
        """
        unknown = torch.full((len(next(iter(features.values()))),), self.n_batches, device=self.centroid.device)
        z = self({kind: x - offset[kind] for kind, x in features.items()}, present, unknown)
        is_empty = (self.centroid == 0).all(1)
        return product(z, self.centroid.T).masked_fill(is_empty, -torch.inf).argmax(1)

    @torch.no_grad()
    def fit_maps(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], shared_weight: float) -> None:
        """Learn ``R``, and its prediction from every subset of the modalities.

        No cell has to have all modalities, see `second_moments`.

        Parameters
        ----------
        features
            ``(n, 2 z)`` per modality, minus the offset of the cell's batch.
        present
            Mask ``(n,)`` per modality.
        shared_weight
            ``a``.
        """
        moments = second_moments(features, present)
        target = _target_map(len(self.kinds), self.n_latent, shared_weight, moments)
        _, directions = torch.linalg.eigh(target @ moments @ target.T)
        directions = directions.flip(1)[:, : self.n_latent]
        # rounding decides the signs of eigenvectors, and another number of threads rounds otherwise: of what is shared, the
        # largest entry is positive
        shared = directions[-self.n_latent :]
        largest = shared.gather(0, shared.abs().argmax(0, keepdim=True))
        whole = target.T @ torch.where(largest < 0, -directions, directions)  # (features of all modalities, z)
        for some in subsets(self.kinds):
            known = torch.tensor([kind in some for kind in self.kinds]).repeat_interleave(2 * self.n_latent)
            self.get_buffer(f"map_{'_'.join(some)}").copy_((ridge_prediction(moments, known).T @ whole)[known])


def cluster_sums(
    features: Mapping[str, Tensor], present: Mapping[str, Tensor], z: Tensor, cluster: Tensor
) -> dict[str, Tensor]:
    """Sums over the cells of each cluster, in float64, so that cells can be taken out again.

    Parameters
    ----------
    features, present
        ``(n, 2 z)`` per modality, minus the offset of the cell's batch, and who has it, ``(n,)``.
    z
        Joint embedding ``(n, z)``.
    cluster
        Number of each cell's cluster, ``(n,)``.

    Returns
    -------
    ``"z"``, ``(N_CLUSTERS, z)``; per modality ``(N_CLUSTERS, 2 z + 1)``, sums of features and the number of cells.
    """
    member = F.one_hot(cluster, N_CLUSTERS).to(torch.double)
    sums = {"z": member.T @ z.double()}
    for kind, x in features.items():
        sums[kind] = member[present[kind]].T @ F.pad(x[present[kind]].double(), (0, 1), value=1.0)
    return sums


def subsets(kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset of ``kinds`` but the empty one, in their order."""
    return [some for size in range(1, len(kinds) + 1) for some in itertools.combinations(kinds, size)]


def _target_map(n_kinds: int, n_latent: int, shared_weight: float, moments: Tensor) -> Tensor:
    """Map of features ``(own_1, shared_1, own_2, ...)`` to ``(own_1, ..., own_M, shared)``, ``(z (M + 1), 2 z M)``."""
    eye, is_own = torch.eye(n_latent).double(), torch.eye(2 * n_kinds).double()[::2]
    own, shared = torch.kron(is_own, eye), torch.kron(1 - is_own.sum(0, keepdim=True), eye)
    mean_square = (shared @ moments @ shared.T).trace().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.cat([own, shared_weight * shared / mean_square.sqrt()])
