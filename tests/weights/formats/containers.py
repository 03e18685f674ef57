"""The same few tensors in every format, each written by the library that the format belongs to."""

import json
import pickle
import zipfile
from pathlib import Path

import flax.serialization
import h5py
import jax.numpy as jnp
import numpy as np
import torch
from flax.core import FrozenDict
from safetensors.numpy import save_file

TENSORS = {
    "stem/kernel": np.random.default_rng(0).standard_normal((3, 3, 2, 4), np.float32),
    "stem/bias": np.arange(4, dtype=np.float32),
    "head/half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "head/steps": np.array(7, np.int64),
}


def nested(leaf=lambda value: value) -> dict:
    """The tensors in dictionaries within dictionaries."""
    tree: dict = {}
    for name, value in TENSORS.items():
        group, _, last = name.partition("/")
        tree.setdefault(group, {})[last] = leaf(value)
    return tree


def safetensors(path: Path) -> None:
    save_file(TENSORS, path, metadata={"format": "np"})


def index(path: Path) -> None:
    names = list(TENSORS)
    weight_map = {}
    for i, part in enumerate((names[:2], names[2:])):
        save_file({name: TENSORS[name] for name in part}, path.parent / f"part-{i}.safetensors")
        weight_map |= dict.fromkeys(part, f"part-{i}.safetensors")
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def hdf5(path: Path, **options) -> None:
    with h5py.File(path, "w", userblock_size=options.pop("userblock_size", None)) as file:
        for name, value in TENSORS.items():
            file.create_dataset(name, data=value, **(options if value.ndim else {}))
        file.attrs["layer_names"] = [b"stem", b"head"]
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional"})
        file["stem"].attrs["weight_names"] = [b"kernel", b"bias"]


def hdf5_compressed(path: Path) -> None:
    hdf5(path, compression="gzip", chunks=True)


def hdf5_after_a_user_block(path: Path) -> None:
    hdf5(path, userblock_size=1024)


def hdf5_new(path: Path) -> None:
    with h5py.File(path, "w", libver="latest", track_order=True) as file:
        for name, value in TENSORS.items():
            file[name] = value


def keras(path: Path, compression: int = zipfile.ZIP_STORED) -> None:
    weights = path.with_suffix(".inner")
    hdf5(weights)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional"}))
        archive.writestr("model.weights.h5", weights.read_bytes())
    weights.unlink()


def keras_compressed(path: Path) -> None:
    keras(path, zipfile.ZIP_DEFLATED)


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **TENSORS)


def npz_compressed(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **TENSORS)


def _torch(leaf=torch.nn.Parameter) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in TENSORS.items()}


def torch_file(path: Path) -> None:
    torch.save(_torch(), path)


def torch_of_a_script(path: Path) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"epoch": 3, "model": _torch(), "optimizer": optimiser, "device": torch.device("cpu")}, path)


def torch_old(path: Path) -> None:
    torch.save({"state_dict": _torch(), "epoch": 3}, path, _use_new_zipfile_serialization=False)


def msgpack(path: Path) -> None:
    path.write_bytes(flax.serialization.msgpack_serialize(nested()))


def pickled(path: Path, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(nested(), protocol))


def pickled_oldest(path: Path) -> None:
    pickled(path, 0)


def pickled_older(path: Path) -> None:
    pickled(path, 2)


def pickled_newest(path: Path) -> None:
    pickled(path, 5)


def pickled_jax(path: Path) -> None:
    path.write_bytes(pickle.dumps(FrozenDict(nested(lambda v: v if v.dtype == np.int64 else jnp.asarray(v)))))


FORMATS = {
    safetensors: "safetensors",
    index: "index",
    hdf5: "hdf5",
    hdf5_compressed: "hdf5",
    hdf5_after_a_user_block: "hdf5",
    hdf5_new: "hdf5",
    keras: "keras",
    keras_compressed: "keras",
    npz: "npz",
    npz_compressed: "npz",
    torch_file: "torch",
    torch_of_a_script: "torch",
    torch_old: "torch",
    msgpack: "msgpack",
    pickled: "pickle",
    pickled_oldest: "pickle",
    pickled_older: "pickle",
    pickled_newest: "pickle",
    pickled_jax: "pickle",
}
