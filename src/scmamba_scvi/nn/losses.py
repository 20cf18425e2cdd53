"""The contrastive objective (paper, equations 7-9): pure functions of embeddings and a scale."""

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Temperature(nn.Module):
    """Temperature of the logits, learned on a log scale and clamped, so that it can neither vanish nor explode.

    Parameters
    ----------
    initial
        Temperature before training.
    learn
        Whether training changes it.

    Examples
    --------
    >>> round(nn.Temperature(0.07)().item(), 4)
    0.07
    """

    lowest, highest = 0.01, 1.0

    def __init__(self, initial: float = 0.07, *, learn: bool = True) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(float(initial)).log(), requires_grad=learn)

    def forward(self) -> Tensor:
        """Temperature as the losses take it.

        Returns
        -------
        Scalar between 0.01 and 1.
        """
        return self.log.exp().clamp(self.lowest, self.highest)


def info_nce(
    za: Tensor,
    zb: Tensor,
    temperature: Tensor | float,
    others_a: Tensor | None = None,
    others_b: Tensor | None = None,
    *,
    own_negatives: bool = False,
) -> Tensor:
    """Symmetric InfoNCE of unit vectors ``(n, z)`` whose rows are pairs, in float32.

    The mean of both directions; the paper's equation 7 is their sum, twice this value.

    Parameters
    ----------
    za, zb
        Embeddings ``(n, z)`` of the same cells by two modalities.
    temperature
        Divides the cosines; the smaller, the more the nearest wrong cells count.
    others_a, others_b
        Embeddings ``(m, z)`` of unpaired cells, if there are any: negatives for every row of the other side.
    own_negatives
        Whether the other rows of its own side are negatives too. Without them nothing asks a cell to be nearer to its true
        match than to its own modality, and the two modalities may lie apart as a whole.

    Returns
    -------
    Scalar.

    Examples
    --------
    >>> every_cell_finds_its_match = torch.eye(4)
    >>> loss = nn.info_nce(torch.eye(4), every_cell_finds_its_match, 0.1)
    >>> round(loss.item(), 4)
    0.0001
    """
    n, others = len(za), [z for z in (others_a, others_b) if z is not None]
    z = torch.cat([za, zb, *others]).float()
    m_a, m_b = (0 if z is None else len(z) for z in (others_a, others_b))
    hidden = _hidden(n, m_a, m_b, own_negatives, z.device)
    # autocast casts products of float32 too: at a temperature of 0.01, logits in bf16 are off by up to half a unit
    with torch.autocast(z.device.type, enabled=False):
        # embeddings are divided rather than logits: passes over these cost more than the product
        logits = (z[: 2 * n] / temperature) @ z.T  # (2 n, 2 n + m_a + m_b), both directions in one product
        logits.detach().masked_fill_(hidden, -torch.inf)  # without a gradient, which would be zero there
        return F.cross_entropy(logits, torch.arange(2 * n, device=z.device).roll(n))


def _hidden(n: int, m_a: int, m_b: int, own_negatives: bool, device: torch.device) -> Tensor:
    """Which columns of the logits are no candidates of a row, ``(2 n, 2 n + m_a + m_b)``.

    Rows are the pairs' side a, then side b; columns the same, then the unpaired cells of side a and of side b.
    """
    column = torch.arange(2 * n + m_a + m_b, device=device)
    itself = column[: 2 * n, None] == column
    if own_negatives and not m_a + m_b:
        return itself
    of_b = (column >= n) & (column < 2 * n) | (column >= 2 * n + m_a)
    own_side = of_b[: 2 * n, None] == of_b
    return own_side & (itself | (column >= 2 * n)) if own_negatives else own_side


def cosine_distance(za: Tensor, zb: Tensor) -> Tensor:
    """One minus the mean cosine of pairs of unit vectors (paper, equation 8).

    Parameters
    ----------
    za, zb
        Embeddings ``(n, z)`` of the same cells by two modalities.

    Returns
    -------
    Scalar in [0, 2].

    Examples
    --------
    >>> nn.cosine_distance(torch.eye(4), torch.eye(4)).item()
    0.0
    """
    return 1 - (za.float() * zb.float()).sum(-1).mean()


def multimodal_loss(
    z: Mapping[str, Tensor],
    present: Mapping[str, Tensor | None],
    temperature: Tensor,
    *,
    contrastive_weight: float = 1.0,
    cosine_weight: float = 1.0,
    own_negatives: bool = False,
) -> dict[str, Tensor]:
    """Mean over all pairs of modalities of contrastive and cosine loss, each over the cells that have both.

    A cell that has only one of two modalities is a negative for the cells that have both.

    Parameters
    ----------
    z
        Unit vectors ``(n, z)`` per modality; rows of cells without it are ignored.
    present
        Mask ``(n,)`` per modality, `None` if every cell has it.
    temperature
        Scalar.
    contrastive_weight, cosine_weight
        The lambdas of equation 9; with the mean of both directions in `info_nce`, the paper's first is half of this one.
    own_negatives
        Of `info_nce`.

    Returns
    -------
    ``loss``, ``contrastive``, ``cosine`` (scalars). Without two cells that share a pair of modalities all are zero, and
    still depend on every input, so that distributed training does not wait for a missing gradient.

    Examples
    --------
    >>> z = {"rna": torch.eye(4), "atac": torch.eye(4)}
    >>> everyone = dict.fromkeys(z, torch.ones(4).bool())
    >>> parts = nn.multimodal_loss(z, everyone, torch.tensor(0.1))
    >>> parts["cosine"].item()
    0.0
    """
    zero = sum(v.sum() for v in z.values()) * 0.0 + temperature * 0.0
    contrastive, cosine = [], []
    for a, b in itertools.combinations(z, 2):
        za, zb, *others = _pairs_and_others(z[a], z[b], present[a], present[b])
        if len(za) < 2:  # InfoNCE of one pair is zero whatever the embedding
            continue
        contrastive.append(info_nce(za, zb, temperature, *others, own_negatives=own_negatives))
        cosine.append(cosine_distance(za, zb))
    if not contrastive:
        return {"loss": zero, "contrastive": zero.detach(), "cosine": zero.detach()}
    mean_contrastive, mean_cosine = torch.stack(contrastive).mean(), torch.stack(cosine).mean()
    loss = contrastive_weight * mean_contrastive + cosine_weight * mean_cosine + zero
    return {"loss": loss, "contrastive": mean_contrastive.detach(), "cosine": mean_cosine.detach()}


def _pairs_and_others(za: Tensor, zb: Tensor, has_a: Tensor | None, has_b: Tensor | None) -> tuple[Tensor, ...]:
    """Rows of the cells that have both modalities, in each of them; then, if there may be any, those of other cells."""
    if has_a is None and has_b is None:
        return za, zb
    everyone = torch.ones(len(za), dtype=torch.bool, device=za.device)
    has_a, has_b = (everyone if has is None else has for has in (has_a, has_b))
    both = has_a & has_b
    return za[both], zb[both], za[has_a & ~both], zb[has_b & ~both]
