"""Write flaim/weights/catalogue/keras.jsonl: the checkpoints that Keras publishes, where they are, and their hashes.

Run it from the root of the repository, `python -m tools.make_keras_catalogue`, when Keras' version changes, and review
the diff before committing it. The hashes are read from Keras' sources; those of ResNet-RS, which Keras 3 has dropped,
are from tf-keras 2.21. Keras publishes none for MobileNet V1 and V2.
"""

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

from flaim.weights.converters.keras import TABLES

SERVER = "https://storage.googleapis.com"
_FOLDER = "tensorflow/keras-applications"
_PLAIN = "{}_weights_tf_dim_ordering_tf_kernels.h5"
_ALPHAS = {"0.25": "2_5", "0.50": "5_0", "0.75": "7_5", "1.00": "1_0"}

# Licenses of the weights in Keras' documentation, by flaim's family; the default is apache-2.0.
_LICENSES = {"densenet": "bsd-3-clause", "resnetv2": "bsd-3-clause", "vgg": "cc-by-4.0", "xception": "mit"}

# MD5 of ResNet-RS' files, by (layers, side of the images); Keras' default for each number of layers comes first.
_RESNET_RS = {
    (50, 160): "69d9d925319f00a8bdd4af23c04e4102",
    (101, 192): "eb285be29ab42cf4835ff20a5e3b5d23",
    (101, 160): "544b3434d00efc199d66e9058c7f3379",
    (152, 256): "ba6271b99bdeb4e7a9b15c05964ef4ad",
    (152, 224): "31a46a92ab21b84193d0d71dd8c3d03b",
    (152, 192): "8d72a301ed8a6f11a47c4ced4396e338",
    (200, 256): "a76930b741884e09ce90fa7450747d5f",
    (270, 256): "20d575825ba26176b03cb51012a367a8",
    (350, 320): "7ccb858cc738305e8ceb3c0140bee393",
    (350, 256): "f4a039dc3c421321b7fc240494574a68",
    (420, 320): "ae0eb9bed39e64fc8d7e0db4018dc7e8",
}


def hashes(module: str) -> dict[str, str]:
    """The hashes of files in a module of `keras.applications`, by the names used there."""
    spec = importlib.util.find_spec("keras")
    source = Path(spec.submodule_search_locations[0], "src", "applications", f"{module}.py").read_text()
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "WEIGHTS_HASHES":
            found = {key: pair[0] for key, pair in ast.literal_eval(statement.value).items()}
    inline = re.findall(r'"([\w.-]+\.h5)"(?:(?!\.h5").)*?file_hash="(\w+)"', source, re.DOTALL)
    return found | dict(inline)


def files() -> Iterator[tuple[str, str, str | None, int | None]]:
    """Keras' model name, the file on its server, its hash, and the images' size if it isn't the model's own."""
    for module, models in (
        ("densenet", ("densenet121", "densenet169", "densenet201")),
        ("resnet", ("resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2")),
        ("inception_v3", ("inception_v3",)),
        ("inception_resnet_v2", ("inception_resnet_v2",)),
        ("vgg16", ("vgg16",)),
        ("vgg19", ("vgg19",)),
        ("xception", ("xception",)),
    ):
        known = hashes(module)
        for name in models:
            file = _PLAIN.format(name)
            yield name, f"{_FOLDER}/{module}/{file}", known.get(file) or known[name], None
    for name, (module, folder, key) in {
        **{f"efficientnetb{i}": ("efficientnet", "keras-applications", f"b{i}") for i in range(8)},
        **{
            f"efficientnetv2-{size}": (
                "efficientnet_v2",
                f"{_FOLDER}/efficientnet_v2",
                size if "b" in size else f"-{size}",
            )
            for size in ("b0", "b1", "b2", "b3", "s", "m", "l")
        },
        **{
            f"convnext_{size}": ("convnext", f"{_FOLDER}/convnext", f"convnext_{size}")
            for size in ("tiny", "small", "base", "large", "xlarge")
        },
    }.items():
        yield name, f"{folder}/{name}.h5", hashes(module)[key], None
    for size in ("mobile", "large"):
        yield f"nasnet_{size}", f"{_FOLDER}/nasnet/NASNet-{size}.h5", hashes("nasnet")[f"nasnet_{size}.h5"], None
    for size in ("large", "small"):
        for kind, name in (("_224_0.75", "0.75"), ("_224_1.0", "1.00"), ("_minimalistic_224_1.0", "minimalistic")):
            key = f"{size}{kind}_float"
            file = f"{_FOLDER}/mobilenet_v3/weights_mobilenet_v3_{key}.h5"
            yield f"mobilenetv3_{size}_{name}", file, hashes("mobilenet_v3")[key], None
    for alpha, text in _ALPHAS.items():
        for side in (224, 192, 160, 128):
            yield f"mobilenet_{alpha}", f"{_FOLDER}/mobilenet/mobilenet_{text}_{side}_tf.h5", None, side
    for alpha in ("0.35", "0.50", "0.75", "1.00", "1.30", "1.40"):
        for side in (224, 192, 160, 128, 96) if float(alpha) <= 1 else (224,):
            file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{side}.h5"
            yield f"mobilenetv2_{alpha}", f"{_FOLDER}/mobilenet_v2/{file}", None, side
    for (layers, side), digest in _RESNET_RS.items():
        yield f"resnet-rs-{layers}", f"{_FOLDER}/resnet_rs/resnet-rs-{layers}-i{side}.h5", digest, side


def rows() -> Iterator[dict]:
    """One row per checkpoint; a model's default checkpoint comes first."""
    norms = {"tf": "inception", "torch": "imagenet", "built in": "imagenet"}
    for name, file, digest, side in files():
        table = next(table for table in TABLES if name in table.models)
        entry = table.models[name]
        side = side or entry.input_size
        data = "in22k_ft_in1k" if name in ("convnext_base", "convnext_large", "convnext_xlarge") else "in1k"
        row = {"model": entry.architecture, "params": f"keras_{data}_{side}", "family": table.family}
        if entry.overrides:
            row["overrides"] = dict(entry.overrides)
        row["url"] = f"{SERVER}/{file}"
        if digest is not None:
            row["digest"] = f"{'md5' if len(digest) == 32 else 'sha256'}:{digest}"
        row |= {"size": side, "norm": norms.get(table.preprocessing, table.preprocessing), "classes": 1000}
        license = "mit" if name in ("resnet50", "resnet101", "resnet152") else _LICENSES.get(table.family, "apache-2.0")
        yield row | {"license": license}


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "flaim" / "weights" / "catalogue" / "keras.jsonl"
    target.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    print(f"{target}: {len(target.read_text(encoding='utf-8').splitlines())} checkpoints of Keras")
