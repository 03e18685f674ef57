"""Record the layers and shapes of Keras' models: `python tools/make_keras_structure.py [NAME ...]`.

Writes `tests/data/keras_structure.json`: for each model the number of layers with weights, and a checksum of their
lines from `keras_oracle.structure`. With names, only those models are recorded again; `--show NAME` prints a
model's lines instead.
"""

import json
import sys
import zlib
from pathlib import Path

import keras

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.weights.converters.keras_oracle import structure

FILE = Path(__file__).parent.parent / "tests" / "data" / "keras_structure.json"

# Keras' models by their name in flaim's tables: the function in `keras.applications` and its options.
MODELS: dict[str, tuple[str, dict]] = {
    "densenet121": ("DenseNet121", {}),
    "densenet169": ("DenseNet169", {}),
    "densenet201": ("DenseNet201", {}),
    "resnet50": ("ResNet50", {}),
    "resnet101": ("ResNet101", {}),
    "resnet152": ("ResNet152", {}),
    "resnet50v2": ("ResNet50V2", {}),
    "resnet101v2": ("ResNet101V2", {}),
    "resnet152v2": ("ResNet152V2", {}),
    "inception_v3": ("InceptionV3", {}),
    **{
        f"mobilenetv2_{alpha}": ("MobileNetV2", {"alpha": float(alpha)})
        for alpha in ("0.35", "0.50", "0.75", "1.00", "1.30", "1.40")
    },
    **{f"efficientnetb{i}": (f"EfficientNetB{i}", {}) for i in range(8)},
    "vgg16": ("VGG16", {}),
    "vgg19": ("VGG19", {}),
    "xception": ("Xception", {}),
    "nasnet_mobile": ("NASNetMobile", {}),
    "nasnet_large": ("NASNetLarge", {}),
    "inception_resnet_v2": ("InceptionResNetV2", {}),
    **{f"mobilenet_{alpha}": ("MobileNet", {"alpha": float(alpha)}) for alpha in ("0.25", "0.50", "0.75", "1.00")},
    **{
        f"mobilenetv3_{size.lower()}_{name}": (f"MobileNetV3{size}", options)
        for size in ("Large", "Small")
        for name, options in (
            ("0.75", {"alpha": 0.75}),
            ("1.00", {}),
            ("minimalistic", {"minimalistic": True}),
        )
    },
    **{
        f"efficientnetv2-{size.lower()}": (f"EfficientNetV2{size}", {})
        for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    },
    **{f"convnext_{size.lower()}": (f"ConvNeXt{size}", {}) for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
}


def lines(name: str) -> list[str]:
    """A model's layers."""
    function, options = MODELS[name]
    keras.backend.clear_session()
    return structure(getattr(keras.applications, function)(weights=None, **options))


if __name__ == "__main__":
    names = sys.argv[1:] or list(MODELS)
    if names[0] == "--show":
        print("\n".join(lines(names[1])))
        sys.exit()
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names:
        found = lines(name)
        recorded[name] = [len(found), zlib.crc32("\n".join(found).encode())]
        print(name, *recorded[name])
    text = ",\n".join(f"  {json.dumps(name)}: {json.dumps(recorded[name])}" for name in MODELS if name in recorded)
    FILE.write_text(f"{{\n{text}\n}}\n")
