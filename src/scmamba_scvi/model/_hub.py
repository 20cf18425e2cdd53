"""Exported models on the Hugging Face Hub: the two files of an export and a page that says what they are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._compat import huggingface_hub
from ..errors import ScmambaError
from ._export import read_export, write_export
from ._model_json import MODEL_FILE

if TYPE_CHECKING:
    from mudata import MuData

    from ._model import SCMAMBA

#: What is fetched: never more than an export holds, whatever else a repository has.
FILES: Final = [MODEL_FILE, "weights*.safetensors"]
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
    model: SCMAMBA, repo_id: str, *, private: bool | None, token: str | None, revision: str | None, message: str
) -> str:
    """Export ``model`` into a repository, in one commit; its address."""
    api = huggingface_hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "model"
        write_export(model, export)
        (export / "README.md").write_text(
            CARD.format(title=repo_id.rpartition("/")[2], summary=repr(model), repo_id=repo_id), encoding="utf-8"
        )
        with _named(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=export, revision=revision, commit_message=message,
                delete_patterns="weights*.safetensors",
            )  # fmt: skip
    return str(done.commit_url)


def download(cls: type[SCMAMBA], repo_id: str, mdata: MuData | None, **options: Any) -> SCMAMBA:
    """Model from a repository; ``options`` are those of `huggingface_hub.snapshot_download`."""
    with _named(repo_id):
        folder = huggingface_hub().snapshot_download(repo_id, allow_patterns=FILES, **options)
    return read_export(cls, folder, mdata)


class _named:
    """Errors of the hub and of the network as one of ours, with the repository."""

    def __init__(self, repo_id: str) -> None:
        self.repo_id = repo_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception):
            reason = " ".join(str(error).split())[:300]
            raise ScmambaError(
                f"The repository {json.dumps(self.repo_id)} cannot be reached or used: {reason}"
            ) from error
