from __future__ import annotations

from scmamba_scvi import _keys


def test_every_kind_has_names_and_a_feature_type():
    assert set(_keys.MODALITY_NAMES) == set(_keys.FEATURE_TYPES.values()) == set(_keys.KINDS)
    for kind, names in _keys.MODALITY_NAMES.items():
        assert kind in names and all(name == name.lower() for name in names)


def test_no_name_stands_for_two_kinds():
    names = [name for of_kind in _keys.MODALITY_NAMES.values() for name in of_kind]
    assert len(names) == len(set(names))


def test_what_is_written_into_the_users_data_has_our_name():
    for key in (_keys.OBSM_KEY, _keys.UMAP_KEY, _keys.CLUSTER_KEY, _keys.VALIDATION_KEY):
        assert "scmamba" in key


def test_keys_of_a_minibatch_differ():
    keys = [make(kind) for make in (_keys.x_key, _keys.present_key) for kind in _keys.KINDS]
    keys += [_keys.BATCH_KEY, _keys.LABELS_KEY, _keys.CELLS_KEY]
    assert len(keys) == len(set(keys))
