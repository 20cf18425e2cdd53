"""Damaged and forged files end in a named error, whatever reads them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zipfile

import h5py
import numpy as np
import pytest
import torch
from children import in_child, needs_fork
from faults import assert_named, bounded, is_named, needs_proc

from scmamba_scvi import SCMAMBA, read
from scmamba_scvi.data._formats import check_declared_sizes

pytestmark = [pytest.mark.filterwarnings("ignore"), needs_proc]


# -- HDF5 -------------------------------


def cut(fraction):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])


def edit(change):
    def work(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return work


def replace(name, value, **attributes):
    """Replace a dataset, keeping the attributes that AnnData reads."""

    def change(file):
        attrs = {**dict(file[name].attrs), **attributes}
        del file[name]
        file[name] = value
        file[name].attrs.update(attrs)

    return edit(change)


def huge(name, shape):
    """Replace a dataset by one that claims a large shape and holds nothing."""

    def change(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, shape=shape, dtype="f4", chunks=(1024,) * len(shape))
        file[name].attrs.update(attrs)

    return edit(change)


def attribute(name, key, value):
    return edit(lambda file: file[name].attrs.__setitem__(key, value))


def value_at(name, position, value):
    def change(file):
        data = file[name][:]
        data[position] = value
        file[name][...] = data

    return edit(change)


def linked_outside(file):
    del file["mod/rna/X"]
    file["mod/rna/X"] = h5py.ExternalLink("/etc/passwd", "/")


RNA = "mod/rna/X"
H5MU = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("gene,cell\n"),
    "a zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "cut at a tenth": cut(0.1),
    "cut in half": cut(0.5),
    "the last byte gone": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "the magic number changed": lambda path: path.write_bytes(path.read_bytes()[:512] + b"\0" * 8 + path.read_bytes()[520:]),
    "the superblock changed": lambda path: path.write_bytes(path.read_bytes()[:521] + b"\xff" * 40 + path.read_bytes()[561:]),
    "no modality": edit(lambda f: f.pop("mod")),
    "no matrix": edit(lambda f: f.pop(RNA)),
    "no names of cells": edit(lambda f: f.pop("mod/rna/obs/_index")),
    "values as text": replace(f"{RNA}/data", np.array([b"a"] * 10)),
    "columns out of range": value_at(f"{RNA}/indices", 3, 10**6),
    "columns as fractions": replace(f"{RNA}/indices", np.full(700, 0.5)),
    "rows that run backwards": value_at(f"{RNA}/indptr", 5, 10**6),
    "too few rows": replace(f"{RNA}/indptr", np.zeros(3, dtype=np.int32)),
    "too few values": replace(f"{RNA}/data", np.ones(5, dtype=np.float32)),
    "a shape of billions": attribute(RNA, "shape", np.array([2**40, 2**40])),
    "a shape that is negative": attribute(RNA, "shape", np.array([-1, 30])),
    "a shape of another size": attribute(RNA, "shape", np.array([10, 10])),
    "a dense matrix of terabytes": huge(RNA, (2**20, 2**20)),
    "values of terabytes": huge(f"{RNA}/data", (2**40,)),
    "an encoding nobody knows": attribute(RNA, "encoding-type", "mystery"),
    "a version nobody knows": attribute(RNA, "encoding-version", "99.0"),
    "fewer names than cells": replace("mod/rna/obs/_index", np.array([b"a", b"b"])),
    "fewer names than features": replace("mod/rna/var/_index", np.array([b"a", b"b"])),
    "names as numbers": replace("mod/rna/var/_index", np.arange(30)),
    "names that are no text": replace("mod/rna/var/_index", np.array([b"\xff\xfe" + bytes([i]) for i in range(1, 31)])),
    "a map of another length": replace("obsmap/rna", np.arange(5, dtype=np.uint32)),
    "a map out of range": replace("obsmap/rna", np.full(60, 10**6, dtype=np.uint32)),
    "a link out of the file": edit(linked_outside),
    "the file is a folder": lambda path: (path.unlink(), path.mkdir()),
    "the file is not there": lambda path: path.unlink(),
}  # fmt: skip
#: Files that may be read as well as refused: cells are aligned by name, so the maps, for example, are not used.
MAY_BE_READ = {"a map of another length", "a map out of range", "names as numbers", "a version nobody knows"}


def test_an_array_that_another_filter_packs_to_nothing_is_no_forgery(tmp_path):
    path = tmp_path / "ones.h5"
    with h5py.File(path, "w") as file:
        # with a second filter a constant is stored in next to nothing, as by zstd alone
        data = np.ones(1 << 25, dtype=np.int32)
        file.create_dataset("data", data=data, chunks=(1 << 22,), scaleoffset=0, compression="gzip")
        assert file["data"].id.get_storage_size() < 10_000
    check_declared_sizes(path)


def read_and_set_up(path):
    mdata = read(path)
    SCMAMBA.setup_mudata(mdata)
    return SCMAMBA(mdata)


@needs_fork
@pytest.mark.parametrize("case", H5MU)
def test_a_damaged_h5mu_is_named_and_stays_as_it_is(files, tmp_path, case):
    path = tmp_path / "data.h5mu"
    shutil.copy(files / "data.h5mu", path)
    H5MU[case](path)
    if case in MAY_BE_READ:
        try:
            with bounded():
                read_and_set_up(path)
        except Exception as error:  # noqa: BLE001  any kind may come; `is_named` judges it
            assert is_named(error), repr(error)
        return
    before = path.read_bytes() if path.is_file() else None
    assert_named(lambda: read_and_set_up(path))
    assert before is None or path.read_bytes() == before


@needs_fork
@pytest.mark.parametrize("n_files", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_flipped_bits_end_in_a_named_error_or_a_changed_value(files, tmp_path, n_files):
    """HDF5 has no checksums: a flipped bit may be noticed or change a count, but must not end in a crash."""
    good = (files / "data.h5mu").read_bytes()
    rng = np.random.default_rng(0)

    def work():
        for i in range(n_files):
            data = bytearray(good)
            for _ in range(3):  # the structure of the file is mostly at its front
                data[int(len(data) * rng.random() ** 3)] ^= 1 << int(rng.integers(8))
            path = tmp_path / f"{i}.h5mu"
            path.write_bytes(data)
            try:
                with bounded(more_bytes=4 << 30):
                    read_and_set_up(path)
            except Exception as error:
                if not is_named(error):
                    (tmp_path / "wrong").write_text(f"{i}: {error!r}")
                    raise

    status = in_child(work)
    assert status == 0, (tmp_path / "wrong").read_text() if (tmp_path / "wrong").exists() else f"crashed: {status}"


# -- exports -------------------------------


def described(change):
    """Change what ``model.json`` says."""

    def work(folder):
        path = folder / "model.json"
        value = json.loads(path.read_text())
        value = change(value) or value
        path.write_text(json.dumps(value))

    return work


def entry(*way, to):
    def change(value):
        for key in way[:-1]:
            value = value[key]
        value[way[-1]] = to

    return described(change)


def sealed(folder):
    """State the digest of the weights as they are now, as a forger would."""
    name = "weights.safetensors"
    entry("weights_sha256", to=hashlib.sha256((folder / name).read_bytes()).hexdigest())(folder)


def tensors(change):
    """Change header and body of the weights, and state the digest that fits them."""

    def work(folder):
        path = folder / "weights.safetensors"
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        header, body = change(header, body)
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        sealed(folder)

    return work


def header(change):
    def work(values, body):
        change(values)
        return values, body

    return tensors(work)


def first(values):
    return next(k for k in values if k.startswith("encoders"))


def weights(change):
    def work(folder):
        path = folder / "weights.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return work


def other_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "weights.safetensors"
    values = load_file(path)
    name = "encoders.rna.embedding.weight"
    values[name] = torch.cat([values[name]] * 2)
    save_file(values, path)
    sealed(folder)


def nan_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "weights.safetensors"
    values = load_file(path)
    values["encoders.rna.embedding.weight"][0, 0] = torch.nan
    save_file(values, path)
    sealed(folder)


def pickled(folder):
    torch.save({"a": torch.ones(3)}, folder / "weights.safetensors")
    sealed(folder)


def piped(name):
    def work(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return work


EXPORT = {
    "nothing": lambda folder: shutil.rmtree(folder),
    "an empty folder": lambda folder: [p.unlink() for p in folder.iterdir()],
    "no description": lambda folder: (folder / "model.json").unlink(),
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "description empty": lambda folder: (folder / "model.json").write_bytes(b""),
    "description cut off": lambda folder: (folder / "model.json").write_bytes((folder / "model.json").read_bytes()[:-50]),
    "description no text": lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe\x00"),
    "description a list": lambda folder: (folder / "model.json").write_text("[]"),
    "description nested without end": lambda folder: (folder / "model.json").write_text("[" * 200_000),
    "description a number without end": lambda folder: (folder / "model.json").write_text("1" * 100_000),
    "description a pipe": piped("model.json"),
    "weights a pipe": piped("weights.safetensors"),
    "weights a folder": lambda folder: ((folder / "weights.safetensors").unlink(), (folder / "weights.safetensors").mkdir()),
    "a version as text": entry("format_version", to="1"),
    "an earlier version": entry("format_version", to=0),
    "weights elsewhere, from the root": entry("weights_file", to="/etc/passwd"),
    "weights elsewhere, backslashes": entry("weights_file", to="..\\weights.safetensors"),
    "weights elsewhere, a url": entry("weights_file", to="http://127.0.0.1/weights.safetensors"),
    "weights of a zero byte": entry("weights_file", to="weights\0.safetensors"),
    "weights of a very long name": entry("weights_file", to="w" * 100_000),
    "weights of a pickle's name": entry("weights_file", to="model.pt"),
    "weights of no name": entry("weights_file", to=None),
    "a digest that is none": entry("weights_sha256", to="yes"),
    "a digest of others": entry("weights_sha256", to="0" * 64),
    "weights empty": weights(lambda b: b""),
    "weights with one bit flipped": weights(lambda b: b[:900] + bytes([b[900] ^ 1]) + b[901:]),
    "weights a pickle": pickled,
    "weights of another network": other_weights,
    "weights that are NaN": nan_weights,
    "header longer than the file": lambda folder: (weights(lambda b: struct.pack("<Q", 2**60) + b[8:])(folder), sealed(folder)),
    "header that is no JSON": tensors(lambda h, b: (b"{" * 100, b)),
    "header that nests without end": tensors(lambda h, b: (b"[" * 100_000, b)),
    "a tensor of terabytes": header(lambda h: h[first(h)].update(shape=[2**20, 2**22])),
    "a tensor that overflows": header(lambda h: h[first(h)].update(shape=[2**63, 2**63])),
    "a tensor of a negative shape": header(lambda h: h[first(h)].update(shape=[-1, 4])),
    "a tensor past the end": header(lambda h: h[first(h)].update(data_offsets=[0, 2**40])),
    "two tensors in one place": header(lambda h: h[first(h)].update(data_offsets=h["temperature.log"]["data_offsets"])),
    "a tensor of another type": header(lambda h: h[first(h)].update(dtype="I32")),
    "a tensor of a type nobody knows": header(lambda h: h[first(h)].update(dtype="Q7")),
    "a tensor that is missing": header(lambda h: h.pop("temperature.log")),
    "a tensor of another name": header(lambda h: h.update({"../temperature": h.pop("temperature.log")})),
    "no configuration": described(lambda v: v.pop("config") and None),
    "configuration as text": entry("config", to="small"),
    "configuration of another network": entry("config", "d_mlp", to=16),
    "an option nobody knows": entry("config", "run", to="rm -rf"),
    "a width of billions": entry("config", "d_model", to=2**30),
    "a width beyond integers": entry("config", "d_model", to=10**30),
    "a width as text": entry("config", "d_model", to="8"),
    "layers of billions": entry("config", "n_layers", to=2**30),
    "layers of sixty thousand": entry("config", "n_layers", to=60_000),
    "layers negative": entry("config", "n_layers", to=-1),
    "layers per kind nested": entry("config", "n_layers", to={"rna": {"rna": 1}}),
    "a number that is not one": entry("config", "dropout", to=float("nan")),
    "a back-end nobody knows": entry("config", "ssd_backend", to="os.system"),
    "a preset that is no text": entry("preset", to=["small"]),
    "an option that is missing its type": entry("config", "attention_layers", to=[[0]]),
    "coordinates beyond integers": entry("places", "rna", to={"chroms": ["1"], "chrom": [0] * 30, "start": [10**30] * 30, "end": [1] * 30}),
    "coordinates of no chromosome": entry("places", "rna", to={"chroms": [], "chrom": [0] * 30, "start": [1] * 30, "end": [1] * 30}),
    "a classifier of another embedding": described(lambda v: [h["weight"].pop() for h in v["classifier"]["by_modalities"].values()] and None),
    "versions that are missing": entry("versions", to={}),
    "setup arguments that are more": entry("setup_args", "source_registry", to={}),
    "a kind nobody knows": entry("setup_args", "modalities", to={"rna": "rna", "dna": "atac"}),
    "one modality": entry("setup_args", "modalities", to={"rna": "rna"}),
    "modalities of one key": entry("setup_args", "modalities", to={"rna": "rna", "atac": "rna"}),
    "a layer of no modality": entry("setup_args", "layers", to={"protein": "x"}),
    "features of other kinds": entry("features", to={"rna": ["a"]}),
    "a feature twice": described(lambda v: v["features"]["rna"].__setitem__(1, v["features"]["rna"][0])),
    "a feature that is a number": described(lambda v: v["features"]["rna"].__setitem__(1, 7)),
    "a feature fewer": described(lambda v: v["features"]["rna"].pop() and None),
    "a slot out of range": described(lambda v: v["layouts"]["rna"]["slots"].__setitem__(0, 10**9)),
    "a slot twice": described(lambda v: v["layouts"]["rna"]["slots"].__setitem__(0, v["layouts"]["rna"]["slots"][1])),
    "a slot beyond integers": described(lambda v: v["layouts"]["rna"]["slots"].__setitem__(0, 10**30)),
    "patches of a billion": entry("layouts", "rna", "patch_size", to=10**9),
    "a layout as a list": entry("layouts", to=[]),
    "batches as a number": entry("categories", "batch", to=3),
    "batches of billions": entry("categories", "batch", to=["a"] * 100_000),
    "versions as a list": entry("versions", to=[]),
    "temperatures that are NaN": entry("match_temperatures", to={"rna|atac": float("nan")}),
    "a classifier of something else": entry("classifier", to={"by_modalities": 3}),
    "a classifier of other sizes": described(lambda v: next(iter(v["classifier"]["by_modalities"].values()))["bias"].append(1.0)),
    "a classifier that is NaN": described(lambda v: next(iter(v["classifier"]["by_modalities"].values()))["bias"].__setitem__(0, float("nan"))),
    "a classifier of a label that is a list": described(lambda v: next(iter(v["classifier"]["by_modalities"].values()))["classes"].__setitem__(0, ["a"])),
}  # fmt: skip


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()} if folder.exists() else {}


@pytest.mark.parametrize("case", EXPORT)
def test_a_damaged_export_is_named_and_stays_as_it_is(files, tmp_path, case):
    folder = tmp_path / "m"
    shutil.copytree(files / "export", folder)
    EXPORT[case](folder)
    before = contents(folder)
    assert_named(lambda: SCMAMBA.from_export(folder))
    assert contents(folder) == before


def test_the_undamaged_export_is_read(files):
    assert SCMAMBA.from_export(files / "export").is_trained
    assert SCMAMBA.from_export(files / "export", read(files / "data.h5mu")).is_trained


def test_paths_without_an_export_are_named():
    for path in ("", "\0", "nowhere", "/dev/null", "a" * 5000):
        assert_named(lambda path=path: SCMAMBA.from_export(path))
    assert_named(lambda: SCMAMBA.from_export(3))


# -- saved models -------------------------------


SAVED = {
    "nothing": lambda folder: shutil.rmtree(folder),
    "an empty folder": lambda folder: [p.unlink() for p in folder.iterdir()],
    "empty": lambda folder: (folder / "model.pt").write_bytes(b""),
    "text": lambda folder: (folder / "model.pt").write_text("weights"),
    "an empty zip": lambda folder: zipfile.ZipFile(folder / "model.pt", "w").close(),
    "cut in half": lambda folder: cut(0.5)(folder / "model.pt"),
    "of something else": lambda folder: torch.save({"a": 1}, folder / "model.pt"),
    "of another network": lambda folder: other_state(folder / "model.pt"),
    "a folder": lambda folder: ((folder / "model.pt").unlink(), (folder / "model.pt").mkdir()),
}


def other_state(path):
    value = torch.load(path, weights_only=False)
    value["model_state_dict"]["encoders.rna.embedding.weight"] = torch.zeros(3, 3)
    torch.save(value, path)


@pytest.mark.parametrize("case", SAVED)
def test_a_damaged_saved_model_is_named_and_stays_as_it_is(files, tmp_path, case):
    folder = tmp_path / "m"
    shutil.copytree(files / "saved", folder)
    SAVED[case](folder)
    before = contents(folder)
    assert_named(lambda: SCMAMBA.load(folder, adata=False))
    assert contents(folder) == before


def test_data_that_do_not_fit_a_saved_model_are_named(files):
    for data in (3, "file.h5mu", read(files / "data.h5mu")["rna"]):
        assert_named(lambda data=data: SCMAMBA.load(files / "saved", adata=data))
