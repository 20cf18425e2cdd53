"""``demo`` and ``integrate``: from counts to embeddings, clusters, figures and a model."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from .._arguments import MAX_SEED
from .._files import check_is_file, check_result, place_of
from .._keys import CLUSTER_KEY
from ..config import resolve_config
from ..errors import ScmambaError
from ._arguments import FILES, parse_files, parse_pairs, paths_of
from ._console import out, reporting, say
from ._outputs import OVERWRITE, check_outputs, remove_earlier, save_figure, score_files

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from ..model import SCMAMBA

#: Enough for simulated cells; early stopping alone would train three times as long.
DEMO_EPOCHS: Final = 20


def demo(
    out_dir: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Folder for the results; files of an earlier demo are replaced."
        ),
    ] = Path("demo"),
    cells: Annotated[int, typer.Option(min=100, metavar="N", help="Cells to simulate.")] = 2000,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Seed of the simulation and of the model.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of these names that no demo wrote.")
    ] = False,
) -> None:
    """Simulate cells with RNA and ATAC, integrate and score them.

    For example:

        scmamba-scvi demo -o demo --cells 500
    """
    with reporting():
        file = out_dir / "integrated.h5mu"
        outputs = [("--out", path) for path in (file, *_figure_paths(out_dir), *score_files(file))]
        check_outputs([], outputs, overwrite or _is_of_demo(file))
        import numpy as np

        from ..data import simulate_multiome

        mdata = simulate_multiome(n_cells=cells, seed=seed)
        mdata = mdata[:, np.concatenate([part.X.getnnz(axis=0) > 0 for part in mdata.mod.values()])].copy()
        say(f"Simulated, not real: {_describe(mdata)}.")
        model = _integrate(mdata, "cell_type", batch_key="batch", seed=seed, max_epochs=DEMO_EPOCHS)
        _write_results(mdata, model, file, out_dir, color=("cell_type", "batch"))


def _is_of_demo(file: Path) -> bool:
    """Whether a file holds simulated cells, which nobody misses."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return "uns/simulation" in opened
    except OSError:  # it is not there, or is something else
        return False


def integrate(
    files: FILES,
    out_file: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write, .h5mu.")],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=KEY",
            help="Which modality is which, as KIND=KEY, where KIND is rna, atac or protein: rna=gex. Repeat it. "
            "By default they are recognised.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=LAYER",
            help="Layer with raw counts, such as rna=counts; repeat it, for each modality that has one. By default .X.",
        ),
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of obs with batches; rna:donor is a column of one modality."),
    ] = None,
    labels_key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of obs with known cell types: coloured and scored, never trained on."
        ),
    ] = None,
    no_require_counts: Annotated[
        bool,
        typer.Option(
            "--no-require-counts",
            help="Take values that are negative or not whole numbers, as of counts corrected for ambient RNA.",
        ),
    ] = False,
    genome: Annotated[
        str | None,
        typer.Option(metavar="BUILD", help="Build of the coordinates, such as hg38. By default as the file says."),
    ] = None,
    gtf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Gene annotation (GTF or table) to place genes along the genome."),
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Size of the network: auto, small, base, large or paper.")
    ] = "auto",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What reads the features: mamba, mlp, or linear, which has no network and takes less time.",
        ),
    ] = "mamba",
    n_latent: Annotated[int, typer.Option(min=2, metavar="N", help="Dimensions of the embedding.")] = 64,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Times that training goes through the cells, at most. By default from the number of cells.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Cells in a minibatch. By default from the number of cells.")
    ] = None,
    accelerator: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or gpu.")] = "auto",
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, metavar="N", help="The same seed gives the same result on the same machine."),
    ] = 0,
    umap: Annotated[bool, typer.Option("--umap/--no-umap", help="Fit UMAP coordinates and draw them.")] = True,
    model_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the model. By default OUT_model beside the file.")
    ] = None,
    figure_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for the figures. By default OUT_figures beside the file."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="HTML file to write: a page about the result, which opens without a network."
        ),
    ] = None,
    overwrite: OVERWRITE = False,
) -> None:
    """Integrate cells: embeddings, clusters, figures and a model.

    For example:

        scmamba-scvi integrate cells.h5mu -o out.h5mu --batch-key sample

        scmamba-scvi integrate filtered_feature_bc_matrix.h5 -o out.h5mu

        scmamba-scvi integrate rna=a.h5ad atac=b.h5ad -o out.h5mu
    """
    with reporting():
        if out_file.suffix != ".h5mu":
            raise ScmambaError(f"--out must end in .h5mu, got {out_file.name!r}.")
        if report is not None and report.suffix != ".html":
            raise ScmambaError(f"--report must end in .html, got {report.name!r}.")
        model_dir = model_dir or out_file.with_name(f"{out_file.stem}_model")
        figure_dir = figure_dir or out_file.with_name(f"{out_file.stem}_figures")
        modalities = parse_pairs("--modality", modality, "KIND=KEY", "rna=gex")
        layers = parse_pairs("--layer", layer, "KIND=LAYER", "rna=counts")
        outputs = [("--out", path) for path in (out_file, *score_files(out_file))]
        outputs += [("--figure-dir", path) for path in _figure_paths(figure_dir)]
        outputs += [("--report", report)] if report is not None else []
        sources = parse_files(files)
        check_outputs(paths_of(sources), outputs, overwrite, folders=[("--model-dir", model_dir)])
        if gtf is not None:
            check_is_file(gtf, "gtf")
        resolve_config(preset, n_latent=n_latent, encoder=encoder)

        from .._compat import device_of
        from ..data import read
        from ..pp import annotate_genome

        device_of(accelerator, "auto")  # raises if it is not there
        mdata = read(sources)
        say(f"Read {', '.join(path.name for path in paths_of(sources))}: {_describe(mdata)}.")
        check_result(mdata, place_of(out_file).parent)
        earlier = _written_at(model_dir)
        if gtf is not None:
            annotate_genome(mdata, gtf=gtf, modality=(modalities or {}).get("rna"))
        model = _integrate(
            mdata, labels_key, modalities=modalities, layers=layers, batch_key=batch_key,
            require_counts=not no_require_counts, genome=genome, preset=preset, n_latent=n_latent, seed=seed, umap=umap,
            model_dir=model_dir, overwrite=overwrite, max_epochs=max_epochs, batch_size=batch_size,
            accelerator=accelerator, model_kwargs={"encoder": encoder},
        )  # fmt: skip
        check_outputs([], outputs, overwrite)  # again, as another run may have written them meanwhile
        _write_results(mdata, model, out_file, figure_dir, color=(labels_key, batch_key), integration=umap)
        if report is not None:
            from ..report import write_report

            write_report(
                model,
                report,
                labels_key=labels_key,
                title=f"Integration of {', '.join(path.name for path in paths_of(sources))}",
                command=shlex.join(["scmamba-scvi", *sys.argv[1:]]),
            )
            say(f"Wrote {report}.")
        if _written_at(model_dir) == earlier:  # a note said why
            left = "" if earlier is None else " The one that is there is of an earlier run."
            raise ScmambaError(f"The model was not saved into {model_dir}; everything else was written.{left}")


def _written_at(model_dir: Path) -> int | None:
    """When the model in a folder was written, in nanoseconds; `None` if there is none."""
    weights = model_dir / "model.pt"
    return weights.stat().st_mtime_ns if weights.exists() else None


def _integrate(mdata: MuData, labels_key: str | None, **options: Any) -> SCMAMBA:
    """Integrate, and print how long it took and the scores."""
    from .. import workflow

    start = time.perf_counter()
    model = workflow.integrate(mdata, labels_key=labels_key, enable_progress_bar=out.is_terminal, **options)
    seconds = time.perf_counter() - start
    say(f"Integrated in {seconds:.0f} s." if seconds < 100 else f"Integrated in {seconds / 60:.0f} min.")
    scores = workflow.validation_scores(mdata, model, labels_key)
    if len(scores):
        out.print(_table(scores))
        say(
            "FOSCTTM and recall are of the validation cells: the network was not trained on them, but they chose the epoch, and "
            "the alignment of the modalities was fitted to them, after the FOSCTTM above. New cells score a little worse."
        )
    return model


def _figure_paths(folder: Path) -> tuple[Path, Path]:
    return folder / "training.png", folder / "integration.png"


def _write_results(
    mdata: MuData,
    model: SCMAMBA,
    file: Path,
    figure_dir: Path,
    color: Sequence[str | None],
    integration: bool = True,
) -> None:
    """Data first: an error in a figure must not lose them."""
    from .. import pl
    from .._columns import obs_column
    from ..pl.coloring import can_color
    from ..workflow import write_mudata

    write_mudata(mdata, file)
    say(f"Wrote {file}.")
    of_training, of_cells = _figure_paths(figure_dir)
    remove_earlier([of_training, of_cells, *score_files(file)])
    columns = []
    for name in filter(None, (*color, CLUSTER_KEY)):
        if can_color(obs_column(mdata, name)):
            columns.append(name)
        elif integration:
            say(f"Not drawn, for too many values: {name}.")
    save_figure(lambda figure: pl.training(model, figure=figure), of_training)
    if integration:
        kinds = list(model.kinds.values())
        save_figure(lambda figure: pl.integration(mdata, columns, modalities=kinds, figure=figure), of_cells)


def _table(scores: pd.DataFrame) -> Table:
    """Scores beside what chance and a perfect embedding give."""
    table = Table(header_style="bold")
    table.add_column("score")
    for name in ("cells", "scmamba-scvi", "chance", "perfect"):
        table.add_column(name, justify="right")
    for name, row in scores.iterrows():
        better = abs(row["value"] - row["best"]) < abs(row["chance"] - row["best"])
        style = "green" if better else "red"
        value = f"[{style}]{row['value']:.3f}[/{style}]"
        table.add_row(str(name), f"{row['n_cells']:,.0f}", value, f"{row['chance']:.3f}", f"{row['best']:.0f}")
    return table


def _describe(mdata: MuData) -> str:
    """Cells, how many have each modality where some lack one, and how many have several."""
    present = [mdata.obs_names.isin(data.obs_names) for data in mdata.mod.values()]
    parts = [
        f"{data.n_vars:,} features of {key}" + ("" if has.all() else f" (in {has.sum():,} cells)")
        for (key, data), has in zip(mdata.mod.items(), present, strict=True)
    ]
    pairs = int((sum(has.astype(int) for has in present) > 1).sum()) if present else 0
    have = "all" if pairs == mdata.n_obs else f"{pairs:,}"
    return f"{mdata.n_obs:,} cells, {' and '.join(parts) or 'no modality'}; {have} have several modalities"
