"""Brings the embeddings of the modalities together, so that cells lie by what they are and not by how they were measured.

A contrastive loss asks for true matches to be nearer than other cells, not for the modalities to have one distribution:
counts of one modality say less than those of another, so that its embeddings lie nearer to their mean.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spectral import power, ridged

#: Training cells that are remembered; 500 match worse (FOSCTTM .074), all 6,000 no better (both .072) than 2,000.
N_MEMORY = 2_048
#: Of the cosines with remembered cells; a cell is moved towards a few tens of them. From 0.03 to 0.1 little changes.
MEMORY_TEMPERATURE = 0.03
#: Length of what is recalled, added to the unit vector that a modality gives of a cell: of the modality that tells most about
#: cells, and of the others. With half for each, the cells of a type lie closer in the first than in the others.
ANCHOR_WEIGHT, MEMORY_WEIGHT = 0.25, 0.75
#: Cells that the target counts for, beside those that a variance is taken from. From 2 to 60 little changes.
N_PRIOR = 20
#: Added to covariances, as a fraction of their mean variance.
RIDGE = 1e-2


class Alignment(nn.Module):
    """Moves each modality's embeddings towards remembered cells, then to the moments that all modalities share.

    ``unit(Q_m' unit(z + w_m unit(K.T softmax(K z / t))) + q_m)`` for an embedding ``z`` of modality ``m``: the rows of ``K``
    are training cells, each the mean of its modalities' embeddings, which one modality alone only estimates. ``w_m`` is least
    for the modality that estimates it best. ``Q_m`` and ``q_m`` match mean and covariance (CORAL; Sun, Feng and Saenko 2016).
    All is fitted in closed form, see `set_memory` and `fit_moments`; until then embeddings stay as they are.

    Parameters
    ----------
    kinds
        Kinds of modalities, such as ``["rna", "atac"]``.
    n_latent
        Dimensions ``z`` of the embeddings.

    Examples
    --------
    >>> z = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    >>> torch.allclose(nn.Alignment(["rna", "atac"], n_latent=8)(z, "rna"), z)
    True
    """

    memory: Tensor

    def __init__(self, kinds: Sequence[str], n_latent: int) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(N_MEMORY, n_latent))  # zero rows: nothing is remembered
        for kind in kinds:
            self.register_buffer(f"memory_weight_{kind}", torch.tensor(MEMORY_WEIGHT))
            self.register_buffer(f"map_{kind}", torch.eye(n_latent))
            self.register_buffer(f"offset_{kind}", torch.zeros(n_latent))

    def forward(self, z: Tensor, kind: str) -> Tensor:
        """Embeddings in the space that modalities share.

        Parameters
        ----------
        z
            Unit vectors ``(n, z)`` of one modality; rows of cells that lack it are zero.
        kind
            Kind of this modality.

        Returns
        -------
        Unit vectors ``(n, z)``; zero rows stay zero.
        """
        moved = self.recall(z, kind) @ self.get_buffer(f"map_{kind}") + self.get_buffer(f"offset_{kind}")
        return F.normalize(moved, dim=-1) * (z != 0).any(1, keepdim=True)

    def recall(self, z: Tensor, kind: str) -> Tensor:
        """Move each cell a step towards the remembered cells that are like it.

        Parameters
        ----------
        z
            Unit vectors ``(n, z)`` of one modality.
        kind
            Kind of this modality.

        Returns
        -------
        Unit vectors ``(n, z)``; those given, if nothing is remembered.
        """
        unused = (self.memory == 0).all(1)
        weights = (z @ self.memory.T / MEMORY_TEMPERATURE).masked_fill(unused, -torch.inf).softmax(1)
        recalled = F.normalize(weights.nan_to_num() @ self.memory, dim=-1)  # zero if nothing is remembered
        return F.normalize(z + self.get_buffer(f"memory_weight_{kind}") * recalled, dim=-1)

    @torch.no_grad()
    def set_memory(self, cells: Tensor, anchor: str) -> None:
        """Remember cells in place of those before.

        Parameters
        ----------
        cells
            Unit vectors, at most 2,048 rows: of an atlas, so many cells drawn at random are enough.
        anchor
            Kind of the modality that tells most about a cell, which is moved least.
        """
        self.memory.zero_()[: len(cells)] = cells
        for name, buffer in self.named_buffers():
            if name.startswith("memory_weight_"):
                buffer.fill_(MEMORY_WEIGHT)
        self.get_buffer(f"memory_weight_{anchor}").fill_(ANCHOR_WEIGHT)

    @torch.no_grad()
    def forget(self) -> None:
        """Remember no cells: those that are embedded are moved towards none."""
        self.memory.zero_()

    @torch.no_grad()
    def reset_moments(self) -> None:
        """Leave mean and covariance of each modality as they are."""
        for name, buffer in self.named_buffers():
            if name.startswith("map_"):
                buffer.copy_(torch.eye(len(buffer)))
            elif name.startswith("offset_"):
                buffer.zero_()

    @torch.no_grad()
    def fit_moments(self, z: Mapping[str, Tensor], present: Mapping[str, Tensor], min_cells: int) -> None:
        """Match mean and covariance of the modalities, over cells that the encoders were not trained on.

        On training cells the modalities agree too well to show how they differ. Only cells that have both modalities are
        compared: cells of one alone may be others. The modality that is paired most goes half-way to all the others, then
        each next one to those that are placed. What few cells do not determine is left as it is: the difference of the means
        is shrunk by the part of its square that chance gives it (James and Stein 1961). Covariances are shrunk to their mean:
        variances along its principal axes by ``20 / (20 + cells)``, what is between these axes by ``2 z / (2 z + cells)``.

        Parameters
        ----------
        z
            Embeddings ``(n, z)`` per modality, all over the same cells, before alignment.
        present
            Mask ``(n,)`` per modality.
        min_cells
            With fewer paired cells, a modality stays as it is.
        """
        self.reset_moments()
        recalled = {kind: self.recall(x.float(), kind).double() for kind, x in z.items()}
        n_paired = {a: sum(int((present[a] & present[b]).sum()) for b in z if b != a) for a in z}
        placed: dict[str, Tensor] = {}
        for kind in sorted(z, key=lambda k: -n_paired[k]):
            others = placed or {k: x for k, x in recalled.items() if k != kind}
            shared = {k: present[kind] & present[k] for k in others}
            own = torch.cat([recalled[kind][both] for both in shared.values()])
            theirs = torch.cat([others[k][both] for k, both in shared.items()])
            n_cells = int(torch.stack([*shared.values()]).any(0).sum())  # one that has both others is still one cell
            if n_cells >= min_cells:
                unmoved = torch.cat([recalled[k][both] for k, both in shared.items()])
                matrix, offset = _map_to(theirs, own, unmoved, n_cells, half_way=not placed)
                self.get_buffer(f"map_{kind}").copy_(matrix)
                self.get_buffer(f"offset_{kind}").copy_(offset)
            map_, offset = self.get_buffer(f"map_{kind}").double(), self.get_buffer(f"offset_{kind}").double()
            placed[kind] = recalled[kind] @ map_ + offset


def _map_to(theirs: Tensor, own: Tensor, unmoved: Tensor, n_cells: int, half_way: bool) -> tuple[Tensor, Tensor]:
    """Matrix and offset that give ``own`` the moments of their pairs, or half-way, who lay at ``unmoved`` before.

    A row is a pair; a cell of three modalities has two, so that there are at most as many cells as pairs.
    """
    # how far they were moved is known, how far both lay apart is estimated
    apart = _shrunk_mean(unmoved - own, n_cells) * (0.5 if half_way else 1.0)
    mean = own.mean(0) + apart + (theirs - unmoved).mean(0)
    middle = (_covariance(own) + _covariance(theirs)) / 2
    target = middle if half_way else _shrunk(_covariance(theirs), middle, n_cells)
    matrix = power(_shrunk(_covariance(own), middle, n_cells), -0.5) @ power(target, 0.5)
    return matrix, mean - own.mean(0) @ matrix


def _shrunk_mean(differences: Tensor, n_cells: int) -> Tensor:
    """Mean of ``(n, z)``, less what the square of a mean of ``n_cells`` is by chance; zero where that is all there is."""
    mean = differences.mean(0)
    by_chance = differences.var(0).sum() / n_cells
    return mean * (1 - by_chance / mean.square().sum().clamp_min(torch.finfo(mean.dtype).tiny)).clamp_min(0)


def _covariance(x: Tensor) -> Tensor:
    return ridged(torch.cov(x.T), RIDGE)


def _shrunk(covariance: Tensor, target: Tensor, n_cells: int) -> Tensor:
    """A covariance of ``n_cells`` nearer to ``target``; few cells tell variances sooner than they tell a whole matrix."""
    variances, axes = torch.linalg.eigh(target)
    own = axes.T @ covariance @ axes
    shrunk = own * (n_cells / (n_cells + 2 * len(target)))
    shrunk.diagonal().copy_(torch.lerp(own.diagonal(), variances, N_PRIOR / (n_cells + N_PRIOR)))
    return axes @ shrunk @ axes.T
