"""Record TensorFlow's ResNet-RS as a reference, because Keras 3 has dropped it.

Run it where tensorflow-cpu and tf-keras 2.21 are installed, `python tools/make_resnet_rs_reference.py [MODEL ...]`. It
needs nothing else of this repository. With names (`shallow`, `50`, `101`, ...), only those models are recorded again.
It writes `tests/data/keras_resnet_rs.json`:

- `"structure"`: for each model, the number of layers with weights and a checksum of their names, classes and shapes, in
  the form of `tests/weights/converters/keras_oracle.py`;
- `"logits"`: for each model, the logits of the first classes for images and weights drawn as described below;
  `"shallow"` is a model of few layers;
- `"files"`: for the shallow model, the names in the files that TensorFlow's Keras saves, in the older format and in
  that of its last versions, and the layer and weight that each name holds.

Each weight is drawn by a generator whose seed is the checksum of `layer/weight`: kernels normal with variance
1 / fan-in, variances uniform in [0.5, 1.5), gammas normal with mean 1 and deviation 0.2, the rest with mean 0. The
images are integers from 0 to 255, drawn with seed 0.
"""

import json
import os
import sys
import tempfile
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # keeps the default order of sums

import h5py
import numpy as np
import tf_keras
from tf_keras.src.applications import resnet_rs

FILE = Path(__file__).parent.parent / "tests" / "data" / "keras_resnet_rs.json"
MODELS = ("shallow", "50", "101", "152", "200", "270", "350", "420")
SHALLOW = [{"input_filters": width, "num_repeats": depth} for width, depth in ((32, 2), (32, 1))]
KINDS = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}
SIZE, RECORDED = 64, 8  # the images' side, and how many of the 1,000 logits are recorded


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random weight called `name`."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    role = name.rpartition("/")[2]
    if role == "kernel":
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))
    if role == "moving_variance":
        return np.float32(0.5) + rng.random(shape, np.float32)
    return np.float32(role == "gamma") + np.float32(0.2) * rng.standard_normal(shape, np.float32)


def role_of(weight) -> str:
    """The weight's own name: `"x/kernel:0"` is `"kernel"`."""
    return weight.name.rpartition("/")[2].partition(":")[0]


def model_of(depth: int, **options) -> tf_keras.Model:
    """A model with Keras' random weights."""
    tf_keras.backend.clear_session()
    options = {"weights": None, "classifier_activation": None, **options}
    resnet_rs.allow_bigger_recursion(5000)
    return resnet_rs.ResNetRS(depth, input_shape=(SIZE, SIZE, 3), **options)


def fill(model: tf_keras.Model) -> None:
    """Set the model's weights to those of `drawn`."""
    for layer in model.layers:
        layer.set_weights([drawn(f"{layer.name}/{role_of(w)}", tuple(w.shape)) for w in layer.weights])


def structure(model: tf_keras.Model) -> list[str]:
    """A line for each layer that has weights."""
    lines = []
    for layer in model.layers:
        if layer.weights:
            shapes = {role_of(weight): tuple(weight.shape) for weight in layer.weights}
            described = " ".join(f"{role}{shapes[role]}" for role in sorted(shapes))
            lines.append(f"{layer.name} {KINDS[type(layer).__name__]} {described}")
    return lines


def names_in(file: Path, model: tf_keras.Model) -> dict[str, str]:
    """The weight, `"layer/weight"`, that each dataset in a file holds, by path; the values identify it."""
    known = {}
    for layer in model.layers:
        for weight in layer.weights:
            known[weight.numpy().tobytes()] = f"{layer.name}/{role_of(weight)}"
    found = {}
    with h5py.File(file) as opened:

        def visit(path, item):
            if isinstance(item, h5py.Dataset) and item[()].tobytes() in known:
                found[path] = known[item[()].tobytes()]

        opened.visititems(visit)
    assert len(found) == len(known), f"{len(found)} of {len(known)} weights found in {file}"
    return found


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
    record = json.loads(FILE.read_text()) if FILE.exists() else {"structure": {}, "logits": {}, "files": {}}
    for name in sys.argv[1:] or MODELS:
        if name == "shallow":
            model = model_of(50, block_args=SHALLOW)
            fill(model)
            with tempfile.TemporaryDirectory() as folder:
                for filename in ("older.h5", "newer.weights.h5"):
                    model.save_weights(Path(folder) / filename)
                    record["files"][filename] = names_in(Path(folder) / filename, model)
        else:
            model = model_of(int(name))
            fill(model)
            lines, name = structure(model), f"resnet-rs-{name}"
            record["structure"][name] = [len(lines), zlib.crc32("\n".join(lines).encode())]
        record["logits"][name] = model(images, training=False).numpy()[:, :RECORDED].tolist()
        print(name, flush=True)
    tables = (
        f"{json.dumps(title)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items())
        + "\n}"
        for title, table in record.items()
    )
    FILE.write_text("{\n" + ",\n".join(tables) + "\n}\n")


if __name__ == "__main__":
    main()
