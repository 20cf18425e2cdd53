"""One layer of the network: a mixer across tokens, then a gated MLP within each token, both residual."""

import abc
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.fused import add_norm, gated_mlp, swiglu

#: Added to the mean square in norms, as in mamba-ssm.
EPS: Final = 1e-5


class Branch(nn.Module, abc.ABC):
    """A residual branch: two linear maps, and `hidden` between them."""

    in_proj: nn.Linear
    out_proj: nn.Linear

    @abc.abstractmethod
    def hidden(self, projected: Tensor) -> Tensor:
        """Everything between the two linear maps.

        Parameters
        ----------
        projected
            What the first map gives, ``(..., k)``.

        Returns
        -------
        What the second map reads, ``(..., i)``.
        """

    def out_weight(self) -> Tensor:
        """Weight of the second linear map.

        Returns
        -------
        ``(d, i)``.
        """
        return self.out_proj.weight

    def project(self, x: Tensor, in_weight: Tensor, out_weight: Tensor) -> Tensor:
        """The branch with other weights in its linear maps: a factor in them costs less than a pass over the tokens.

        Parameters
        ----------
        x
            Tokens ``(..., d)``.
        in_weight, out_weight
            In place of ``in_proj.weight`` and of `out_weight`.

        Returns
        -------
        ``(..., d)``.
        """
        return F.linear(self.hidden(F.linear(x, in_weight)), out_weight)

    def forward(self, x: Tensor) -> Tensor:
        """The branch, without the residual.

        Parameters
        ----------
        x
            Tokens ``(..., d)``.

        Returns
        -------
        ``(..., d)``.
        """
        return self.project(x, self.in_proj.weight, self.out_weight())


class GatedMLP(Branch):
    """``out_proj(a * silu(b))`` with ``[a, b] = in_proj(x)`` (SwiGLU; Shazeer 2020, arXiv 2002.05202).

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    d_hidden
        Width of ``a`` and ``b``.

    Examples
    --------
    >>> nn.GatedMLP(32, 64)(torch.randn(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.out_proj = nn.Linear(d_hidden, d_model, bias=False)

    def hidden(self, projected: Tensor) -> Tensor:
        return swiglu(projected)  # (..., 2 d_hidden) to (..., d_hidden)

    def project(self, x: Tensor, in_weight: Tensor, out_weight: Tensor) -> Tensor:
        return gated_mlp(x.to(dtype_of_product(x)), in_weight, out_weight)


class Block(nn.Module):
    """``x + scale * mixer(norm(x))``, then ``x + scale2 * mlp(norm2(x))`` (pre-norm residual).

    Weights of the norms and scales are multiplied with those of the linear maps beside them, not with the tokens.

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    mixer
        `Mamba2`, `Attention`, or another `Branch`.
    d_mlp
        Hidden width of the gated MLP.
    layer_scale
        Initial value of the learnable vectors that multiply the branches (LayerScale; Touvron et al. 2021, arXiv
        2103.17239); `None` has no such parameters. Near zero, the block starts near the identity and does not disturb the
        tokens before it has learned something.

    Examples
    --------
    >>> mixer = nn.Mamba2(32, d_state=16, headdim=32)
    >>> block = nn.Block(32, mixer, d_mlp=64, layer_scale=1e-2)
    >>> x, added = block(torch.randn(2, 10, 32))
    >>> (x + added).shape  # (n, c, d)
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model: int, mixer: Branch, d_mlp: int, layer_scale: float | None = None) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, EPS)
        self.mixer = mixer
        self.scale = _layer_scale(d_model, layer_scale)
        self.norm2 = nn.RMSNorm(d_model, EPS)
        self.mlp = GatedMLP(d_model, d_mlp)
        self.scale2 = _layer_scale(d_model, layer_scale)

    def forward(self, x: Tensor, added: Tensor | None = None, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Mixer and MLP, each added to what it reads, but for the last sum: a norm that follows makes it on the way.

        Parameters
        ----------
        x, added
            Tokens ``(n, c, d)`` as two terms, which the block before returned; `None`: nothing is to be added.
        last_only
            Give the last token only, which is all that ``pooling="last"`` reads of the last block: what follows the mixer
            is then computed once per cell.

        Returns
        -------
        Tokens ``(n, c, d)`` as two terms, the second from the last branch; or the last one ``(n, 1, d)``.
        """
        x, normal = add_norm(x, added, EPS, dtype_of_product(x))
        in_weight, out_weight = _with_factors(self.mixer, self.norm, self.scale)
        if last_only:  # what follows treats every token by itself
            hidden = self.mixer.hidden(F.linear(normal, in_weight))[:, -1:]
            x, added = x[:, -1:], F.linear(hidden, out_weight)
        else:
            added = self.mixer.project(normal, in_weight, out_weight)
        x, normal = add_norm(x, added, EPS, dtype_of_product(x))
        return x, self.mlp.project(normal, *_with_factors(self.mlp, self.norm2, self.scale2))


def dtype_of_product(x: Tensor) -> torch.dtype:
    """The dtype in which a matrix product of ``x`` runs."""
    device = x.device.type
    is_narrowed = x.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_narrowed else x.dtype


def _with_factors(branch: Branch, norm: nn.RMSNorm, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights of the linear maps of a branch, times the weight of the norm before it and the scale of its result."""
    in_weight, out_weight = branch.in_proj.weight * norm.weight, branch.out_weight()
    return in_weight, out_weight if scale is None else out_weight * scale[:, None]


def _layer_scale(d_model: int, initial: float | None) -> nn.Parameter | None:
    return None if initial is None else nn.Parameter(torch.full((d_model,), float(initial)))
