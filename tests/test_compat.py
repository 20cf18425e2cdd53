"""Private names of other packages are still where `_compat` looks for them, and its helpers keep their word."""

import logging
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scmamba_scvi import _compat


def test_private_names_of_scvi_tools_exist():
    constants = _compat.scvi_constants()
    for name in ("_FIELD_REGISTRIES_KEY", "_STATE_REGISTRY_KEY", "_DATA_REGISTRY_KEY", "_SUMMARY_STATS_KEY",
                 "_SETUP_ARGS_KEY", "_SETUP_METHOD_NAME", "_MODEL_NAME_KEY", "_SCVI_VERSION_KEY", "_SCVI_UUID_KEY"):  # fmt: skip
        assert isinstance(getattr(constants, name), str)
    assert callable(_compat.devices_docstring())


def test_a_submodule_is_imported_without_running_its_package(tmp_path, monkeypatch):
    package = tmp_path / "needs_the_moon"
    package.mkdir()
    (package / "__init__.py").write_text("import a_package_nobody_has")
    (package / "part.py").write_text("answer = 42")
    monkeypatch.syspath_prepend(tmp_path)
    assert _compat.import_without_package("needs_the_moon.part").answer == 42
    assert "needs_the_moon" not in sys.modules  # whoever imports it later runs its __init__
    with pytest.raises(ImportError):
        _compat.import_without_package("needs_the_sun.part")


def test_quiet_puts_levels_back():
    logger = logging.getLogger("scmamba_scvi.test")
    logger.setLevel(logging.INFO)
    with _compat.quiet("scmamba_scvi.test"):
        assert logger.level == logging.ERROR
    assert logger.level == logging.INFO


def test_without_pulling_columns_stay_with_their_modality():
    rna = AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame({"depth": [1, 2]}, index=["a", "b"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with _compat.without_pulling():
            mdata = MuData({"rna": rna})
    assert mdata.obs.columns.empty
    assert mdata["rna"].obs["depth"].tolist() == [1, 2]
