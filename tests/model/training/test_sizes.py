"""Sizes that follow from the number of cells, and those that do not fit them."""

import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.training.sizes import choose_sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"batch_size": 64, "size": 100}, "not a multiple of batch_size=64: choose 64 or 128", id="multiple"),
        pytest.param({"batch_size": 64, "size": 32}, "smaller than batch_size=64: choose at least 64", id="smaller"),
        pytest.param({"batch_size": 64, "size": 1024}, "more than the 900 training cells: .* at most 896", id="too many"),
        pytest.param(
            {"batch_size": 64, "size": 192, "world_size": 2},
            "on each of 2 devices: choose 128 or 256",
            id="several devices",
        ),
        pytest.param({"batch_size": 1, "size": 64}, "batch_size=1 is too few cells", id="no minibatch"),
        pytest.param({"batch_size": 300, "size": None, "world_size": 2}, "choose 2 to 225", id="two devices, too large"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(arguments, message):
    options = {"world_size": 1, **arguments}
    with pytest.raises(ScmambaError, match=message):
        choose_sizes(1000, 900, options["batch_size"], options["size"], None, None, options["world_size"])


def test_a_stage_has_about_300_steps_between_3_and_100_epochs():
    for n_train, epochs in ((100, 75), (5_000, 34), (10**6, 3)):
        sizes = choose_sizes(n_train, n_train, None, None, None)
        assert sizes.batch_size == min(512, n_train // 4) and sizes.max_epochs == epochs
        assert sizes.stages(linear_first=True) == {"linear": epochs, "full": epochs}
        assert sizes.stages(linear_first=False) == {"full": epochs}
        assert sizes.stages(linear_first=False, has_network=False) == {"linear": epochs}


def test_epochs_that_are_named_are_divided_between_the_stages():
    sizes = choose_sizes(900, 900, 64, 192, 5)
    assert sizes.stages(linear_first=True) == {"linear": 2, "full": 3} and sizes.micro_batch_size == 64
    assert choose_sizes(900, 900, 64, None, 5).micro_batch_size is None


def test_patience_is_about_100_steps_and_a_quarter_of_that_for_the_network():
    for n_train, first, network in ((100, 25, 7), (5_000, 12, 3), (10**6, 3, 2)):
        sizes = choose_sizes(n_train, n_train, None, None, None)
        assert (sizes.patience, sizes.patience_of_network) == (first, network)
    given = choose_sizes(5_000, 5_000, None, None, None, early_stopping_patience=7)
    assert given.patience == given.patience_of_network == 7
