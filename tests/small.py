"""One small variant of each family, with random variables and images: what tests run for all families."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import flaim_core as core
from flaim import models


def stages_of(name: str, n: int) -> tuple:
    """The first stages of a variant."""
    return dict(models.create(name).config)["stages"][:n]


# One small variant a family that has each of its kinds of block.
SMALL = {
    "convnext": ("test_convnext2", {"input_size": 32}),
    "densenet": ("densenetblur121d", {"input_size": 32, "depths": (1, 2), "growth": 8, "stem_widths": (8, 8, 16)}),
    "efficientnet": ("test_efficientnet", {"input_size": 32}),
    "inception_resnet_v2": ("inception_resnet_v2", {"input_size": 107, "depths": (2, 1, 1), "features": 64}),
    "inception_v3": (
        "inception_v3",
        {"input_size": 107, "pool_features": (32,), "widths": (32,), "final_depth": 1},
    ),
    "maxvit": ("maxvit_tiny_tf_224", {"input_size": 64, "depths": (1, 1), "dims": (32, 64), "stem_dims": (16, 16)}),
    "mobilenetv3": ("mobilenetv3_small_100", {"input_size": 32, "stages": stages_of("mobilenetv3_small_100", 3)}),
    "nasnet": ("nasnetalarge", {"input_size": 64, "depth": 1, "features": 384, "stem_features": 8}),
    "resnet": ("test_resnet", {"input_size": 32}),
    "resnetv2": ("resnetv2_50t", {"input_size": 32, "depths": (2, 1), "widths": (32, 64)}),
    "swin": ("swin_tiny_patch4_window7_224", {"input_size": 56, "depths": (2, 2), "num_heads": (1, 2), "dim": 16}),
    "vgg": ("vgg11_bn", {"input_size": 64, "depths": (1, 2), "widths": (8, 16), "head_features": 32}),
    "vit": ("test_vit", {"input_size": 32}),
    "xception": (
        "legacy_xception",
        {
            "input_size": 64,
            "stem_widths": (8, 16),
            "entry_widths": (16, 32),
            "middle_depth": 2,
            "exit_widths": (48, 64, 64),
        },
    ),
}


def small(family: str, **overrides) -> models.Model:
    name, options = SMALL[family]
    return models.create(name, **{"n_classes": 7, **options, **overrides})


def randomised(model: models.Model) -> dict:
    """Variables in which nothing is at its initial value, and activations keep their order of magnitude."""
    rng = np.random.default_rng(0)

    def value(path: str, leaf: core.Leaf) -> np.ndarray:
        normal, name = rng.standard_normal(leaf.shape), path.rpartition("/")[2]
        if name == "kernel":
            return normal * (2 / math.prod(leaf.shape[:-1])) ** 0.5  # as He et al. (2015)
        if name == "var":
            return 0.5 + rng.random(leaf.shape)
        if name in ("bias", "mean") or len(leaf.shape) != 1:  # tables and tokens among them
            return 0.2 * normal
        return 1 + 0.2 * normal  # scales of norms and of layers

    flat = core.flatten(model.spec())
    return core.unflatten({path: jnp.asarray(value(path, leaf), leaf.dtype) for path, leaf in flat.items()})


def images(model: models.Model, batch: int = 2) -> jax.Array:
    shape = model.image(batch).shape
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
