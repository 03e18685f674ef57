"""Make `original.json`: small models of the original flaim, the shapes of their variables and their outputs.

    python tests/weights/converters/make_flaim_v0.py FOLDER

FOLDER is a checkout of github.com/BobMcDear/flaim, whose package has the same name as this one.
"""

import inspect
import json
import sys
import zlib
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("flaim_v0.json")


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers of a variable that depend on its name alone, so that the file need not hold them."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    leaf = name.rpartition("/")[2]
    if leaf == "kernel":
        return normal / np.float32(np.prod(shape[:-1]) ** 0.5)
    if leaf == "var":
        return np.float32(0.5) + np.abs(normal)
    return np.float32(leaf in ("scale", "lambda")) + np.float32(0.2) * normal


def image(size: int) -> np.ndarray:
    """The image that the outputs are of."""
    return np.random.default_rng(0).standard_normal((1, size, size, 3), np.float32)


def _models() -> dict:
    layers, resnet, efficient = (
        import_module(f"flaim.{name}") for name in ("layers", "models.resnet", "models.efficientnetv2")
    )
    blocks = efficient.ResConvBNAct, efficient.FusedMBConv, efficient.MBConv
    average = partial(resnet.ResNetDownsample, avg_pool=True)
    vit = dict(depth=1, token_dim=32, n_heads=2)
    # The module, its options, the image's size.
    return {
        "vit": ("vit.ViT", dict(vit, layer_scale_init_value=0.1, class_token_pos_embed=False), 32),
        "vit_clip": ("vit.ViT", dict(vit, pre_norm=True, layer_norm_eps=1e-5), 32),
        "vit_pool": ("vit.ViT", dict(vit, head_pool=True, head_norm_first=False), 32),
        "convnext": ("convnext.ConvNeXt", dict(depths=(1, 1), out_dims=(8, 16), head_hidden_dim=12), 32),
        "convnextv2": (
            "convnext.ConvNeXt",
            dict(depths=(1, 1), out_dims=(8, 16), grn=True, layer_scale_init_value=None),
            32,
        ),
        "swin": ("swin.Swin", dict(depths=(2, 1), token_dim=16, n_heads=(2, 4), window_size=4), 32),
        "efficientnetv2": (
            "efficientnetv2.EfficientNetV2",
            dict(blocks=blocks, depths=(1, 1, 2), out_dims=(8, 16, 24), strides=(1, 2, 2), expansion_factors=(1, 4, 4)),
            32,
        ),
        "maxvit": ("maxvit.MaxViT", dict(depths=(1, 1), out_dims=(32, 64), stem_out_dim=16), 64),
        "resnet": ("resnet.ResNet", dict(depths=(1, 1)), 32),
        "resnet_basic": ("resnet.ResNet", dict(depths=(1, 1), block=resnet.BasicBlock), 32),
        "resnet_se": (
            "resnet.ResNet",
            dict(depths=(1, 1), stem=resnet.ResNetDStem, downsample=average, attention=layers.SE),
            32,
        ),
        "resnet_rs": (
            "resnet.ResNet",
            dict(depths=(1, 1), stem=partial(resnet.ResNetDStem, max_pool=False), attention=layers.ECA),
            32,
        ),
        # Published ones, whose shapes alone count.
        "resnet10t": (
            "resnet.ResNet",
            dict(
                depths=(1, 1, 1, 1),
                block=resnet.BasicBlock,
                stem=partial(resnet.ResNetDStem, out_dims=(24, 32, 64)),
                downsample=average,
            ),
            0,
        ),
        "vit_tiny_patch16": ("vit.ViT", dict(depth=12, token_dim=192, n_heads=3), 0),
    }


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    jax.random.KeyArray = jax.Array  # which newer versions of jax lack and the package's annotations name
    file = {}
    for name, (path, options, size) in _models().items():
        module, cls = path.split(".")
        model = getattr(import_module(f"flaim.models.{module}"), cls)(**options, n_classes=5)
        images = image(size or 224)
        made = flatten_dict(
            model.init(jax.random.key(0), images) if size else jax.eval_shape(model.init, jax.random.key(0), images)
        )
        shapes = {"/".join(path): value.shape for path, value in made.items() if path[0] != "intermediates"}
        file[name] = {"shapes": shapes}
        if size:
            filled = {
                path: numbers("/".join(path), value.shape) if path[0] in ("params", "batch_stats") else value
                for path, value in made.items()
            }
            inference = {"training": False} if "training" in inspect.signature(model.__call__).parameters else {}
            output = model.apply(unflatten_dict(filled), images, **inference)
            file[name] |= {"size": size, "output": [float(value) for value in np.asarray(output)[0]]}
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in file.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
