"""Models as files in scvi-tools' format; what `ExportMixin` writes is for files that are passed on."""

import os
import warnings
from pathlib import Path
from typing import Any, Self

import h5py
from anndata.io import read_elem
from mudata import MuData

from ..._compat import device_of, explained, warn
from ..._files import (
    check_content,
    check_folder,
    check_result,
    check_space,
    naming_full_disk,
    replace_by,
    temporary_folder,
    write_h5mu,
)
from ...errors import ScmambaError
from .._base import digest
from .export import ExportMixin, folder_of
from .model_json import MODEL_FILE


class SavingMixin(ExportMixin):
    """`save` and `load`."""

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: dict[str, Any] | None = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save in scvi-tools' format, with history and the cells trained on; see :meth:`load` for who may read it.

        Parameters
        ----------
        dir_path, prefix, save_kwargs, **anndata_write_kwargs
            As in :meth:`scvi.model.base.BaseModelClass.save`.
        overwrite
            Replace the model that an earlier call wrote there; where that fails, the earlier one stays.
        save_anndata
            Save the MuData too. Without it, a MuData of an earlier call stays, under another name if it has other cells or
            features than the model's, with a warning.

        Raises
        ------
        ScmambaError
            The folder exists, or cannot be written, or ``save_anndata`` and the MuData holds what no file can hold.

        Examples
        --------
        >>> model.save("trained", overwrite=True)
        >>> SCMAMBA.load("trained", mdata).is_trained
        True
        """
        folder = folder_of(dir_path)
        check_folder(folder, overwrite)
        check_space(sum(tensor.nbytes for tensor in self.module.state_dict().values()), folder)  # torch does not say it
        data = folder / f"{prefix or ''}mdata.h5mu"
        if save_anndata:
            if self.adata is None:
                raise ScmambaError("This model has no data to save: leave save_anndata out.")
            if "compression" in anndata_write_kwargs:  # how small it makes them is not known
                check_content(self.adata)
            else:
                check_result(self.adata, folder)
        with explained(f"The model cannot be saved into {dir_path}"), temporary_folder(folder) as unfinished:
            with naming_full_disk():
                super().save(os.fspath(unfinished), prefix, overwrite=True, save_kwargs=save_kwargs)
            weights = list(unfinished.iterdir())
            try:
                if save_anndata:
                    write_h5mu(self.adata, unfinished / data.name, **anndata_write_kwargs)
                    weights.append(unfinished / data.name)
            finally:
                # weights alone are better than nothing, but not beside the data of an earlier save
                if len(weights) > 1 or not save_anndata or not data.exists():
                    folder.mkdir(exist_ok=True)
                    for file in weights:
                        replace_by(file, folder / file.name)
                    if not save_anndata and data.exists() and self._is_of_others(data):
                        _move_aside(data)

    def _is_of_others(self, path: Path) -> bool:
        """Whether a file cannot be read, or has other features than the model's, or other cells than its data and training."""
        try:
            with h5py.File(path) as file:
                cells = digest(read_elem(file["obs"]).index)
                features = {key: set(read_elem(modality["var"]).index) for key, modality in file["mod"].items()}
        except (OSError, KeyError, AttributeError):  # `load` could not read it either
            return True
        of_model = {self.cells_of_training_, None if self.adata is None else digest(self.adata.obs_names)} - {None}
        known = {key: set(self.feature_names(kind)) for kind, key in self.modalities_.items()}
        other_cells = bool(of_model) and cells not in of_model
        return other_cells or any(features.get(key, set()) != names for key, names in known.items())

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: MuData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        **kwargs: Any,
    ) -> Self:
        """Load what :meth:`save` wrote.

        The file is a pickle, and a pickle can run any code when it is read: load only what comes from people you trust, as
        you would run a program of theirs. :meth:`export` and :meth:`from_export` are for everything else.

        How a model is computed (``ssd_backend``) is not part of a file: a model that is loaded or read has the default,
        which fits any machine.

        Parameters
        ----------
        adata
            MuData with the model's features in any order. `None`: the one saved with the model. `False`: no data. With other
            cells than at :meth:`save`, or another order of them, it is not known which were trained on: ``train_indices`` and
            ``validation_indices`` raise until :meth:`train` sets them.
        dir_path, accelerator, device, **kwargs
            As in :meth:`scvi.model.base.BaseModelClass.load`.

        Returns
        -------
        The model, in evaluation mode.

        Raises
        ------
        ScmambaError
            The file is missing or damaged, of another class, or the data are not of the model's features.

        Examples
        --------
        >>> model.save("trained", overwrite=True)
        >>> SCMAMBA.load("trained", mdata).get_latent_representation().shape
        (300, 64)
        """
        if adata is not None and adata is not False and not isinstance(adata, MuData):
            raise ScmambaError(f"adata must be a MuData, None or False, got {type(adata).__name__}.")
        device_of(accelerator, device)  # raises if it is not there
        folder = folder_of(dir_path)
        prefix = kwargs.get("prefix") or ""
        others = sorted(path.name for path in folder.glob("*model.pt"))
        if others and f"{prefix}model.pt" not in others:
            other = others[0].removesuffix("model.pt")
            raise ScmambaError(
                f"{folder} has no {prefix}model.pt, but {', '.join(others)}, saved with a prefix: "
                f"{cls.__name__}.load({os.fspath(dir_path)!r}, prefix={other!r}). Where a folder with a model is asked for, "
                f"pass the model that this gives."
            )
        if not others and (folder / MODEL_FILE).is_file():
            raise ScmambaError(
                f"{folder} holds what export wrote, not save: {cls.__name__}.from_export({os.fspath(dir_path)!r}) reads it."
            )
        # torch and pickle raise half a dozen types on files that are cut off, or that hold something else
        what = f"{folder} cannot be loaded, it may be damaged or not be a saved model"
        with warnings.catch_warnings(), explained(what):
            # features are found by name
            warnings.filterwarnings("ignore", "`var_names` for the loaded `model` does not match")
            return super().load(os.fspath(dir_path), adata, accelerator=accelerator, device=device, **kwargs)

    @classmethod
    def _from_folder(cls, folder: Path) -> Self:
        """Model of either format without data, for others that copy its weights and compute nothing with it."""
        if (folder / MODEL_FILE).exists():
            return cls.from_export(folder, accelerator="cpu")
        return cls.load(folder, adata=False, accelerator="cpu")


def _move_aside(path: Path) -> None:
    """Rename a file that `load` would take for the data of the model beside it; nothing is deleted."""
    names = (path.with_name(f"{path.stem}-before{number}{path.suffix}") for number in ("", *range(2, 1000)))
    free = next(name for name in names if not name.exists())
    path.rename(free)
    warn(
        f"{path} is of other cells or features than this model, or damaged, so it is {free.name} now. Delete it if it is not "
        f"needed; save_anndata=True saves the data of this model."
    )
