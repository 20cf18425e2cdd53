"""Memory: what is free, and what a network keeps for its backward pass."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import psutil
import torch
from torch import Tensor, nn

ROOT: Final = Path("/")


#: Where Linux keeps control groups of versions 2 and 1: their folder; in that of a group, the files of the limit and of what is
#: used; and what stands before the names of what is summed over a group and those in it.
CGROUPS: Final = (
    ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


def saved_bytes(module: nn.Module, function: Callable[..., object], *args: Tensor) -> int:
    """Bytes that autograd keeps of ``function(*args)``, not counting ``args`` and the parameters of ``module``.

    Measured in one run, not derived: what is kept depends on the back-end of the scan, the precision and the device.
    """
    not_counted = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *args)}
    # holding the tensors keeps their storages alive, so that none is freed and its address used by another
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else None
        if storage is not None and storage not in not_counted:
            held[storage] = tensor.detach()
        return tensor.detach()  # with its graph, the graph would hold itself

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*args)
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU, or else of the machine and of the job that this process belongs to, that nothing has.

    On a GPU torch keeps what was freed, and gives it to new tensors.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What is left of each limit on the control groups of this process, by which Slurm, Docker and others bound a job.

    Groups are one in the other, and all limits hold. In a container the path of its group may be that on the host; the group
    is then the outermost that is seen.
    """
    try:
        groups = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # only Linux has it
        return
    for _, controllers, path in (line.split(":", 2) for line in groups):
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, *files, prefix = CGROUPS[bool(controllers)]
        parts = PurePosixPath(path).parts[1:]
        for group in (ROOT.joinpath(folder, *parts[:depth]) for depth in range(len(parts) + 1)):
            with contextlib.suppress(OSError, ValueError):  # such as no number, but "max"
                limit, used = (int((group / name).read_text()) for name in files)
                of_kind = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                # copies of files, which give way to whatever needs memory; psutil does not count them either
                cached = sum(int(of_kind.get(prefix + name, 0)) for name in ("active_file", "inactive_file"))
                yield max(0, limit - used + cached)
