"""What the kernels of the scan are compiled for on a GPU, and whether its triton compiles them at all.

Importing this file needs triton, as `scmamba_scvi.ops.triton_ssd` does.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import torch
import triton
from torch import Tensor

from .launch import power_of_two

#: Channels of one program, forward and backward.
MAX_BLOCK: Final = (128, 64)
#: Longest chunk by bytes per number, forward and backward. Longer ones spill registers into memory when compiled for compute
#: capability 9.0; `_is_small` says where these do too.
MAX_CHUNK: Final = {2: (64, 64), 4: (32, 32)}
#: Shortest axis that `tl.dot` takes.
MIN_AXIS = 16
#: The first triton that compiles chunks of half precision for compute capability 9: 3.3 fails, and 3.2 ends the process.
FIRST_TRITON: Final = (3, 4)


def tile_sizes(x: Tensor, B: Tensor, *, backward: bool) -> dict[str, Any]:
    """What the kernels are compiled for."""
    (_, c, h, p), s = x.shape, B.shape[-1]
    S, is_half = _power_of_two(s), x.element_size() == 2
    longest, block, is_small = MAX_CHUNK[x.element_size()][backward], MAX_BLOCK[backward], _is_small(x, S)
    if is_small:
        longest, block = longest // 2, 64 if backward or is_half else 32
    q = _power_of_two(min(c, longest))
    return {
        "h": h, "p": p, "s": s, "Q": q, "P": min(_power_of_two(p), block), "S": S,
        "ONE_CHUNK": c <= q,
        # three products in TF32 are as exact as one in float32
        "PRECISION": "tf32" if _allows_tf32() else "tf32x3",
        "num_warps": 4 if not is_small and (backward or q <= 32 and c <= q) else 8,
        # chunks under way: forward a third gains a tenth, where every multiprocessor has memory for it (97 of 99 KB)
        "num_stages": 3 if not backward and is_half and S <= 128 else 2,
    }  # fmt: skip


def _is_small(x: Tensor, S: int) -> bool:
    """Whether programs take half a chunk, fewer channels and 8 warps, as larger ones would not do.

    With more than 64 states they spill kilobytes per thread into memory, and on many GPUs lack shared memory, unless they are
    of half precision for the wide products of capability 9. On those of capability 7 they spill with fewer states too, and for
    those of 10 and 11 triton 3.7 fails to compile them.
    """
    major = capability(x.device)
    if x.element_size() == 4:
        return S > 64 or major == 7
    return major in (7, 10, 11) or (major != 9 and S > 64)


@functools.cache
def capability(device: torch.device) -> int:
    """Major compute capability of a GPU; for the interpreter that of the GPU that the sizes were chosen on."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9


def _allows_tf32() -> bool:
    """Whether torch's own switch lets products of float32 be rounded."""
    # since torch 2.9; the older name of the switch cannot be read any more once this one was set
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return precision not in ("none", "ieee", "highest")


def cannot_compile(device: torch.device, dtype: torch.dtype) -> str:
    """Why these kernels must not even be compiled, empty if they may."""
    found = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if dtype.itemsize == 4 or capability(device) != 9 or found >= FIRST_TRITON:
        return ""
    return f"triton {triton.__version__} does not compile the scan for this GPU in {dtype}, that of torch 2.8 does"


def _power_of_two(length: int) -> int:
    return max(power_of_two(length), MIN_AXIS)
