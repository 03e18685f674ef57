"""Compare whole models of `keras.applications` with flaim's: `python -m tools.compare_keras [--size N] NAME ...`.

Names are those of `tools/make_keras_structure.py`. Every weight is randomised, saved by Keras in a file, and loaded
from it; printed is the largest difference of the logits over the largest logit. It takes minutes for the large models,
so it is no test: `tests/weights/converters/test_keras.py` has a small model of every family. Keras has to run on JAX:
set `KERAS_BACKEND=jax` in the environment.
"""

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from flaim.pretrained import model_of
from flaim.weights import load
from tests.oracle import relative_error
from tests.weights.converters import keras_oracle as oracle
from tools.make_keras_structure import MODELS

# The module of `keras.applications` by prefix of the model's name, if it is not the name itself.
MODULES = {
    "densenet": "densenet",
    "resnet": "resnet",
    "efficientnetv2": "efficientnet_v2",
    "efficientnet": "efficientnet",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3": "mobilenet_v3",
    "mobilenet": "mobilenet",
    "nasnet": "nasnet",
    "convnext": "convnext",
}


def module_of(name: str) -> str:
    """The module of `keras.applications` that the model is in."""
    if name.endswith("v2") and name.startswith("resnet"):
        return "resnet_v2"
    return next((module for start, module in MODULES.items() if name.startswith(start)), name)


def error_of(name: str, size: int) -> float:
    """The relative error of flaim's logits."""
    function, options = MODELS[name]
    reference = oracle.build(lambda **more: getattr(keras.applications, function)(**options, **more), size=size)
    pixels = oracle.pixels(size)
    expected = oracle.run(reference, module_of(name), pixels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        reference.save_weights(path)
        variables, config = load(path)
    model = model_of(config)
    images = (pixels / np.float32(255) - np.array(config.preprocessing.mean, np.float32)) / np.array(
        config.preprocessing.std, np.float32
    )
    return relative_error(oracle.quickly(lambda v, x: model.apply(v, x).value, variables, images), expected)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--size", type=int, default=96, help="side of the images")
    arguments = parser.parse_args()
    for name in arguments.names:
        start = time.process_time()
        print(f"{name:32} {error_of(name, arguments.size):.1e}  {time.process_time() - start:.0f} s", flush=True)
