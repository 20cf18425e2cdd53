"""Exported models on the Hugging Face Hub: the two files of an export, and a page that describes the model."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

from ...errors import ScmambaError
from .._base import ModelBase
from .export import read_export, write_export
from .model_json import MODEL_FILE

if TYPE_CHECKING:
    from mudata import MuData


WEIGHTS: Final = "weights*.safetensors"
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


class HubMixin(ModelBase):
    """`push_to_hub` and `from_hub`."""

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **upload_kwargs: Any
    ) -> str:
        """Put the model, as :meth:`export` writes it, on the Hugging Face Hub; needs ``scmamba-scvi[hub]``.

        Parameters
        ----------
        repo_id
            ``"name/of-the-model"``; created if it does not exist.
        private
            Whether a repository that is created is hidden from others; `None`: the default of the account.
        token
            Of the account; `None`: the one that is logged in.
        **upload_kwargs
            For ``huggingface_hub.HfApi.upload_folder``, such as ``revision`` (a branch) or ``commit_message``.

        Returns
        -------
        Address of the commit.

        Raises
        ------
        ScmambaError
            huggingface_hub is not installed, or the repository cannot be written.

        Examples
        --------
        >>> model.push_to_hub("you/scmamba-blood", private=True)  # doctest: +SKIP
        """
        api = huggingface_hub().HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            export = Path(folder) / "model"
            write_export(self, export)
            card = CARD.format(title=repo_id.rpartition("/")[2], summary=repr(self), repo_id=repo_id)
            (export / "README.md").write_text(card, encoding="utf-8")
            with _naming_the_repository(repo_id):
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=export, delete_patterns=WEIGHTS, **upload_kwargs
                )
        return str(commit.commit_url)

    @classmethod
    def from_hub(cls, repo_id: str, mdata: MuData | None = None, **download_kwargs: Any) -> Self:
        """Model from the Hugging Face Hub, checked as :meth:`from_export` does; needs ``scmamba-scvi[hub]``.

        Parameters
        ----------
        repo_id
            ``"name/of-the-model"``.
        mdata
            As in :meth:`from_export`.
        **download_kwargs
            For ``huggingface_hub.snapshot_download``, such as ``token``, ``local_files_only`` or ``revision``: a branch, tag
            or commit, of which only a commit cannot change later.

        Raises
        ------
        ScmambaError
            huggingface_hub is not installed, the repository cannot be read, or does not hold a model.

        Examples
        --------
        >>> SCMAMBA.from_hub("somebody/scmamba-blood", mdata, revision="8f3c2e1")  # doctest: +SKIP
        """
        hub = huggingface_hub()
        with _naming_the_repository(repo_id):
            folder = hub.snapshot_download(repo_id, allow_patterns=[MODEL_FILE, WEIGHTS], **download_kwargs)
        return read_export(cls, folder, mdata)


def huggingface_hub() -> ModuleType:
    """The client of the hub, an optional package."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ScmambaError("The Hugging Face Hub needs its client: pip install 'scmamba-scvi[hub]'.") from error


@contextlib.contextmanager
def _naming_the_repository(repo_id: str) -> Iterator[None]:
    """Errors of the hub and of the network become one of ours that names the repository."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ScmambaError(f"The repository {repo_id!r} cannot be reached or used: {reason}") from error
