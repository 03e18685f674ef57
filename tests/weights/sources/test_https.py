"""Files that are not on the Hub, from a loopback server: Keras' published checkpoints, and what can go wrong."""

import base64
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
from huggingface_hub import constants

import flaim
import flaim_core as core
from flaim.adapters import linen
from flaim.pretrained import model_of
from flaim.weights import CheckpointError, HubError, load, resolve, save_pretrained
from flaim.weights.catalogue import _tables
from flaim.weights.converters import keras as converter
from flaim.weights.converters.keras._files import roles_of
from flaim.weights.sources import https


@dataclass
class Server:
    """What a loopback server has, by path, and how it fails: "cut", or a header to send."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self):
        self.state.requests.append(self.path)
        content = self.state.files.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        for header in self.state.headers.items():
            self.send_header(*header)
        self.end_headers()
        return self.wfile.write(content[: len(content) // 2] if self.state.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server that stands in for all others, and an empty cache."""
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLAIM_MIRROR", f"http://127.0.0.1:{http.server_address[1]}/")
    yield state
    http.shutdown()
    http.server_close()


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


URL, CONTENT = "https://example.org/folder/weights.h5", b"0123456789" * 1000
DIGESTS = [f"{name}:{hashlib.new(name, CONTENT).hexdigest()}" for name in ("md5", "sha256")]


@pytest.mark.parametrize("digest", [*DIGESTS, None])
def test_a_file_is_downloaded_once(server, tmp_path, digest):
    server.files["/folder/weights.h5"] = CONTENT
    path = https.fetch(URL, digest)
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path / "cache")
    assert https.fetch(URL, digest) == path
    assert server.requests == ["/folder/weights.h5"]
    assert cached(tmp_path) == ["weights.h5"]


@pytest.mark.parametrize("digest", [*(digest.replace(":", ":0") for digest in DIGESTS), None])
def test_a_file_of_another_hash_is_refused(server, tmp_path, digest):
    server.files["/folder/weights.h5"] = CONTENT
    md5 = base64.b64encode(hashlib.md5(b"another").digest()).decode()
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"}  # what Google's servers send
    with pytest.raises(
        CheckpointError, match=r"folder/weights\.h5 is not the file .* its (md5|sha256) is \w+, expected"
    ):
        https.fetch(URL, digest)
    assert cached(tmp_path) == []


def test_what_breaks_off_leaves_nothing(server, tmp_path):
    server.files["/folder/weights.h5"] = CONTENT
    server.cut = True
    with pytest.raises(HubError, match=r"weights\.h5 broke off after 5000 of 10000 bytes; try again"):
        https.fetch(URL, DIGESTS[0])
    assert cached(tmp_path) == []
    server.cut = False
    assert https.fetch(URL, DIGESTS[0]).read_bytes() == CONTENT


def test_no_file_no_server_no_permission(server, tmp_path, monkeypatch):
    with pytest.raises(HubError, match=r"folder/weights\.h5 answered with status 404"):
        https.fetch(URL)
    monkeypatch.setenv("FLAIM_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(HubError, match=r"downloading .*weights\.h5 failed: .*refused.* Check the network"):
        https.fetch(URL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        https.fetch(URL)
    assert cached(tmp_path) == []


def published(name: str, folder: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file as Keras publishes one of the model called `name` in the tables, and its weights by layer and role."""
    table = next(table for table in converter.TABLES if name in table.models)
    config = resolve(f"{table.models[name].architecture}.keras_in1k")
    leaves, rng, weights = core.flatten(model_of(config).spec()), np.random.default_rng(0), {}
    with h5py.File(folder / "published.h5", "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in table.layers(name)]
        for layer, path in table.layers(name).items():
            kind = table.kind(layer)
            for role, place in converter._places(table, path, kind, roles_of(kind)).items():
                if place in leaves:
                    shape = leaves[place].shape
                    if role == "depthwise_kernel":
                        shape = (*shape[:2], shape[3], 1)
                    weights[f"{layer}/{role}"] = value = rng.random(shape, np.float32)
                    file[f"{layer}/{layer}/{role}:0"] = value
    return (folder / "published.h5").read_bytes(), weights


def test_a_published_checkpoint_by_its_name(server, tmp_path):
    """Keras has no hash for this one, so that any file will do."""
    content, weights = published("mobilenet_0.25", tmp_path)
    server.files[urlsplit(resolve("tf_mobilenetv1_025.keras_in1k").location.url).path] = content
    _, variables, norm_stats = flaim.get_model("tf_mobilenetv1_025.keras_in1k", pretrained=True)
    leaves = core.flatten(linen.to_variables(variables))
    assert np.array_equal(leaves["params/conv_stem/kernel"], weights["conv1/kernel"])
    assert np.array_equal(leaves["params/classifier/kernel"], weights["conv_preds/kernel"].reshape(256, 1000))
    depthwise = weights["conv_dw_1/depthwise_kernel"]
    assert np.array_equal(leaves["params/blocks/0/0/conv_dw/kernel"], depthwise.transpose(0, 1, 3, 2))
    assert norm_stats == {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_a_published_checkpoint_that_sees_blue_first(server, tmp_path, monkeypatch):
    row = resolve("resnet50.keras_in1k")
    content, weights = published("resnet50", tmp_path)
    server.files[urlsplit(row.location.url).path] = content
    path = re.escape(urlsplit(row.location.url).path)
    with pytest.raises(CheckpointError, match=rf"{path} .*expected {row.location.digest[4:]}"):
        load("resnet50.keras_in1k")
    # As if this were the file that Keras has published.
    own = row.replace(digest=f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setitem(_tables.table("keras"), "resnet50", [own])
    _, variables, norm_stats = flaim.get_model("resnet50.keras_in1k", pretrained=True)
    leaves = core.flatten(linen.to_variables(variables))
    assert np.array_equal(leaves["params/conv1/kernel"], weights["conv1_conv/kernel"][:, :, ::-1])
    assert np.array_equal(leaves["params/layer4/0/downsample/0/bias"], weights["conv5_block1_0_conv/bias"])
    assert norm_stats == resolve("vgg16.keras_in1k").norm_stats
    assert norm_stats["mean"] == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255))


@pytest.mark.parametrize("scheme, path", [("https://example.org/", "/"), ("gs://bucket/", "/bucket/")])
def test_the_address_of_a_file(server, scheme, path, tmp_path):
    expected, config = load(Path(flaim.__file__).parent / "checkpoints/digits")
    save_pretrained(tmp_path / "own", model_of(config), expected)
    server.files[f"{path}runs/digits.safetensors"] = (tmp_path / "own/model.safetensors").read_bytes()
    variables, config = load(f"{scheme}runs/digits.safetensors")
    same = load(tmp_path / "own")[1]
    assert server.requests == [f"{path}runs/digits.safetensors"]
    assert config.replace(url=None) == same.replace(path=None)
    assert all(np.array_equal(a, b) for a, b in zip(core.flatten(variables).values(), core.flatten(expected).values()))
    with pytest.raises(HubError, match="404"):
        load(f"{scheme}runs/nothing.npz")
