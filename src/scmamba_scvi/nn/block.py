"""One layer of the network: a mixer across tokens, then a gated MLP within each token, both residual."""

import abc

import torch
from torch import Tensor, nn

from ..ops.fused import swiglu, swiglu_linear
from .norms import RMSNorm


class Branch(nn.Module, abc.ABC):
    """A residual branch ``out_proj(hidden(x))``; `Block` scales the weights of the second."""

    out_proj: nn.Linear

    @abc.abstractmethod
    def hidden(self, x: Tensor) -> Tensor:
        """Everything before the last linear map."""

    def project(self, x: Tensor, weight: Tensor) -> Tensor:
        """The branch with other weights in its last linear map.

        Parameters
        ----------
        x
            Tokens ``(..., d)``.
        weight
            In place of ``out_proj.weight``.

        Returns
        -------
        ``(..., d)``.
        """
        return nn.functional.linear(self.hidden(x), weight)

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
        return self.project(x, self.out_proj.weight)


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

    def hidden(self, x: Tensor) -> Tensor:
        """Everything before the last linear map.

        Parameters
        ----------
        x
            Tokens ``(..., d)``.

        Returns
        -------
        ``(..., d_hidden)``.
        """
        return swiglu(self.in_proj(x))

    def project(self, x: Tensor, weight: Tensor) -> Tensor:
        """The branch with other weights in its last linear map.

        Parameters
        ----------
        x
            Tokens ``(..., d)``.
        weight
            ``(d, d_hidden)``, in place of ``out_proj.weight``.

        Returns
        -------
        ``(..., d)``.
        """
        return swiglu_linear(self.in_proj(x), weight)


class Block(nn.Module):
    """``x + scale1 * mixer(norm(x))``, then ``x + scale2 * mlp(norm(x))`` (pre-norm residual).

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    mixer
        `Mamba2`, `Attention`, or another `Branch`.
    d_mlp
        Hidden width of the gated MLP; 0 leaves it out.
    layer_scale
        Initial value of the learnable vectors that multiply the branches (LayerScale; Touvron et al. 2021, arXiv
        2103.17239); `None` has no such parameters. Near zero, the block starts near the identity and does not disturb the
        tokens before it has learned something.
    dropout
        Fraction of each branch's output that is dropped in training.

    Examples
    --------
    >>> mixer = nn.Mamba2(32, d_state=16, headdim=32)
    >>> block = nn.Block(32, mixer, d_mlp=64, layer_scale=1e-2)
    >>> block(torch.randn(2, 10, 32)).shape  # (n, c, d)
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        d_model: int,
        mixer: Branch,
        d_mlp: int = 0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, before_product=True)
        self.mixer = mixer
        self.scale = _layer_scale(d_model, layer_scale)
        self.norm2 = RMSNorm(d_model, before_product=True) if d_mlp else None
        self.mlp = GatedMLP(d_model, d_mlp) if d_mlp else None
        self.scale2 = _layer_scale(d_model, layer_scale) if d_mlp else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """Mixer and MLP, each added to what it reads.

        Parameters
        ----------
        x
            Tokens ``(n, c, d)``.
        last_only
            Give the last token only, which is all that ``pooling="last"`` reads of the last block: what follows the mixer
            is then computed once per cell.

        Returns
        -------
        Tokens ``(n, c, d)``, or the last one ``(n, 1, d)``.
        """
        weight = _scaled(self.mixer, self.scale)
        if last_only:  # what follows treats every token by itself
            hidden = self.mixer.hidden(self.norm(x))[:, -1:]
            x = x[:, -1:] + self.dropout(nn.functional.linear(hidden, weight))
        else:
            x = x + self.dropout(self.mixer.project(self.norm(x), weight))
        if self.mlp is None or self.norm2 is None:
            return x
        return x + self.dropout(self.mlp.project(self.norm2(x), _scaled(self.mlp, self.scale2)))


def _scaled(branch: Branch, scale: Tensor | None) -> Tensor:
    """The last weights of a branch: to scale them instead of the tokens saves a pass over the tokens."""
    return branch.out_proj.weight if scale is None else branch.out_proj.weight * scale[:, None]


def _layer_scale(d_model: int, initial: float | None) -> nn.Parameter | None:
    return None if initial is None else nn.Parameter(torch.full((d_model,), float(initial)))
