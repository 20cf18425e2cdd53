"""Exported models on the Hugging Face Hub: the two files of an export, and a page that describes the model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..._compat import huggingface_hub
from ...errors import ScmambaError
from .._base import ModelBase
from .export import read_export, write_export
from .model_json import MODEL_FILE

if TYPE_CHECKING:
    from mudata import MuData


WEIGHTS: Final = "weights*.safetensors"
#: What is downloaded, whatever else a repository holds.
FILES: Final = [MODEL_FILE, WEIGHTS]
CARD: Final = """---
library_name: scmamba-scvi
tags:
- single-cell
- multi-omics
---

# {title}

```
{summary}
```

```python
from scmamba_scvi import SCMAMBA

model = SCMAMBA.from_hub("{repo_id}")
z = model.get_latent_representation(mdata)
```

Reading this model runs no code of the repository.
"""


def upload(
    model: ModelBase, repo_id: str, *, private: bool | None, token: str | None, revision: str | None, message: str
) -> str:
    """Export ``model`` into a repository, which is created if needed; address of the one commit that this makes."""
    api = huggingface_hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "model"
        write_export(model, export)
        (export / "README.md").write_text(
            CARD.format(title=repo_id.rpartition("/")[2], summary=repr(model), repo_id=repo_id), encoding="utf-8"
        )
        with _naming_the_repository(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=export, revision=revision, commit_message=message, delete_patterns=WEIGHTS,
            )  # fmt: skip
    return str(commit.commit_url)


def download(cls: type[ModelBase], repo_id: str, mdata: MuData | None, **options: Any) -> ModelBase:
    """Model from a repository; ``options`` are those of `huggingface_hub.snapshot_download`."""
    hub = huggingface_hub()
    with _naming_the_repository(repo_id):
        folder = hub.snapshot_download(repo_id, allow_patterns=FILES, **options)
    return read_export(cls, folder, mdata)


@contextlib.contextmanager
def _naming_the_repository(repo_id: str) -> Iterator[None]:
    """Errors of the hub and of the network become one of ours that names the repository."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ScmambaError(f"The repository {repo_id!r} cannot be reached or used: {reason}") from error
