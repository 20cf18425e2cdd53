"""Features that the user names."""

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.tools.features import feature_positions

KNOWN = np.array(["CD3E", "CD4", "CD8A", "MS4A1"], dtype=object)


@pytest.mark.parametrize(("names", "found"), [(["MS4A1", "CD3E"], [3, 0]), ("CD4", [1]), (np.array(["CD8A"]), [2])])
def test_positions_are_in_the_order_of_the_names(names, found):
    assert feature_positions(KNOWN, names, "gene", "genes").tolist() == found


def test_names_that_cannot_be_used_are_named():
    with pytest.raises(UnknownNameError, match=r"Unknown gene \(1 of 2\) 'CD8'.*Did you mean 'CD8A'"):
        feature_positions(KNOWN, ["CD4", "CD8"], "gene", "genes")
    with pytest.raises(ScmambaError, match="genes names 'CD4' twice"):
        feature_positions(KNOWN, ["CD4", "CD3E", "CD4"], "gene", "genes")
    with pytest.raises(ScmambaError, match="genes is empty"):
        feature_positions(KNOWN, [], "gene", "genes")
