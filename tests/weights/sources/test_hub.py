"""The hub path, through the real `huggingface_hub` client against a server on loopback."""

import json
import os
import subprocess
import sys
import types

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils._http
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import flaim_core as core
from flaim.weights import CheckpointError, FileMissingError, HubError, get_model, load, rows
from flaim.weights.sources.hub import fetch
from tests import hub_server, oracle, parity
from tests.oracle import timm

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no waiting between the client's retries."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    clock = types.SimpleNamespace(sleep=lambda seconds: None, time=lambda: 0.0)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", clock, raising=False)
    monkeypatch.setattr(huggingface_hub.file_download, "time", clock, raising=False)
    return cache


def point_client_at(url: str, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture
def hub(cache, tmp_path, monkeypatch):
    """A hub with one repository, `org/model`, that holds `weights.bin`."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(CONTENT)
    with hub_server.serve() as hub:
        point_client_at(hub.url, monkeypatch)
        hub.add("org/model", folder)
        yield hub


def incomplete_files(cache) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.name.endswith(".incomplete")]


def test_success_and_cache(hub, cache):
    path = fetch("org/model", "weights.bin")
    assert path.read_bytes() == CONTENT
    assert cache in path.parents
    assert fetch("org/model", "weights.bin") == path
    assert hub.count("GET", "weights.bin") == 1


def test_served_from_the_cache_when_the_server_is_down(hub, monkeypatch):
    path = fetch("org/model", "weights.bin")
    hub.fail("HEAD", "weights.bin", 500)
    assert fetch("org/model", "weights.bin") == path
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch("org/model", "weights.bin") == path


def test_revision_pinning(hub, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"old")
    hub.add("org/model", folder, "v1")
    assert fetch("org/model@v1", "weights.bin").read_bytes() == b"old"
    assert fetch("org/model", "weights.bin").read_bytes() == CONTENT
    assert fetch(f"org/model@{hub_server.commit('v1')}", "weights.bin").read_bytes() == b"old"
    with pytest.raises(HubError, match="org/model has no branch, tag or commit 'v2'"):
        fetch("org/model@v2", "weights.bin")


def test_missing_repository(hub):
    with pytest.raises(HubError, match="no repository 'org/modle' on the Hub; if it is private, log in"):
        fetch("org/modle", "weights.bin")


def test_malformed_repository_name(hub):
    with pytest.raises(HubError, match="'a/b/c' is no repository name"):
        fetch("a/b/c", "weights.bin")


def test_missing_file(hub):
    with pytest.raises(FileMissingError, match=r"org/model has no file 'model\.safetensors'"):
        fetch("org/model", "model.safetensors")


def test_gated(hub):
    hub.fail("HEAD", "weights.bin", "gated")
    with pytest.raises(HubError, match="org/model is gated: accept its conditions"):
        fetch("org/model", "weights.bin")


def test_server_error(hub, cache):
    hub.fail("HEAD", "weights.bin", 500)
    with pytest.raises(HubError, match=r"not in the cache, and http.* answered with status 500"):
        fetch("org/model", "weights.bin")
    hub.faults.clear()
    hub.fail("GET", "weights.bin", 503)
    with pytest.raises(HubError, match=r"downloading weights\.bin of org/model failed: .*503"):
        fetch("org/model", "weights.bin")
    assert not incomplete_files(cache)
    hub.faults.clear()
    assert fetch("org/model", "weights.bin").read_bytes() == CONTENT


def test_cut_connection_is_resumed(hub):
    hub.fail("GET", "weights.bin", "cut", times=1)
    assert fetch("org/model", "weights.bin").read_bytes() == CONTENT
    assert hub.count("GET", "weights.bin") == 2


def test_cut_connection_leaves_the_cache_usable(hub, cache):
    hub.fail("GET", "weights.bin", "cut")
    with pytest.raises(HubError, match=r"downloading weights\.bin of org/model failed: .*try again"):
        fetch("org/model", "weights.bin")
    assert not incomplete_files(cache)
    hub.faults.clear()
    assert fetch("org/model", "weights.bin").read_bytes() == CONTENT


def test_offline_with_an_empty_cache(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        fetch("org/model", "weights.bin")
    assert not hub.count("HEAD", "weights.bin")


def test_no_network_with_an_empty_cache(cache, monkeypatch):
    with hub_server.serve() as hub:
        url = hub.url
    point_client_at(url, monkeypatch)  # nobody listens there any more
    with pytest.raises(HubError, match=f"not in the cache, and {url} cannot be reached .*: check the network"):
        fetch("org/model", "weights.bin")


def test_environment_variables(hub, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_TOKEN reach the client."""
    code = "from flaim.weights.sources.hub import fetch; print(fetch('org/model', 'weights.bin'))"
    home = tmp_path / "home"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "hf_secret"}
    environment.pop("HF_HUB_CACHE", None)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(home))
    assert "hf_secret" in hub.tokens


# Whole checkpoints


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model of timm's, and the repository that timm makes of it."""
    folder = tmp_path_factory.mktemp("repository")
    reference = oracle.create("test_resnet")
    timm.models.save_for_hf(reference, folder, safe_serialization=True)
    return reference, folder


def assert_is(reference, model, variables):
    expected = core.flatten(parity.variables_from(model.spec(), oracle.state(reference)))
    found = core.flatten(variables)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], value) for path, value in expected.items())


def test_model_from_a_repository(hub, repository):
    reference, folder = repository
    hub.add("someone/their-resnet", folder)
    hub.add("someone/their-resnet", folder, "v2")
    for name in ("hf-hub:someone/their-resnet", "hf-hub:someone/their-resnet@v2"):
        model, variables, norm_stats = get_model(name)
        assert_is(reference, model, variables)
        assert norm_stats == {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert load("hf-hub:someone/their-resnet@v2").config.location.repo == "someone/their-resnet@v2"
    model, variables, _ = get_model("test_resnet", pretrained="hf-hub:someone/their-resnet")
    assert_is(reference, model, variables)
    model, _, norm_stats = get_model("hf-hub:someone/their-resnet", pretrained=False)
    assert (model.name, norm_stats) == ("test_resnet", {})


def test_model_from_the_catalogue(hub, repository):
    """A name of the catalogue needs the weights alone: what else there is to know is in its row."""
    reference, folder = repository
    hub.add("timm/test_resnet.r160_in1k", folder)
    for name, pretrained in (("test_resnet.r160_in1k", True), ("test_resnet", True), ("test_resnet", "r160_in1k")):
        model, variables, norm_stats = get_model(name, pretrained)
        assert_is(reference, model, variables)
        assert model.input_size == (160, 160)
        assert norm_stats == next(row for row in rows() if row.model == "test_resnet").norm_stats
    assert hub.count("GET", "model.safetensors") == 1
    assert not hub.count("HEAD", "config.json")


def test_repository_with_other_weights(hub, repository, tmp_path, monkeypatch):
    reference, folder = repository
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(reference.state_dict(), tmp_path / "pickles" / "pytorch_model.bin")
    hub.add("someone/pickles", tmp_path / "pickles")
    model, variables, _ = get_model("hf:someone/pickles")
    assert_is(reference, model, variables)
    model, variables, _ = get_model("test_resnet", pretrained="hf:someone/pickles@main/pytorch_model.bin")
    assert_is(reference, model, variables)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert_is(reference, *get_model("hf:someone/pickles")[:2])


def test_repository_in_several_files(hub, repository, tmp_path):
    reference, folder = repository
    tensors = load_file(folder / "model.safetensors")
    names = list(tensors)
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded" / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for shard in sorted(set(weight_map.values())):
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, tmp_path / "sharded" / shard)
    hub.add("someone/sharded", tmp_path / "sharded")
    assert_is(reference, *get_model("hf:someone/sharded")[:2])
    weight_map[names[0]] = "../../../secret"
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hub.add("someone/hostile", tmp_path / "sharded")
    with pytest.raises(CheckpointError, match=r"refers to files that are not in its folder: '\.\./\.\./\.\./secret'"):
        get_model("hf:someone/hostile")
    assert not any("secret" in path for _, path in hub.requests)


def test_repository_without_weights(hub):
    with pytest.raises(FileMissingError, match=r"org/model has none of model\.safetensors, .*names another file of it"):
        get_model("hf-hub:org/model")


def test_corrupt_file_in_a_repository(hub, repository, tmp_path):
    _, folder = repository
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "corrupt" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    hub.add("someone/corrupt", tmp_path / "corrupt")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not an intact safetensors file"):
        get_model("hf-hub:someone/corrupt")


def test_interrupted_model_download(hub, repository):
    reference, folder = repository
    hub.add("someone/their-resnet", folder)
    hub.fail("GET", "model.safetensors", "cut")
    with pytest.raises(HubError, match=r"downloading model\.safetensors of someone/their-resnet failed"):
        get_model("hf-hub:someone/their-resnet")
    hub.faults.clear()
    model, variables, _ = get_model("hf-hub:someone/their-resnet")
    assert_is(reference, model, variables)
