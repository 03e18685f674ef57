"""flaim's own format: whole whatever happens, streamed, sharded, on the Hub, in Orbax."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from safetensors.numpy import load_file

import flaim_core as core
from flaim import models
from flaim.models import families
from flaim.options import options_from, to_json
from flaim.weights import CheckpointError, load, save_pretrained
from flaim.weights.saving import writer
from tests.weights.saving.letters import PREPROCESSING, holds

# What is in the files


def test_files(old, tmp_path):
    model, variables = old
    labels, note = ["a", "b", "c"], "a test"
    save_pretrained(tmp_path, model, variables, preprocessing=PREPROCESSING, labels=labels, license="mit", note=note)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    data = json.loads((tmp_path / "config.json").read_text())
    assert data["model"] == "test_resnet" and data["overrides"] == {"widths": [16, 24, 24, 32]}
    assert (data["format"], data["format_version"], data["n_classes"]) == ("flaim", 1, 3)
    assert data["flaim_version"] and data["labels"] == labels and data["license"] == "mit"
    tensors = load_file(tmp_path / "model.safetensors")  # safetensors' own reader
    flat = core.flatten(variables)
    assert tensors.keys() == flat.keys()
    for path, value in flat.items():
        assert tensors[path].dtype == value.dtype and np.array_equal(tensors[path], value), path
    config = load(tmp_path).config
    assert config.preprocessing.test_input_size == (64, 64) and config.preprocessing.crop_pct == 0.9
    save_pretrained(tmp_path / "again", model, variables, preprocessing=config.preprocessing)
    assert load(tmp_path / "again").config.preprocessing.mean == config.preprocessing.mean


def test_a_lone_file_knows_its_model(old, tmp_path):
    model, variables = old
    save_pretrained(tmp_path, model, variables, labels=["a", "b", "c"])
    alone = tmp_path / "elsewhere" / "weights.safetensors"
    alone.parent.mkdir()
    shutil.copy(tmp_path / "model.safetensors", alone)
    assert holds(alone, model, variables)
    assert load(alone).config.labels == ("a", "b", "c")


def test_an_edited_configuration_counts(old, tmp_path):
    model, variables = old
    save_pretrained(tmp_path, model, variables, labels=["a", "b", "c"])
    data = json.loads((tmp_path / "config.json").read_text())
    data["labels"] = ["x", "y", "z"]
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert load(tmp_path).config.labels == ("x", "y", "z")


def test_a_configuration_cannot_point_elsewhere(old, tmp_path):
    model, variables = old
    save_pretrained(tmp_path, model, variables)
    data = json.loads((tmp_path / "config.json").read_text())
    data["preprocessing"]["path"] = "/elsewhere"
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="has preprocessing that flaim does not know: path"):
        load(tmp_path)


def test_models_that_a_configuration_cannot_name(old, tmp_path):
    model, variables = old
    with pytest.raises(CheckpointError, match="a configuration cannot say what it is: there is no architecture"):
        save_pretrained(tmp_path / "x", model.replace(name="mine"), variables)
    integers = jax.tree.map(lambda leaf: leaf.astype(jnp.int8), variables)
    with pytest.raises(CheckpointError, match="safetensors files have no int8"):
        save_pretrained(tmp_path / "x", model, integers)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("family", families())
def test_a_configuration_can_name_every_option_of_every_architecture(family):
    for architecture, config in models.family(family).variants.items():
        said = {name: to_json(value, family) for name, value in config.items()}
        read = options_from(json.loads(json.dumps(said)), family)
        assert {name: to_json(value, family) for name, value in read.items()} == said, architecture


# Shards


@pytest.mark.parametrize("size", [100_000, 1])
def test_shards(old, tmp_path, size):
    model, variables = old
    save_pretrained(tmp_path, model, variables, max_shard_size=size)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    leaves = core.flatten(variables)
    assert index["weight_map"].keys() == leaves.keys()
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in leaves.values())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    assert len(shards) == len(leaves) if size == 1 else len(shards) > 2
    for shard in shards:
        tensors = load_file(tmp_path / shard)
        assert all(index["weight_map"][name] == shard for name in tensors)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= size
    assert holds(tmp_path, model, variables)


@pytest.mark.parametrize("before", [None, 100_000])
@pytest.mark.parametrize("after", [None, 200_000])
def test_one_checkpoint_takes_the_place_of_another(old, new, tmp_path, before, after):
    (tmp_path / "notes.txt").touch()
    for (model, variables), size in ((old, before), (new, after), (old, before)):
        save_pretrained(tmp_path, model, variables, max_shard_size=size or writer.MAX_SHARD_SIZE)
        assert holds(tmp_path, model, variables)
        weights = {path.name for path in tmp_path.glob("model*")}
        if size:
            index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
            assert weights == {"model.safetensors.index.json", *index["weight_map"].values()}
        else:
            assert weights == {"model.safetensors"}
    assert (tmp_path / "notes.txt").exists()


# Failures


# Bytes of a file, before and after.
SAVES = {"files": (0, 0), "to shards": (0, 200_000), "to file": (100_000, 0), "shards": (60_000, 90_000)}

# Saves what is in the file `new` over each of the folders, in processes of its own. One is killed at the step of the
# folder's name, a call of one of the functions of the operating system that change anything; "full" is one for which
# the disk is full half-way.
KILLED = """
import os, resource, signal, sys
from safetensors.numpy import load_file
import flaim_core as core
from flaim.models import create
from flaim.weights import save_pretrained

new, size, *folders = sys.argv[1:]
variables = core.unflatten(load_file(new))
model = create("test_resnet", n_classes=5, input_size=32, widths=(16, 24, 24, 32))
model.spec()

def save(folder):
    save_pretrained(folder, model, variables, max_shard_size=int(size))

def killed_at(stop):
    count = 0
    def wrapped(function):
        def call(*args, **options):
            nonlocal count
            if count == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return function(*args, **options)
        return call
    for name in ("fsync", "replace", "chmod", "unlink"):
        setattr(os, name, wrapped(getattr(os, name)))

for folder in folders:
    process = os.fork()
    if process == 0:
        what = os.path.basename(folder)
        if what == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        else:
            killed_at(int(what))
        try:
            save(folder)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    print(folder, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


@pytest.mark.parametrize(("before", "after"), SAVES.values(), ids=SAVES)
def test_a_save_that_is_cut_short_leaves_one_whole_checkpoint(old, new, tmp_path, before, after):
    save_pretrained(tmp_path / "first", *old, max_shard_size=before or writer.MAX_SHARD_SIZE)
    save_pretrained(tmp_path / "new", *new)
    stops = ["full", *range(24), 100]
    folders = [str(shutil.copytree(tmp_path / "first", tmp_path / f"{stop}")) for stop in stops]
    command = [sys.executable, "-c", KILLED, tmp_path / "new" / "model.safetensors", after or writer.MAX_SHARD_SIZE]
    found = subprocess.run([*map(str, command), *folders], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    codes = [int(line.split()[1]) for line in found.stdout.splitlines()]
    assert codes[0] == errno.EFBIG and codes[-1] == 0 and codes[1:7] == [-signal.SIGKILL] * 6
    whole = []
    for folder, code in zip(folders, codes):
        is_new = holds(folder, *new)
        assert is_new or holds(folder, *old), f"stopped at {folder}: {sorted(os.listdir(folder))}"
        assert code != 0 or is_new
        whole.append(is_new)
    assert whole == sorted(whole) and not whole[1] and whole[-1]  # there is one step that counts
    for folder in folders[1::6]:  # what is left behind does not disturb the next one
        save_pretrained(folder, *new)
        assert holds(folder, *new)
    assert sorted(os.listdir(folders[0])) == sorted(os.listdir(tmp_path / "first"))


@pytest.mark.parametrize("room", [0, 10, 20_000, 100_000])
def test_a_full_disk(old, new, tmp_path, monkeypatch, room):
    """The system takes `room` bytes and no more."""
    save_pretrained(tmp_path, *old)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Full:
        def __init__(self, descriptor, mode):
            self.file = os.fdopen(descriptor, mode)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            nonlocal room
            room -= len(content)
            if room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        fdopen = os.fdopen
        patch.setattr(writer, "os", type("os", (), {**vars(os), "fdopen": staticmethod(lambda *a: Full(*a))}))
        assert os.fdopen is fdopen
        with pytest.raises(OSError, match="No space left"):
            save_pretrained(tmp_path, *new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert holds(tmp_path, *old)


def test_leftovers_of_killed_saves_go(old, tmp_path):
    save_pretrained(tmp_path, *old)
    for name, age in ((".model.safetensors.abc.tmp", 7200), (".config.json.abc.tmp", 10), (".mine.tmp", 7200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    save_pretrained(tmp_path, *old)
    left = {name for name in os.listdir(tmp_path) if name.endswith(".tmp")}
    assert left == {".config.json.abc.tmp", ".mine.tmp"}  # one may still be written, one is somebody else's


def test_memory(tmp_path):
    """No more than one leaf is in memory a second time, be it transposed or cast on the way."""
    rng = np.random.default_rng(0)
    arrays = {f"a{i}": rng.standard_normal((512, 1024), dtype=np.float32) for i in range(8)}
    tensors = {name: writer.Tensor(array, (1, 0), np.float16) for name, array in arrays.items()}
    tracemalloc.start()
    writer.write_checkpoint(tmp_path, {}, tensors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * arrays["a0"].nbytes
    found = load_file(tmp_path / "model.safetensors")
    for name, array in arrays.items():
        assert np.array_equal(found[name], array.T.astype(np.float16))


def test_orbax_takes_variables_as_they_are(old, tmp_path):
    _, variables = old
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", variables)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "orbax", jax.tree.map(jnp.zeros_like, variables))
    chex.assert_trees_all_equal_dtypes(restored, variables)
    chex.assert_trees_all_equal(restored, variables)
