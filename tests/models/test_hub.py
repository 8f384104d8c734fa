"""The hub is a small server on loopback: HEAD and GET of /org/name/resolve/REVISION/FILE, as the hub answers them."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models.reference import resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1000,
}  # fmt: skip
FILES = {
    "/acme/plain/resolve/main/config.json": TOY,
    f"/acme/plain/resolve/{COMMIT}/config.json": TOY,
    "/acme/quantised/resolve/main/config.json": TOY,
    f"/acme/quantised/resolve/{COMMIT}/config.json": TOY,
    "/acme/quantised/resolve/main/hf_quant_config.json": {"quantization": {"quant_algo": "FP8"}},
    f"/acme/quantised/resolve/{COMMIT}/hf_quant_config.json": {"quantization": {"quant_algo": "FP8"}},
}


class Hub(BaseHTTPRequestHandler):
    def answer(self, with_body):
        self.server.seen.append(self.path)
        _, _, repository, *_ = self.path.split("/")
        body = json.dumps(FILES[self.path]).encode() if self.path in FILES else b""
        status, error = 200, None
        if repository == "gated":
            status, error = 401, "GatedRepo"
        elif repository == "broken":
            status = 500
        elif repository not in ("plain", "quantised", "empty"):
            status, error = 404, "RepoNotFound"
        elif "/resolve/nope/" in self.path:
            status, error = 404, "RevisionNotFound"
        elif not body:
            status, error = 404, "EntryNotFound"
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()


def test_config_is_fetched_and_nothing_else(hub, tmp_path):
    source = resolve_model("acme/plain")
    assert source.config == TOY
    assert (source.origin, source.hub_id, source.quant_side) == ("hub id acme/plain", "acme/plain", None)
    assert {path.rpartition("/")[2] for path in hub.seen if "/resolve/" in path} == {
        "config.json",
        "hf_quant_config.json",
    }
    assert (tmp_path / "hf" / "hub").is_dir()


def test_side_file_comes_along(hub):
    assert resolve_model("acme/quantised").quant_side == {"quantization": {"quant_algo": "FP8"}}


def test_offline_uses_the_cache_and_says_so_where_it_has_nothing(hub, monkeypatch):
    resolve_model("acme/quantised")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.seen)
    assert resolve_model("acme/quantised").quant_side == {"quantization": {"quant_algo": "FP8"}}
    with pytest.raises(ModelError, match=r"acme/plain: HF_HUB_OFFLINE is set and the local hub cache"):
        resolve_model("acme/plain")
    assert len(hub.seen) == asked


@pytest.mark.parametrize(
    "ref, kind, message",
    [
        ("acme/absent", UnknownNameError, "unknown hub repository 'acme/absent'.*HF_TOKEN"),
        ("acme/gated", ModelError, "gated model; accept its licence on the hub and set HF_TOKEN"),
        ("acme/broken", ModelError, "the hub at http://127.0.0.1:[0-9]+ answered 500"),
        ("acme/empty", ModelError, "no config.json"),
    ],
)
def test_refusals_are_one_line(hub, ref, kind, message):
    with pytest.raises(kind, match=message) as refused:
        resolve_model(ref)
    assert "\n" not in str(refused.value)


def test_unknown_revision(hub):
    with pytest.raises(InputError, match=r"there is no revision 'nope'"):
        resolve_model("acme/plain", revision="nope")


def test_unreachable_hub(hub, monkeypatch):
    resolve_model("acme/plain")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the hub at http://127.0.0.1:9 cannot be reached"):
        resolve_model("acme/quantised")
    assert resolve_model("acme/plain").config == TOY


def test_an_unknown_side_file_is_said_so(hub, monkeypatch, tmp_path):
    resolve_model("acme/plain")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model("acme/plain").notes == ()
    for marker in (tmp_path / "hf" / "hub").glob("**/.no_exist/*/*"):
        marker.unlink()
    assert "hf_quant_config.json is not known" in resolve_model("acme/plain").notes[0]
