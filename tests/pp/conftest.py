from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_file():
    """Path of a file among the real data that lie beside the project; skips where they do not."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SCMAMBA_DATA", beside))

    def path_of(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"real data are not here: no {path} (set SCMAMBA_DATA to their folder)")
        return path

    return path_of
