"""Private names of other packages are still where `_compat` looks for them, and its helpers keep their word."""

import errno
import logging
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData

from scmamba_scvi import SCMAMBA, _compat
from scmamba_scvi._files import atomic_write
from scmamba_scvi.errors import ScmambaError, UnknownNameError


def test_private_names_of_scvi_tools_exist():
    constants = _compat.scvi_constants()
    for name in ("_FIELD_REGISTRIES_KEY", "_STATE_REGISTRY_KEY", "_DATA_REGISTRY_KEY", "_SUMMARY_STATS_KEY",
                 "_SETUP_ARGS_KEY", "_SETUP_METHOD_NAME", "_MODEL_NAME_KEY", "_SCVI_VERSION_KEY", "_SCVI_UUID_KEY"):  # fmt: skip
        assert isinstance(getattr(constants, name), str)


def test_quiet_puts_levels_back():
    logger = logging.getLogger("scmamba_scvi.test")
    logger.setLevel(logging.INFO)
    with _compat.quiet("scmamba_scvi.test"):
        assert logger.level == logging.ERROR
    assert logger.level == logging.INFO


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu", "hpu"])
@pytest.mark.parametrize("call", [_compat.device_of, _compat.n_devices])
def test_a_device_that_is_not_there_is_named(call, accelerator):
    """As copied from a tutorial that was written on another machine."""
    if accelerator in ("gpu", "cuda") and torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(ScmambaError, match=f"accelerator='{accelerator}'.* cannot be used on this machine"):
        call(accelerator, "auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is another GPU")
def test_on_a_machine_of_apple_auto_is_the_cpu_and_nobody_is_told_to_ask_for_the_gpu(monkeypatch, mdata, quick):
    from lightning.fabric import accelerators as of_fabric
    from lightning.pytorch import accelerators
    from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

    for package in (accelerators, of_fabric):
        monkeypatch.setattr(package.MPSAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(_AcceleratorConnector, "_choose_auto_accelerator", staticmethod(lambda *_: "mps"))
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(mps|GPU)")
        model.train(**{**quick, "accelerator": "auto"})
    assert model.module.device.type == "cpu"


@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
@pytest.mark.parametrize("call", [_compat.device_of, _compat.n_devices])
def test_the_gpu_of_apple_is_refused_before_anything_is_computed(monkeypatch, call, accelerator):
    monkeypatch.setattr("scvi.model._utils.parse_device_args", lambda **_: ("mps", [0], torch.device("mps")))
    with pytest.raises(ScmambaError, match=f"accelerator='{accelerator}'.* has no float64.*accelerator='cpu'"):
        call(accelerator, "auto")


def test_without_pulling_columns_stay_with_their_modality():
    rna = AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame({"depth": [1, 2]}, index=["a", "b"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with _compat.without_pulling():
            mdata = MuData({"rna": rna})
    assert mdata.obs.columns.empty
    assert mdata["rna"].obs["depth"].tolist() == [1, 2]


def test_errors_of_other_packages_are_quoted_and_ours_pass():
    with (
        pytest.raises(ScmambaError, match="a trainer cannot be made: two words") as caught,
        _compat.explained("a trainer cannot be made"),
    ):
        raise TypeError("two\n  words")
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(UnknownNameError), _compat.explained("never said"):
        raise UnknownNameError("name", "a", ["b"])


@pytest.mark.parametrize(("number", "advised"), [(errno.ENOLCK, True), (errno.EAGAIN, False)], ids=["none", "taken"])
def test_a_drive_without_locks_is_answered_with_the_variable_of_hdf5(tmp_path, number, advised):
    """A lock that another program has must be waited for."""
    error = OSError(number, f"Unable to synchronously open file (unable to lock file, errno = {number})")
    with pytest.raises(ScmambaError) as of_read, _compat.explained("cells.h5mu cannot be read"):
        raise error
    with pytest.raises(ScmambaError) as of_write, atomic_write(tmp_path / "cells.h5mu"):
        raise error
    for said in (str(of_read.value), str(of_write.value)):
        assert ("HDF5_USE_FILE_LOCKING=FALSE" in said) == advised and "unable to lock file" in said
