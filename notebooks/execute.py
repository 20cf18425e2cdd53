"""Run the notebooks of this folder in place and store their outputs, without traces of the run.

They show real cells: `SCMAMBA_DATA` names the folder with the data sets of the benchmarks; without it they are downloaded.

``python notebooks/execute.py`` runs all of them, ``python notebooks/execute.py quickstart atlas`` those that are named.
Text, tables and figures are stored. Progress bars, warnings, counters, times and the name of the kernel are not, so that
a second run changes a file only where a result has changed.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
#: Forms of an output that are stored; the others would only take space.
KEPT = ("image/png", "text/html", "text/plain")
TIMEOUT = 3600  # seconds that a cell may take
TAG = re.compile(r"<[^>]*>")
#: Log lines of libraries, and the codes of colours.
CHATTER = re.compile(r"^(Monitored metric|\x1b\[34mINFO|INFO) .*\n(?:  +\S.*\n)*|\x1b\[[0-9;]*m", flags=re.MULTILINE)


def execute(path: Path) -> None:
    """Run one notebook and write it back."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    notebook.metadata = {"language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [kept for kept in map(tidy, cell.outputs) if kept is not None]
    nbformat.write(notebook, path)


def tidy(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output as it is stored; `None` if nothing of it is."""
    if output.output_type == "stream":
        output.text = CHATTER.sub("", output.text)
        return None if output.name == "stderr" or not output.text.strip() else output
    if "data" in output:
        output.data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
        if not TAG.sub("", output.data.get("text/html", "shown as text")).strip():
            return None  # where a progress bar of rich was
        if "image/png" in output.data:
            output.data = {"image/png": output.data["image/png"]}  # its text form holds an address in memory
        output.metadata = {}
        if "execution_count" in output:
            output.execution_count = None
        return output if output.data else None
    return output


def main() -> None:
    """Run the notebooks that the command line names, or all."""
    # progress bars and hints of libraries do not belong on a page
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "SOURCE_DATE_EPOCH": "0"}
    for path in [HERE / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        start = time.perf_counter()
        execute(path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
