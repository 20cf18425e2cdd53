"""Results as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from scmamba_scvi._files import atomic_write


def write_json(path: Path, found: object) -> None:
    """Write ``found``; a script that is ended meanwhile leaves what was there."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(found, indent=1) + "\n")
