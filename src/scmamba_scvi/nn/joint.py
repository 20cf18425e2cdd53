"""One embedding of a cell from all it has: what its modalities share, and what each shows on its own.

A contrastive loss keeps what the modalities agree on and has no use for the rest, so that the mean of the views tells
cell types apart less well than the better modality alone. The rest is therefore put beside it: the leading components
of each modality, weighted by how reliably they are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.csr import is_csr, product, with_values
from .spectral import TruncatedSVD

#: Of the prediction of the joint embedding from some of the modalities, as a share of the mean variance.
RIDGE = 1e-2
#: Clusters of the training cells within which batches are compared, so that a cell type that one batch lacks is not
#: taken for its effect; from 5 to 40 the scores hardly move. Their means are kept for batches to come.
N_CLUSTERS = 20


class JointEmbedding(nn.Module):
    """Linear map of views and weighted components to unit vectors; nothing in it is trained by gradients.

    For a cell with all modalities it is ``unit(R.T @ [own_1, ..., own_M, a * (view_1 + ... + view_M) / g])``: ``own_m``
    the components of a modality, each scaled to variance 1 and by its reliability, all together of mean square 1;
    ``g`` the root mean square of the sum; ``R`` the leading directions of these vectors over the training cells. For
    a cell that lacks modalities it is the ridge prediction of that from what the cell has.

    Parameters
    ----------
    n_features
        ``f`` of each kind of modality.
    n_latent
        ``z``.
    n_batches
        Batches of the training data. Their offsets are zero until `shift` is written to.
    """

    def __init__(self, n_features: Mapping[str, int], n_latent: int, n_batches: int) -> None:
        super().__init__()
        self.kinds = list(n_features)
        self.n_latent, self.n_batches = n_latent, n_batches
        for kind, f in n_features.items():
            self.register_buffer(f"components_{kind}", torch.zeros(f, n_latent))
            self.register_buffer(f"offset_{kind}", torch.zeros(n_latent))
            self.register_buffer(f"shift_{kind}", torch.zeros(n_batches + 1, 2 * n_latent))  # the last: batch not known
            self.register_buffer(f"anchor_{kind}", torch.zeros(N_CLUSTERS, 2 * n_latent))
            self.register_buffer(f"anchor_cells_{kind}", torch.zeros(N_CLUSTERS))  # how many it is the mean of
        self.register_buffer("anchor", torch.zeros(N_CLUSTERS, n_latent))  # zero rows: fewer clusters
        for some in subsets(self.kinds):
            self.register_buffer(f"map_{'_'.join(some)}", torch.zeros(2 * n_latent * len(some), n_latent))

    @torch.no_grad()
    def set_components(self, kind: str, svd: TruncatedSVD, reliability: Tensor) -> None:
        """Take the components of one modality, ``reliability`` ``(k,)`` being between 0 and 1."""
        tiny = torch.finfo(torch.float32).tiny
        k = min(self.n_latent, svd.components.shape[1])
        spread, trusted = svd.scores[:, :k].double().std(0, correction=0).float(), reliability[:k]
        # a component without variance has nothing to say
        trusted = torch.where(spread > 0, trusted, 0.0)
        scale = trusted / spread.clamp_min(tiny) / trusted.norm().clamp_min(tiny)
        self.get_buffer(f"components_{kind}").zero_()[:, :k] = svd.components[:, :k] * scale
        self.get_buffer(f"offset_{kind}").zero_()[:k] = svd.mean @ svd.components[:, :k] * scale

    def features(self, values: Tensor, view: Tensor, kind: str) -> Tensor:
        """Own components and view of cells that have the modality: ``(n, f)`` and ``(n, z)`` to ``(n, 2 z)``."""
        own = product(values, self.get_buffer(f"components_{kind}")) - self.get_buffer(f"offset_{kind}")
        return torch.cat([own, view.to(own.dtype)], dim=1)

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Joint embedding ``(n, z)``, zero for cells without any of the modalities.

        Parameters
        ----------
        features
            ``(n, 2 z)`` per modality, of any values for cells that lack it.
        present
            Mask ``(n,)`` per modality.
        batch
            Number of the batch ``(n,)``; the number of batches stands for one that is not known.
        """
        shifted = {kind: x - self.get_buffer(f"shift_{kind}")[batch] for kind, x in features.items()}
        z = torch.zeros(len(batch), self.n_latent, device=batch.device)
        for some in subsets([kind for kind in self.kinds if kind in features]):
            rows = torch.stack([present[k] if k in some else ~present[k] for k in features]).all(0)
            if rows.any():
                x = torch.cat([shifted[kind][rows] for kind in some], dim=1)
                z[rows] = x @ self.get_buffer(f"map_{'_'.join(some)}")
        return F.normalize(z, dim=-1)

    @torch.no_grad()
    def set_anchors(
        self, shifted: Mapping[str, Tensor], present: Mapping[str, Tensor], z: Tensor, cluster: Tensor
    ) -> None:
        """Keep the means of clusters of the training cells, of ``shifted`` features ``(n, 2 z)`` and of ``z`` ``(n, z)``."""
        member = F.one_hot(cluster, N_CLUSTERS).to(torch.double)
        self.anchor.copy_(F.normalize((member.T @ z.double()).float(), dim=-1))
        for kind, x in shifted.items():
            of_kind = member[present[kind]]
            cells = of_kind.sum(0)
            self.get_buffer(f"anchor_cells_{kind}").copy_(cells)
            mean = of_kind.T @ x[present[kind]].double() / cells.clamp_min(1)[:, None]
            self.get_buffer(f"anchor_{kind}").copy_(mean)

    @torch.no_grad()
    def fit_shift(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: int, n_rounds: int
    ) -> None:
        """Offset of one batch that came after training: what its cells differ by from the anchors of their clusters.

        Clusters and offsets in turn, once from no offset and once from equal means, of which the closer fit is kept.

        Parameters
        ----------
        features, present
            Of the cells of this batch, not shifted.
        batch
            Its number.
        n_rounds
            Of finding the nearest anchor and comparing.
        """
        found = []
        for start in (self._no_shift(features), self._to_equal_means(features, present)):
            shift = start
            for _ in range(n_rounds):
                own = self._own_anchors(features, present, shift)
                shift = {
                    kind: (x - own[kind][0])[own[kind][1]].mean(0) if own[kind][1].any() else shift[kind]
                    for kind, x in features.items()
                }
            own = self._own_anchors(features, present, shift)
            misfit = sum(
                float((x - shift[kind] - own[kind][0])[own[kind][1]].square().sum()) for kind, x in features.items()
            )
            found.append((misfit, shift))
        for kind, shift in min(found, key=lambda pair: pair[0])[1].items():
            self.get_buffer(f"shift_{kind}")[batch] = shift

    def _no_shift(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {kind: x.new_zeros(x.shape[1]) for kind, x in features.items()}

    def _to_equal_means(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        means = {}
        for kind, x in features.items():
            cells = self.get_buffer(f"anchor_cells_{kind}")
            mean = cells @ self.get_buffer(f"anchor_{kind}") / cells.sum().clamp_min(1)
            means[kind] = x[present[kind]].mean(0) - mean if present[kind].any() else torch.zeros_like(mean)
        return means

    def _own_anchors(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], shift: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Per kind the anchor of each cell's cluster ``(n, 2 z)``, and which cells have one."""
        unknown = torch.full((len(next(iter(features.values()))),), self.n_batches, device=self.anchor.device)
        z = self({kind: x - shift[kind] for kind, x in features.items()}, present, unknown)
        # a row of zeros stands for no cluster
        cosine = (z @ self.anchor.T).masked_fill((self.anchor == 0).all(1), -torch.inf)
        cluster = cosine.argmax(1)
        return {
            kind: (
                self.get_buffer(f"anchor_{kind}")[cluster],
                present[kind] & (self.get_buffer(f"anchor_cells_{kind}")[cluster] > 0),
            )
            for kind in features
        }

    @torch.no_grad()
    def fit_maps(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], shared_weight: float) -> None:
        """Learn ``R`` and what stands in for it where modalities are missing, from features less their batch's offset.

        Only second moments over the cells that have both of two modalities enter, so that no cell has to have all.
        """
        moments = _second_moments(features, present)
        target = _target(len(self.kinds), self.n_latent, shared_weight, moments)
        _, directions = torch.linalg.eigh(target @ moments @ target.T)
        whole = target.T @ directions.flip(1)[:, : self.n_latent]  # (features of all modalities, z)
        width = 2 * self.n_latent
        for some in subsets(self.kinds):
            rows = torch.cat([torch.arange(width) + width * self.kinds.index(kind) for kind in some])
            if len(some) == len(self.kinds):
                found = whole
            else:
                own = moments[rows][:, rows]
                ridge = RIDGE * own.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
                found = torch.linalg.solve(own + ridge * torch.eye(len(rows)), moments[rows] @ whole)
            self.get_buffer(f"map_{'_'.join(some)}").copy_(found)


def in_halves(counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Counts shared out at random between two halves, as if each cell had been sequenced twice at half the depth.

    Parameters
    ----------
    counts
        ``(n, f)``, dense or CSR; values that are not whole are rounded.
    generator
        On the CPU.

    Returns
    -------
    Two matrices of the layout of ``counts``.
    """
    stored = (counts.values() if is_csr(counts) else counts).round()
    first = torch.binomial(stored, torch.full_like(stored, 0.5), generator=generator)
    halves = first, stored - first
    return tuple(with_values(counts, half) for half in halves) if is_csr(counts) else halves


def reliability(halves: Iterable[tuple[Tensor, Tensor]], components: Tensor) -> Tensor:
    """Share of the variance of each component that is not counting noise, ``(k,)``, from values of halves of cells.

    The correlation ``c`` of two measurements at half the depth makes ``2 c / (1 + c)`` for one at the whole depth
    (Spearman 1910, Brown 1910).
    """
    n_cells, sums = 0, torch.zeros(5, components.shape[1], dtype=torch.double)
    for pair in halves:
        a, b = (product(half, components).double() for half in pair)
        sums += torch.stack([x.sum(0) for x in (a, b, a * a, b * b, a * b)])
        n_cells += len(a)
    mean_a, mean_b, aa, bb, ab = sums / n_cells
    spread = ((aa - mean_a.square()) * (bb - mean_b.square())).clamp_min(0).sqrt()
    c = torch.where(spread > 0, (ab - mean_a * mean_b) / spread.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    c = c.clamp(0, 1).float()
    return 2 * c / (1 + c)


def subsets(kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of at least one of ``kinds``, in their order."""
    return [some for size in range(1, len(kinds) + 1) for some in itertools.combinations(kinds, size)]


def _second_moments(features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    rows = []
    for a, b in itertools.product(features, repeat=2):
        both = present[a] & present[b]
        rows.append(features[a][both].double().T @ features[b][both].double() / both.sum().clamp_min(1))
    n = len(features)
    return torch.cat([torch.cat(rows[i * n : (i + 1) * n], dim=1) for i in range(n)])


def _target(n_kinds: int, n_latent: int, shared_weight: float, moments: Tensor) -> Tensor:
    """From features ``(own_1, view_1, own_2, ...)`` to ``(own_1, ..., own_M, shared)``, ``(z (M + 1), 2 z M)``."""
    eye, zero = torch.eye(n_latent).double(), torch.zeros(n_latent, n_latent).double()
    own = [
        torch.cat([piece for other in range(n_kinds) for piece in (eye if other == kind else zero, zero)], dim=1)
        for kind in range(n_kinds)
    ]
    shared = torch.cat([zero, eye] * n_kinds, dim=1)
    mean_square = (shared @ moments @ shared.T).trace().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.cat([*own, shared_weight * shared / mean_square.sqrt()])
