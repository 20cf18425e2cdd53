"""The hub holds the two files of an export, and a page about the model."""

import base64
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def models():
    """Two models of the same data with different weights."""
    mdata = mudata_of({"rna": poisson(40, 30), "atac": poisson(40, 20)})
    SCMAMBA.setup_mudata(mdata)
    both = [SCMAMBA(mdata, **TINY), SCMAMBA(mdata, **TINY)]
    both[0].train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return both


def weights(model):
    return torch.cat([t.double().ravel() for t in model.module.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


def test_without_the_client_the_error_says_what_to_install(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ScmambaError, match=r"pip install 'scmamba-scvi\[hub\]'"):
        SCMAMBA.from_hub("somebody/model")
    with pytest.raises(ScmambaError, match=r"pip install 'scmamba-scvi\[hub\]'"):
        models[0].push_to_hub("somebody/model")


def make_cache(folder, repo_id, export):
    """Make the client's cache as a download of ``export`` leaves it: blobs, and links to them."""
    place = folder / f"models--{repo_id.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "blobs").mkdir()
    (place / "snapshots" / commit).mkdir(parents=True)
    for file in Path(export).iterdir():
        shutil.copy(file, place / "blobs" / file.name)
        (place / "snapshots" / commit / file.name).symlink_to(place / "blobs" / file.name)


def test_from_hub_reads_the_client_s_cache(models, tmp_path):
    pytest.importorskip("huggingface_hub")
    models[0].export(tmp_path / "m")
    make_cache(tmp_path / "cache", "somebody/model", tmp_path / "m")
    found = SCMAMBA.from_hub("somebody/model", cache_dir=tmp_path / "cache", local_files_only=True)
    assert same(found, models[0])
    with pytest.raises(ScmambaError, match="somebody/other"):
        SCMAMBA.from_hub("somebody/other", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(ScmambaError, match="cannot be reached or used"):
        SCMAMBA.from_hub("../../etc", cache_dir=tmp_path / "cache", local_files_only=True)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as one commit needs; files land in ``folder``."""

    folder: Path

    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        old = {"type": "file", "path": "weights-0000000000000000.safetensors", "size": 1, "oid": "0" * 40}
        if "/tree/" in self.path:
            self.answer([old])
        else:
            self.answer({"id": "somebody/model", "sha": "0" * 40, "siblings": [{"rfilename": old["path"]}], "tags": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    (self.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
                if line["key"] == "deletedFile":
                    (self.folder / "deleted").write_text(value["path"])
            self.answer(
                {
                    # the hub's real address: older clients read the name of the repository from it
                    "commitUrl": f"https://huggingface.co/somebody/model/commit/{'1' * 40}",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )
        else:
            name = "somebody/model"
            self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})


def test_push_to_hub_sends_an_export(models, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    handler = type("Folder", (Hub,), {"folder": tmp_path})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    original = hub.HfApi
    monkeypatch.setattr(hub, "HfApi", lambda token=None: original(endpoint=address, token=token))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    try:
        url = models[1].push_to_hub("somebody/model", token="hf_nobody", commit_message="first")
    finally:
        server.shutdown()
        server.server_close()
    assert url.endswith("/commit/" + "1" * 40)
    assert same(SCMAMBA.from_export(tmp_path), models[1])
    assert "library_name: scmamba-scvi" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "deleted").read_text() == "weights-0000000000000000.safetensors"


def test_an_address_that_does_not_answer_is_named(models, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    original = hub.HfApi
    monkeypatch.setattr(hub, "HfApi", lambda token=None: original(endpoint="http://127.0.0.1:9", token=token))
    with pytest.raises(ScmambaError, match="cannot be reached or used"):
        models[0].push_to_hub("somebody/model", token="hf_nobody")
