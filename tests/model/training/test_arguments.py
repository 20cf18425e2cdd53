"""Arguments of `train` that cannot be used are answered with what to type."""

import numpy as np
import pytest
from shapes import fitted, small

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.training.arguments import check_place, parts_of_cells


def test_arguments_of_the_trainers_pass_and_others_are_told_their_place():
    check_place("enable_progress_bar", [])
    check_place("check_val_every_n_epoch", [])
    for name, place in (
        ("lr", "plan_kwargs"),
        ("num_workers", "datasplitter_kwargs"),
        ("n_layers", "SCMAMBA\\(mdata, n_l"),
    ):
        with pytest.raises(ScmambaError, match=f"train has no argument '{name}': pass it as .*{place}"):
            check_place(name, [])
    with pytest.raises(UnknownNameError, match="Did you mean 'max_epochs'"):
        check_place("max_epoch", ["max_epochs"])


def test_parts_of_the_cells_that_the_user_names():
    parts = parts_of_cells([np.arange(5.0), [5, 6], (7,)], 8)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6], [7]]
    assert all(part.dtype == np.int64 for part in parts)
    for parts in (
        [range(5), range(5, 8)],
        [range(5), range(5, 8), None],
        [range(8)],
        [range(8), None, None],
    ):  # scvi-tools'
        found = parts_of_cells(parts, 8)
        assert [len(part) for part in found] in ([5, 3, 0], [8, 0, 0]) and found[2].dtype == np.int64
    for parts, message in (
        ([[0], [1]], "leaves out 6 of 8 cells"),
        ([[0], [1], [2], [3]], "three lists"),
        ([None, [1]], "first of which is not empty"),
        ([], "first of which is not empty"),
        ([[], [1], [2]], "first of which is not empty"),
        ([[0, 8], [], []], "positions among 8 cells, 0 to 7"),
        ([[0.5], [], []], "positions among 8 cells"),
        ([[0, 1], [1], []], "more than once"),
        ([range(5), [5], []], "leaves out 2 of 8 cells: name in its third list those"),
        (3, "three lists of positions"),
    ):
        with pytest.raises(ScmambaError, match=message):
            parts_of_cells(parts, 8)


def test_steps_and_rare_validation_are_not_resumed_together(tmp_path):
    """Lightning would repeat a step of an epoch that is over, and end with other weights."""
    with pytest.raises(ScmambaError, match="both max_steps and check_val_every_n_epoch"):
        fitted(small()).train(max_steps=4, check_val_every_n_epoch=2, checkpoint_dir=tmp_path / "c")
    assert not any(tmp_path.iterdir())
