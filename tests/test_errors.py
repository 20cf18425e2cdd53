from __future__ import annotations

import pickle

import pytest

from scmamba_scvi.errors import NonFiniteError, ResumeError, ScmambaError, UnknownNameError


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known():
    error = UnknownNameError("preset", "smal", ["small", "base"])
    assert str(error) == "Unknown preset 'smal'. Did you mean 'small'? Known: 'small', 'base'."


def test_case_does_not_matter_for_what_was_meant():
    error = UnknownNameError("metric", "foscttm", ["ARI", "FOSCTTM", "recall@10"])
    assert str(error) == "Unknown metric 'foscttm'. Did you mean 'FOSCTTM'? Known: 'ARI', 'FOSCTTM', 'recall@10'."
    assert "Did you mean 'Cd4'?" in str(UnknownNameError("gene", "CD4", ["Cd4", "Cd8a"]))


def test_a_name_that_is_near_to_none_gets_no_hint():
    assert str(UnknownNameError("key", "zzz", ["small"])) == "Unknown key 'zzz'. Known: 'small'."
    assert str(UnknownNameError("key", "zzz", [])) == "Unknown key 'zzz'. Known: none."


def test_of_many_names_those_like_it_are_listed():
    names = [*(f"gene_{i}" for i in range(100)), "max_epochs"]
    assert str(UnknownNameError("key", "max_epoch", names)).endswith("Known: 'max_epochs' and 100 more.")
    first = "'gene_0', 'gene_1', 'gene_2', 'gene_3', 'gene_4'"
    assert str(UnknownNameError("key", "zzz", names)) == f"Unknown key 'zzz'. Known: {first} and 96 more."


@pytest.mark.parametrize(
    "error", [UnknownNameError("key", 1, [2]), ResumeError("no"), NonFiniteError("nan", 3, "rna", ["c"])]
)
def test_errors_are_value_errors_that_worker_processes_can_send(error):
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError) and isinstance(again, ScmambaError)
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_value_that_is_not_finite_is_located():
    error = NonFiniteError("nan", 3, "rna", ["c"])
    assert (error.epoch, error.modality, error.cells) == (3, "rna", ("c",))
