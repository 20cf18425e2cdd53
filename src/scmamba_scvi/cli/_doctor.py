"""``doctor``: what is installed, and what would run here."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from rich.table import Table

from .._compat import limited_threads
from ._console import out

#: What decides whether, and how fast, this package runs.
PACKAGES: Final = (
    "scmamba-scvi", "torch", "scvi-tools", "lightning", "anndata", "mudata", "scanpy", "numpy", "scipy", "pynndescent",
    "umap-learn", "mamba-ssm", "causal-conv1d", "triton",
)  # fmt: skip


def doctor() -> None:
    """Show versions, devices, and which scan would run here and why.

    For example:

        scmamba-scvi doctor
    """
    table = Table("package", "version", box=None, header_style="bold")
    table.add_row("python", f"{platform.python_version()} ({platform.platform(terse=True)})")
    for name in PACKAGES:
        try:
            table.add_row(name, version(name))
        except PackageNotFoundError:
            table.add_row(name, "[dim]not installed[/dim]")
    out.print(table)

    import torch

    from ..ops.backend import explain_backend

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    table = Table("device", "what it is", "scan", box=None, header_style="bold")
    for device in devices:
        table.add_row(device, _describe_device(device), explain_backend(device))
    # one version of torch has builds for the CPU and for several CUDAs, which only the module itself tells apart
    out.print(f"\n build of torch: {torch.__version__}\n", highlight=False)
    out.print(table)


def _describe_device(device: str) -> str:
    import torch

    if device == "mps":
        return "Apple GPU, not used: it has no float64"
    if device == "cpu":
        with limited_threads():
            n_cores, n_threads = os.cpu_count(), torch.get_num_threads()
        return f"{n_cores} core{'s' * (n_cores != 1)}, {n_threads} thread{'s' * (n_threads != 1)}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
