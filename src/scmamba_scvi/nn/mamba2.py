"""The Mamba2 mixer (Dao & Gu 2024, arXiv 2405.21060, section 7), with mamba-ssm's names of parameters."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ScmambaError
from ..ops.backend import check_backend, load_mixer, ssd
from ..ops.fused import causal_conv_silu, gated_norm
from .block import EPS, Branch

#: Step sizes start log-uniform in `DT_RANGE`, not below the floor, and decay rates uniform in `A_RANGE`: a state then
#: forgets within one to a thousand tokens. The values are the published ones.
DT_RANGE, DT_FLOOR, A_RANGE = (1e-3, 1e-1), 1e-4, (1.0, 16.0)


class Mamba2(Branch):
    """Mixes tokens in linear time: projection, short convolution, selective scan, gate, projection.

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    d_state
        State dimensions ``s`` of each channel: what the scan can remember.
    d_conv
        Tokens that the causal convolution sees, itself included.
    expand
        Inner width ``i = expand * d``.
    headdim
        Dimensions ``p`` of a head; ``h = i / p`` heads each have one decay rate and one step size per token. Fewer,
        wider heads are cheaper.
    bidirectional
        Run convolution and scan in both directions with the same parameters and average them, before gate and norm.
        No parameter is added, and reversing the sequence reverses the output.
    ssd_backend
        ``"auto"`` or a name of `scmamba_scvi.ops.backend.BACKENDS`; kept as the attribute of the same name.

    Notes
    -----
    The state dict of a mixer is that of mamba-ssm's ``Mamba2`` with ``ngroups=1`` and the same sizes:
    ``in_proj.weight`` (rows in the order z, x, B, C, dt), ``conv1d.weight``, ``conv1d.bias``, ``dt_bias``, ``A_log``,
    ``D``, ``norm.weight``, ``out_proj.weight``. ``A_log``, ``D`` and ``dt_bias`` are marked ``_no_weight_decay``.

    Raises
    ------
    ScmambaError
        If the inner width is not a multiple of ``headdim``.
    UnknownNameError
        For a back-end that does not exist.

    Examples
    --------
    >>> mixer = nn.Mamba2(d_model=32, d_state=16, headdim=32)
    >>> mixer(torch.randn(2, 10, 32)).shape  # (n, c, d)
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        bidirectional: bool = False,
        ssd_backend: str = "auto",
    ) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.headdim = expand * d_model, d_state, headdim
        self.n_heads, rest = divmod(self.d_inner, headdim)
        if rest:
            raise ScmambaError(
                f"expand * d_model = {self.d_inner} must be a multiple of headdim = {headdim}: change one of the three."
            )
        self.bidirectional = bidirectional
        self.ssd_backend = check_backend(ssd_backend)

        n_conv = self.d_inner + 2 * d_state  # channels of x, B and C
        self.in_proj = nn.Linear(d_model, self.d_inner + n_conv + self.n_heads, bias=False)
        self.conv1d = nn.Conv1d(n_conv, n_conv, d_conv, groups=n_conv, padding=d_conv - 1)
        low, high = map(math.log, DT_RANGE)
        dt = torch.empty(self.n_heads).uniform_(low, high).exp().clamp_min(DT_FLOOR)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(self.n_heads).uniform_(*A_RANGE).log())
        self.D = nn.Parameter(torch.ones(self.n_heads))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]  # as mamba-ssm marks them
        self.norm = nn.RMSNorm(self.d_inner, EPS)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def out_weight(self) -> Tensor:
        return self.out_proj.weight * self.norm.weight  # of the norm before it

    def hidden(self, projected: Tensor) -> Tensor:
        # convolution, scan, and the gated norm without its weight: (n, c, 2i + 2s + h) to (n, c, i)
        z, xBC, dt = projected.split([self.d_inner, self.d_inner + 2 * self.d_state, self.n_heads], -1)
        dt = F.softplus(dt.float() + self.dt_bias)  # (n, c, h)
        y = self._mix(xBC, dt)
        if self.bidirectional:
            y = (y + self._mix(xBC.flip(1), dt.flip(1)).flip(1)) / 2
        return gated_norm(y, z, EPS)

    def project(self, x: Tensor, in_weight: Tensor, out_weight: Tensor) -> Tensor:
        zxBCdt = F.linear(x, in_weight)
        width = self.conv1d.weight.shape[-1]
        mixer = None if self.bidirectional else load_mixer(zxBCdt, self.ssd_backend, width, self.d_state)
        if mixer is None:
            return F.linear(self.hidden(zxBCdt), out_weight)
        return mixer(
            zxBCdt, self.conv1d.weight, self.conv1d.bias, self.dt_bias, -torch.exp(self.A_log.float()), self.D.float(),
            out_weight.to(zxBCdt.dtype), EPS,
        )  # fmt: skip

    def _mix(self, xBC: Tensor, dt: Tensor) -> Tensor:
        """Convolution and scan in the order of the tokens, ``(n, c, i + 2s)`` and ``(n, c, h)`` to ``(n, c, i)``."""
        assert self.conv1d.bias is not None
        xBC = causal_conv_silu(xBC, self.conv1d.weight, self.conv1d.bias)
        x, B, C = xBC.split([self.d_inner, self.d_state, self.d_state], -1)
        x = x.unflatten(-1, (self.n_heads, self.headdim))  # (n, c, h, p)
        A = -torch.exp(self.A_log.float())  # (h,)
        return ssd(x, dt, A, B, C, self.D, backend=self.ssd_backend).flatten(2)
