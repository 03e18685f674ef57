"""XCiT: transformers that attend among channels instead of tokens, at a cost that is linear in the tokens.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers" (2021). The last blocks are those of CaiT, by Touvron et
al., "Going Deeper with Image Transformers" (2021), in which the class token alone attends. The reference implementation
is timm's `xcit.py`. Its position encoding is computed from the map's size, so a model takes images of any size; a side
of n pixels gives n / patch_size tokens, rounded up. We leave out dropout inside the blocks.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    batch_norm,
    class_attention,
    classifier,
    conv,
    cross_covariance_attention,
    drop_path,
    gelu,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    mlp,
    ops,
)
from flaim_core.checks import check_heads


@kernel
def conv_patch_embed(
    scope: Scope, x: Float[Array, "b h w c"], dim: int, *, patch_size: int, act: Callable = gelu
) -> Float[Array, "b h2 w2 d"]:
    """Patches embedded by 3x3 convolutions of stride 2, each with a norm, `act` between them; each doubles the width.

    `patch_size` is a power of two, at least 2. Paths: `proj/0`, `proj/2`, ...
    """
    steps = patch_size.bit_length() - 1
    if patch_size != 2**steps or steps < 1:
        raise ValueError(f"{'/'.join(scope.path)}: patch_size is {patch_size}; it must be a power of two, at least 2")
    for i in range(steps):
        step = scope["proj"][2 * i]
        x = x if i == 0 else act(x)
        x = conv(step[0], x, dim // 2 ** (steps - 1 - i), kernel_size=3, stride=2, bias=False)
        x = batch_norm(step[1], x)
    return x


def _waves(n: Any, count: int, temperature: float, dtype: Any) -> Float[Array, "n waves"]:
    """Sines and cosines, in turn, of `n` positions: `count` pairs, whose periods are a geometric sequence."""
    position = jnp.arange(n, dtype=dtype) + 1
    angle = 2 * math.pi * position / (position[-1:] + 1e-6)  # from almost 0 to 2 pi, whatever the size
    periods = np.asarray(temperature ** (np.arange(count) / count), dtype)
    angle = angle[:, None] / periods[None]
    return ops.merge_axes(jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1), 1)


@kernel
def fourier_position_encoding(
    scope: Scope, x: Float[Array, "b h w c"], *, waves: int = 32, temperature: float = 10000.0
) -> Float[Array, "b h w c"]:
    """Add to each token a linear function of sines and cosines of its row and column, `waves` of each.

    Path: `token_projection`, a 1x1 convolution.
    """
    _, height, width, dim = x.shape
    # In float32 also for half precision, whose cosines are coarse.
    dtype = ops.accumulation_dtype(x)
    rows, columns = (_waves(n, waves // 2, temperature, dtype) for n in (height, width))
    rows = jnp.broadcast_to(rows[:, None], (height, width, waves))
    columns = jnp.broadcast_to(columns[None], (height, width, waves))
    encoding = jnp.concatenate([rows, columns], axis=-1)[None].astype(x.dtype)
    return x + conv(scope["token_projection"], encoding, dim, kernel_size=1)


@kernel
def local_patch_interaction(
    scope: Scope, x: Float[Array, "b h w c"], *, act: Callable = gelu
) -> Float[Array, "b h w c"]:
    """Two depthwise 3x3 convolutions, `act` and a norm between them: tokens see their neighbours."""
    dim = x.shape[-1]
    x = batch_norm(scope["bn"], act(conv(scope["conv1"], x, dim, kernel_size=3, groups=dim)))
    return conv(scope["conv2"], x, dim, kernel_size=3, groups=dim)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    layer_scale_init: float = 1e-5,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Attention among channels, depthwise convolutions, an MLP: residual branches that normalise first."""

    def branch(number: int, y: Array) -> Array:
        y = layer_scale(scope, y, init_value=layer_scale_init, leaf=f"gamma{number}")
        return drop_path(scope[f"drop_path{number}"], y, drop_path_rate)

    y = ops.merge_axes(norm(scope["norm1"], x), 1)
    y = cross_covariance_attention(scope["attn"], y, num_heads=num_heads, qkv_bias=qkv_bias)
    x = x + branch(1, y.reshape(x.shape))
    # The third branch comes before the second, as in the authors' code.
    x = x + branch(3, local_patch_interaction(scope["local_mp"], norm(scope["norm3"], x), act=act))
    y = mlp(scope["mlp"], norm(scope["norm2"], x), hidden=int(mlp_ratio * x.shape[-1]), act=act)
    return x + branch(2, y)


@kernel
def class_block(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    layer_scale_init: float = 1e-5,
    norm_patches: bool = True,
) -> Float[Array, "b n c"]:
    """Attention of the class token, which is the first, to all tokens, and an MLP of the class token.

    The patches change too, as in the authors' code: their own norm is added to them, then they are normalised once
    more (with `norm_patches`) and doubled. The MLP's branch starts from the normalised class token.
    """
    scale: dict = dict(init_value=layer_scale_init)
    y = norm(scope["norm1"], x)
    token = class_attention(scope["attn"], y, num_heads=num_heads, qkv_bias=qkv_bias)
    x = x + layer_scale(scope, jnp.concatenate([token, y[:, 1:]], axis=1), leaf="gamma1", **scale)
    y = norm(scope["norm2"], x if norm_patches else x[:, :1])
    token, patches = y[:, :1], (y if norm_patches else x)[:, 1:]
    y = mlp(scope["mlp"], token, hidden=int(mlp_ratio * x.shape[-1]), act=act)
    return jnp.concatenate([token + layer_scale(scope, y, leaf="gamma2", **scale), 2 * patches], axis=1)


@kernel
def xcit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    num_heads: int,
    patch_size: int = 16,
    class_depth: int = 2,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    norm_patches: bool = True,
    layer_scale_init: float = 1e-5,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Blocks on a map of patches, then blocks on its tokens and the class token, which is classified.

    Args:
        n_classes: 0 gives all tokens, the class token first.
        patch_size: A power of two.
        depth, class_depth: Number of blocks on the map, and of those in which the class token attends.
        norm_patches: The second norm of the class token's blocks is of patches, too.
        layer_scale_init: Initial value of the layer scales.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of every block on the map; there is none in the class token's blocks.
    """
    check_heads(scope["blocks"], dim, num_heads)
    x = conv_patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size, act=act)
    x = fourier_position_encoding(scope["pos_embed"], x)
    scope.capture("block_0", x)

    options: dict = dict(
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        norm=norm,
        act=act,
        layer_scale_init=layer_scale_init,
    )
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
        drop_path_rate=drop_path_rate,
        **options,
    )

    token = scope.param("cls_token", (1, 1, dim), initializers.truncated_normal(0.02))
    x = jnp.concatenate([ops.repeat_over_batch(token, x), ops.merge_axes(x, 1)], axis=1)
    x = scope["cls_attn_blocks"].repeat(class_block, x, class_depth, norm_patches=norm_patches, **options)
    if n_classes == 0:
        return norm(scope["norm"], x)
    return classifier(scope["head"], norm(scope["norm"], x[:, 0]), n_classes, drop_rate=drop_rate)


_NANO_12: dict = dict(dim=128, depth=12, num_heads=4, layer_scale_init=1.0, norm_patches=False)
_TINY_12: dict = dict(dim=192, depth=12, num_heads=4, layer_scale_init=1.0)
_TINY_24: dict = dict(dim=192, depth=24, num_heads=4)
_SMALL_12: dict = dict(dim=384, depth=12, num_heads=8, layer_scale_init=1.0)
_SMALL_24: dict = dict(dim=384, depth=24, num_heads=8)
_MEDIUM_24: dict = dict(dim=512, depth=24, num_heads=8)
_LARGE_24: dict = dict(dim=768, depth=24, num_heads=16)

VARIANTS: dict[str, dict] = {
    "xcit_nano_12_p16_224": _NANO_12,
    "xcit_nano_12_p16_384": {**_NANO_12, "input_size": 384},
    "xcit_tiny_12_p16_224": _TINY_12,
    "xcit_tiny_12_p16_384": {**_TINY_12, "input_size": 384},
    "xcit_tiny_24_p16_224": _TINY_24,
    "xcit_tiny_24_p16_384": {**_TINY_24, "input_size": 384},
    "xcit_small_12_p16_224": _SMALL_12,
    "xcit_small_12_p16_384": {**_SMALL_12, "input_size": 384},
    "xcit_small_24_p16_224": _SMALL_24,
    "xcit_small_24_p16_384": {**_SMALL_24, "input_size": 384},
    "xcit_medium_24_p16_224": _MEDIUM_24,
    "xcit_medium_24_p16_384": {**_MEDIUM_24, "input_size": 384},
    "xcit_large_24_p16_224": _LARGE_24,
    "xcit_large_24_p16_384": {**_LARGE_24, "input_size": 384},
    "xcit_nano_12_p8_224": {**_NANO_12, "patch_size": 8},
    "xcit_nano_12_p8_384": {**_NANO_12, "patch_size": 8, "input_size": 384},
    "xcit_tiny_12_p8_224": {**_TINY_12, "patch_size": 8},
    "xcit_tiny_12_p8_384": {**_TINY_12, "patch_size": 8, "input_size": 384},
    "xcit_tiny_24_p8_224": {**_TINY_24, "patch_size": 8},
    "xcit_tiny_24_p8_384": {**_TINY_24, "patch_size": 8, "input_size": 384},
    "xcit_small_12_p8_224": {**_SMALL_12, "patch_size": 8},
    "xcit_small_12_p8_384": {**_SMALL_12, "patch_size": 8, "input_size": 384},
    "xcit_small_24_p8_224": {**_SMALL_24, "patch_size": 8},
    "xcit_small_24_p8_384": {**_SMALL_24, "patch_size": 8, "input_size": 384},
    "xcit_medium_24_p8_224": {**_MEDIUM_24, "patch_size": 8},
    "xcit_medium_24_p8_384": {**_MEDIUM_24, "patch_size": 8, "input_size": 384},
    "xcit_large_24_p8_224": {**_LARGE_24, "patch_size": 8},
    "xcit_large_24_p8_384": {**_LARGE_24, "patch_size": 8, "input_size": 384},
}


def _split_qkv(tensors: dict[str, Any]) -> dict[str, Any]:
    """The authors compute queries, keys and values of class attention in one layer, timm in three."""
    for name in [name for name in tensors if name.startswith("cls_attn_blocks.") and ".qkv." in name]:
        for letter, part in zip("qkv", np.split(np.asarray(tensors.pop(name)), 3)):
            tensors[name.replace(".qkv.", f".{letter}.")] = part
    return tensors


FAMILY = Family(
    xcit,
    "head",
    VARIANTS,
    timm=Timm(
        ("xcit",),
        {
            "cls_attn_layers": ("class_depth", None),
            "depth": ("depth", None),
            "embed_dim": ("dim", None),
            "eta": ("layer_scale_init", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "qkv_bias": ("qkv_bias", None),
            "tokens_norm": ("norm_patches", None),
        },
        fixed_input_size=True,
    ),
    older_names=(
        OlderNames(r"^cls_attn_blocks\.0\.attn\.qkv\.weight$", ((r"^pos_embeder\.", "pos_embed."),), _split_qkv),
    ),
    tiny=(
        "xcit_tiny_12_p8_224",
        {"input_size": 32, "dim": 16, "depth": 2, "num_heads": 2, "class_depth": 1},
    ),
)
