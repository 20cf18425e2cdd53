"""The command ``scmamba-scvi``: parse, call the library, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer
from rich.console import Console
from rich.table import Table

from .errors import ScmambaError

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from .model import SCMAMBA

app = typer.Typer(
    name="scmamba-scvi",
    no_args_is_help=True,
    add_completion=False,
    # an unexpected error keeps Python's own traceback, which can be searched for and pasted
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

#: Enough for simulated cells; patience alone would take three times as long to see that nothing more comes.
DEMO_EPOCHS: Final = 20
#: Exit codes: what the user passed cannot be used; stopped from the keyboard (128 + SIGINT).
BAD_INPUT, INTERRUPTED = 2, 130


def demo(
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for the results; files of an earlier demo are replaced.")
    ] = Path("demo"),
    cells: Annotated[int, typer.Option(min=100, help="Cells to simulate.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation and of the model.")] = 0,
) -> None:
    """Simulate cells with RNA and ATAC, integrate them, and score what training never saw."""
    with _reporting():
        _check_writable(out_dir)
        from .data import simulate_multiome
        from .workflow import integrate as integrate_mudata

        mdata = simulate_multiome(n_cells=cells, seed=seed)
        out.print(f"Simulated {_describe(mdata)}.")
        model = integrate_mudata(
            mdata, batch_key="batch", labels_key="cell_type", seed=seed, max_epochs=DEMO_EPOCHS
        )  # fmt: skip
        _print_scores(mdata, model, "cell_type")
        _write(mdata, model, out_dir / "integrated.h5mu", out_dir, color=("cell_type", "batch"))


def integrate(
    file: Annotated[Path, typer.Argument(help="MuData of raw counts, .h5mu.", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", help="File to write, .h5mu.", show_default=False)],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=KEY",
            help="Which modality is which, such as rna=gex; repeat it. By default they are recognised.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=LAYER", help="Layer with raw counts, such as rna=counts; repeat it. By default .X."),
    ] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="Column of obs with known cell types: coloured and scored, never trained on.")
    ] = None,
    gtf: Annotated[
        Path | None, typer.Option(help="Gene annotation (GTF or table) to place genes along the genome.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Size of the network: auto, small, base, large or paper.")] = "auto",
    n_latent: Annotated[int, typer.Option(min=2, help="Dimensions of the embedding.")] = 64,
    max_epochs: Annotated[int | None, typer.Option(min=1, help="By default from the number of cells.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Cells in a minibatch. By default from the number of cells.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same result on the same machine.")] = 0,
    umap: Annotated[
        bool, typer.Option("--umap/--no-umap", help="Fit coordinates and draw the figure of the integration.")
    ] = True,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder for the model. By default OUT_model beside the file.")
    ] = None,
    figure_dir: Annotated[
        Path | None, typer.Option(help="Folder for the figures. By default OUT_figures beside the file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Integrate a MuData: embeddings, clusters, coordinates, figures and the trained model."""
    with _reporting():
        model_dir = model_dir or out_file.with_name(f"{out_file.stem}_model")
        figure_dir = figure_dir or out_file.with_name(f"{out_file.stem}_figures")
        modalities, layers = _pairs("--modality", modality), _pairs("--layer", layer)
        if out_file.suffix != ".h5mu":
            raise ScmambaError(f"--out must end in .h5mu, got {out_file.name!r}.")
        _check_outputs(file, out_file, model_dir, _figures(figure_dir, umap), overwrite)

        from . import workflow
        from .pp import annotate_genome

        mdata = workflow.read_mudata(file)
        out.print(f"Read {_describe(mdata)}.")
        if gtf is not None:
            annotate_genome(mdata, gtf=gtf)
        model = workflow.integrate(
            mdata, modalities=modalities, layers=layers, batch_key=batch_key, labels_key=labels_key, preset=preset,
            n_latent=n_latent, seed=seed, umap=umap, model_dir=model_dir, overwrite=overwrite, max_epochs=max_epochs,
            batch_size=batch_size, accelerator=accelerator,
        )  # fmt: skip
        _print_scores(mdata, model, labels_key)
        out.print(f"Wrote the model into {model_dir}.", highlight=False)
        _write(mdata, model, out_file, figure_dir, color=(labels_key, batch_key), integration=umap)


def doctor() -> None:
    """Show versions, devices, and which implementation of the scan would run here and why."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    table = Table("package", "version", box=None, header_style="bold")
    table.add_row("python", f"{platform.python_version()} ({platform.platform(terse=True)})")
    for name in PACKAGES:
        try:
            table.add_row(name, version(name))
        except PackageNotFoundError:
            table.add_row(name, "[dim]not installed[/dim]")
    out.print(table)

    import torch

    from .ops.backend import explain_backend

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    table = Table("device", "what it is", "scan", box=None, header_style="bold")
    for device in devices:
        table.add_row(device, _describe_device(device), explain_backend(device))
    out.print()
    out.print(table)


#: Shown by `doctor`: what decides whether and how fast this package runs.
PACKAGES: Final = (
    "scmamba-scvi", "torch", "scvi-tools", "lightning", "anndata", "mudata", "scanpy", "numpy", "scipy", "pynndescent",
    "umap-learn", "mamba-ssm", "causal-conv1d", "triton",
)  # fmt: skip
COMMANDS: Final[dict[str, Callable[..., None]]] = {"demo": demo, "integrate": integrate, "doctor": doctor}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One embedding for cells measured in several modalities, from all features."""


def main() -> None:
    """Entry point of the command."""
    app()


# -- before the work ----------------------------------------------------------------------------------------------


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str] | None:
    """``["rna=gex"]`` to ``{"rna": "gex"}``; ``None`` stays."""
    if not texts:
        return None
    pairs: dict[str, str] = {}
    for text in texts:
        kind, equals, value = text.partition("=")
        if not (kind and equals and value):
            raise ScmambaError(f"{option} takes KIND=NAME, such as {option} rna=counts; got {text!r}.")
        if kind in pairs:
            raise ScmambaError(f"{option} names {kind!r} twice: {pairs[kind]!r} and {value!r}.")
        pairs[kind] = value
    return pairs


def _check_outputs(source: Path, file: Path, model_dir: Path, figures: Sequence[Path], overwrite: bool) -> None:
    """Everything that could make writing fail at the end, found before the work."""
    if file.exists() and source.exists() and file.samefile(source):
        raise ScmambaError(f"--out is the input file, {file}: give the result another name.")
    for path in (file, *figures):
        if path.is_dir():
            raise ScmambaError(f"{path} is a folder; a file is to be written there.")
    if model_dir.exists() and not model_dir.is_dir():
        raise ScmambaError(f"{model_dir} is a file; a folder is to be written there.")
    existing = [str(path) for path in (file, *figures) if path.exists()]
    if model_dir.is_dir() and any(model_dir.iterdir()):
        existing.append(str(model_dir))
    if existing and not overwrite:
        raise ScmambaError(f"These exist: {', '.join(existing)}. Choose other names, or replace them with --overwrite.")
    for folder in {file.parent, model_dir.parent, *(path.parent for path in figures)}:
        _check_writable(folder)


def _check_writable(folder: Path) -> None:
    """Whether files can be made in ``folder``, or in the nearest folder above it that exists."""
    while not folder.exists():
        folder = folder.parent
    # asking the system for permissions misjudges network drives and full or read-only disks: try it
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ScmambaError(f"Nothing can be written into {folder}: {error.strerror or error}.") from error


def _figures(folder: Path, integration: bool) -> list[Path]:
    return [folder / "training.png", *([folder / "integration.png"] if integration else [])]


# -- after the work -----------------------------------------------------------------------------------------------


def _write(
    mdata: MuData,
    model: SCMAMBA,
    file: Path,
    figure_dir: Path,
    color: Sequence[str | None],
    integration: bool = True,
) -> None:
    """Data first: a fault in a figure must not cost them."""
    from . import pl
    from .workflow import CLUSTER_KEY, write_mudata

    file.parent.mkdir(parents=True, exist_ok=True)
    write_mudata(mdata, file)
    out.print(f"Wrote {file}.", highlight=False)
    drawings: dict[str, Callable[..., object]] = {"training.png": lambda figure: pl.training(model, figure=figure)}
    if integration:
        columns = [name for name in (*color, CLUSTER_KEY) if name is not None]
        keys = list(model.kinds.values())
        drawings["integration.png"] = lambda figure: pl.integration(mdata, columns, modalities=keys, figure=figure)
    figure_dir.mkdir(parents=True, exist_ok=True)
    for path in _figures(figure_dir, integration):
        _save_figure(drawings[path.name], path)
        out.print(f"Wrote {path}.", highlight=False)


def _save_figure(draw: Callable[..., object], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()  # not pyplot's: no display is looked for, no figure stays open
    draw(figure=figure)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(unfinished, dpi=150)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _print_scores(mdata: MuData, model: SCMAMBA, labels_key: str | None) -> None:
    from .workflow import held_out_scores

    scores = held_out_scores(mdata, model, labels_key)
    if len(scores):
        out.print(_score_table(scores))


def _score_table(scores: pd.DataFrame) -> Table:
    """Scores of held-out cells beside what chance and a perfect embedding give."""
    n_cells = ", ".join(f"{n:,}" for n in dict.fromkeys(scores["n_cells"]))
    table = Table(title=f"{n_cells} cells that training never saw", title_style="bold", header_style="bold")
    table.add_column("score")
    for name in ("scMamba", "chance", "perfect"):
        table.add_column(name, justify="right")
    for name, row in scores.iterrows():
        better = abs(row["value"] - row["best"]) < abs(row["chance"] - row["best"])
        style = "green" if better else "red"
        table.add_row(str(name), f"[{style}]{row['value']:.3f}[/{style}]", f"{row['chance']:.3f}", f"{row['best']:.0f}")
    return table


def _describe(mdata: MuData) -> str:
    parts = [f"{data.n_vars:,} features of {key}" for key, data in mdata.mod.items()]
    return f"{mdata.n_obs:,} cells with {' and '.join(parts) or 'no modality'}"


def _describe_device(device: str) -> str:
    import torch

    if not device.startswith("cuda"):
        return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads" if device == "cpu" else "Apple GPU"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


@contextmanager
def _reporting() -> Iterator[None]:
    """Say what is wrong with the input in one line and leave with 2; after Ctrl-C leave with 130.

    Errors of other kinds are faults of this package and keep their traceback.
    """
    try:
        with _only_what_concerns_the_user():
            yield
    except KeyboardInterrupt as error:
        err.print("\n[red]Interrupted.[/red]", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError) as error:
        if os.environ.get("SCMAMBA_TRACEBACK"):
            raise
        err.print("[red]Error:[/red]", end=" ")
        err.print(str(error) or type(error).__name__, markup=False, highlight=False, soft_wrap=True)
        if not isinstance(error, ScmambaError):
            err.print("For the place in the code, run it again with SCMAMBA_TRACEBACK=1.", style="dim")
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def _only_what_concerns_the_user() -> Iterator[None]:
    """Print our own log and warnings as plain lines, and not what libraries say to programmers."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if Path(__file__).parent in Path(filename).parents and issubclass(category, UserWarning):
            err.print("[yellow]Note:[/yellow]", end=" ")
            err.print(str(message), markup=False, highlight=False, soft_wrap=True)

    ours = logging.getLogger(__package__)
    # by the names of its modules: Lightning sets the level of the logger above them when it is imported
    theirs = [
        logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "callbacks.early_stopping")
    ]
    before = [(logger, logger.level) for logger in (ours, *theirs)]
    propagate = ours.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # a handler that some library gave the root would print each line again
    for logger in theirs:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = propagate
        for logger, level in before:
            logger.setLevel(level)
