"""Vision Transformers: ViT, DeiT and DeiT III, CLIP, SigLIP, DINO, EVA, BEiT-3, AIMv2, RADIO, TIPS, InternViT.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021). Touvron et al., "Training Data-Efficient Image Transformers"
(2021): the distillation token; "DeiT III" (2022); "Three Things Everyone Should Know about Vision Transformers" (2022):
parallel branches. Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters" (2023): attention and MLP
side by side. Zhai et al., "Scaling Vision Transformers" (2022): attention pooling. Darcet et al., "Vision Transformers
Need Registers" (2023). Ye et al., "Differential Transformer" (2024). Radford et al., "CLIP" (2021); Zhai et al.,
"SigLIP" (2023); Oquab et al., "DINOv2" (2023); Fini et al., "AIMv2" (2024); Wang et al., "BEiT-3" (2022). The reference
implementation is timm's `vision_transformer.py` and `deit.py`. We leave out dropped patches and attention dropout.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    attend,
    attention,
    attention_pool,
    classifier,
    differential_attention,
    differential_heads,
    drop_path,
    dropout,
    gelu,
    gelu_tanh,
    glu,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    mlp,
    ops,
    packed_glu,
    patch_embed,
    position_embedding,
    quick_gelu,
    relu,  # noqa: F401 -- one of the activations that a checkpoint may ask for
    rms_norm,
)
from flaim_core.checks import check_heads, require_fixed

silu = jax.nn.silu

Rate = float | Float[Array, ""]
Tokens = Float[Array, "b n c"]


def _branch(scope: Scope, number: str, y: Tokens, layer_scale_init: float | None, rate: Rate) -> Tokens:
    """The end of residual branch `number`: layer scale, where there is one, and stochastic depth."""
    if layer_scale_init is not None:
        y = layer_scale(scope[f"ls{number}"], y, init_value=layer_scale_init)
    return drop_path(scope[f"drop_path{number}"], y, rate)


@kernel
def encoder_block(
    scope: Scope,
    x: Tokens,
    *,
    attn_options: Mapping[str, Any],
    mlp_options: Mapping[str, Any],
    attn: Callable = attention,
    mlp: Callable = mlp,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
    **attn_schedule: Rate,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises first.

    `attn` and `mlp` are kernels, called with their options; what differs from block to block goes to `attn` too.
    """
    y = attn(scope["attn"], norm(scope["norm1"], x), **attn_options, **attn_schedule)
    x = x + _branch(scope, "1", y, layer_scale_init, drop_path_rate)
    y = mlp(scope["mlp"], norm(scope["norm2"], x), **mlp_options)
    return x + _branch(scope, "2", y, layer_scale_init, drop_path_rate)


@kernel
def res_post_block(
    scope: Scope,
    x: Tokens,
    *,
    attn_options: Mapping[str, Any],
    mlp_options: Mapping[str, Any],
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises last; the norm's scale is the layer scale."""
    scale_init = initializers.ones if layer_scale_init is None else initializers.constant(layer_scale_init)
    y = norm(scope["norm1"], attention(scope["attn"], x, **attn_options), scale_init=scale_init)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    y = norm(scope["norm2"], mlp(scope["mlp"], x, **mlp_options), scale_init=scale_init)
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def parallel_things_block(
    scope: Scope,
    x: Tokens,
    *,
    attn_options: Mapping[str, Any],
    mlp_options: Mapping[str, Any],
    num_parallel: int = 2,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Several attentions side by side, then as many MLPs. Touvron et al., "Three Things" (2022), section 3."""
    for names, branch, options in (("attns", "attn"), attention, attn_options), (("ffns", "mlp"), mlp, mlp_options):
        total = x
        for i in range(num_parallel):
            node = scope[names[0]][i]
            y = branch(node[names[1]], norm(node["norm"], x), **options)
            total = total + _branch(node, "", y, layer_scale_init, drop_path_rate)
        x = total
    return x


def _merged_input(scope: Scope, x: Tokens, norm: Callable, attn_options: Mapping, mlp_options: Mapping) -> list[Array]:
    """The MLP's hidden layer, queries, keys and values from one norm and one linear layer."""
    if attn_options["norm"] is not None:
        raise ValueError("blocks that merge attention and MLP have no place for sub_norm: leave it out")
    dim, hidden, qkv_bias = x.shape[-1], mlp_options["hidden"], attn_options["qkv_bias"]
    y = linear(scope["in_proj"], norm(scope["in_norm"], x), hidden + 3 * dim, bias=qkv_bias)
    h, *qkv = jnp.split(y, (hidden, hidden + dim, hidden + 2 * dim), axis=-1)
    if not qkv_bias:
        h = h + ops.per_channel(scope.param("mlp_bias", (hidden,), initializers.zeros), h)
    return [h, *qkv]


@kernel
def parallel_scaling_block(
    scope: Scope,
    x: Tokens,
    *,
    attn_options: Mapping[str, Any],
    mlp_options: Mapping[str, Any],
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Attention and MLP side by side, their first layers merged. Dehghani et al., "ViT-22B" (2023), section 2."""
    num_heads, qk_norm, bias = (attn_options[name] for name in ("num_heads", "qk_norm", "proj_bias"))
    h, *qkv = _merged_input(scope, x, norm, attn_options, mlp_options)
    query, key, value = (y.reshape(*y.shape[:-1], num_heads, y.shape[-1] // num_heads) for y in qkv)
    if qk_norm is not None:
        query, key = qk_norm(scope["q_norm"], query), qk_norm(scope["k_norm"], key)
    y = attend(scope["attn"], query, key, value).reshape(x.shape)
    y = linear(scope["attn_out_proj"], y, x.shape[-1], bias=bias)
    h = dropout(scope["mlp_drop"], mlp_options["act"](h), mlp_options["drop_rate"])
    y = y + linear(scope["mlp_out_proj"], h, x.shape[-1], bias=bias)
    return x + _branch(scope, "", y, layer_scale_init, drop_path_rate)


@kernel
def diff_parallel_scaling_block(
    scope: Scope,
    x: Tokens,
    *,
    attn_options: Mapping[str, Any],
    mlp_options: Mapping[str, Any],
    lambda_init: Rate,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Differential attention and MLP side by side, their first layers merged, and their last."""
    h, query, key, value = _merged_input(scope, x, norm, attn_options, mlp_options)
    heads = {name: attn_options[name] for name in ("num_heads", "qk_norm")}
    y = differential_heads(scope, query, key, value, lambda_init=lambda_init, captured=scope["attn"], **heads)
    h = dropout(scope["mlp_drop"], mlp_options["act"](h), mlp_options["drop_rate"])
    y = linear(scope["out_proj"], jnp.concatenate([y, h], axis=-1), x.shape[-1], bias=attn_options["proj_bias"])
    return x + _branch(scope, "", y, layer_scale_init, drop_path_rate)


def differential_schedule(index: int) -> float:
    """`lambda_init` of differential attention in block `index`, counted from 0."""
    return 0.8 - 0.6 * math.exp(-0.3 * index)


def class_token_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """The class token."""
    return x[:, 0]


def average_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """The mean of all tokens but the first `num_prefix`."""
    return jnp.mean(x[:, num_prefix:], axis=1)


def class_and_average_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c2"]:
    """The class token, then the mean of all tokens but the first `num_prefix`."""
    return jnp.concatenate([x[:, 0], jnp.mean(x[:, num_prefix:], axis=1)], axis=-1)


def map_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """Attention pooling of all tokens but the first `num_prefix`."""
    return attention_pool(scope["attn_pool"], x[:, num_prefix:], **options)


@kernel
def vit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    num_heads: int,
    patch_size: int | tuple[int, int] = 16,
    mlp_ratio: float = 4.0,
    block: Callable = encoder_block,
    norm: Callable = layer_norm,
    embed_norm: Callable | None = None,
    qk_norm: Callable | None = None,
    sub_norm: Callable | None = None,
    act: Callable = gelu,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    layer_scale_init: float | None = None,
    lambda_init: Callable[[int], float] | None = None,
    class_token: bool = True,
    distilled: bool = False,
    num_registers: int = 0,
    embed_prefix: bool = True,
    drop_remainder: bool = False,
    pre_norm: bool = False,
    final_norm: bool = True,
    fc_norm: bool | None = None,
    pool: Callable = class_token_pool,
    pool_prefix: bool = False,
    pooler: int | None = None,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Stack of equal transformer blocks on patches and prefix tokens: class, distillation and register tokens.

    Args:
        n_classes: Positive: logits; -1: pooled features; 0: all tokens, prefix tokens first.
        block: Kernel `(scope, x, *, attn_options, mlp_options, norm, layer_scale_init, drop_path_rate)`.
        embed_norm, qk_norm, sub_norm: Norms, where given, of embedded patches, of each head's queries and keys, and
            before the last linear layer of both attention and MLP.
        layer_scale_init: Initial layer scale; None for none.
        lambda_init: Of differential attention, as a function of the block's index; None for other attention.
        distilled: A distillation token with a classifier of its own, `head_dist`; logits are the mean of the two.
        embed_prefix: Prefix tokens have position embeddings too.
        drop_remainder: An image may be larger than a whole number of patches.
        pre_norm: Normalise the tokens before the first block; patches are then embedded without a bias.
        fc_norm: The last norm follows the pooling in the place of preceding it; None where `pool` is `average_pool`.
        pool: Function `(scope, x, num_prefix, *, num_heads, hidden, norm, act)`; with `pool_prefix`, of all tokens.
        pooler: Width of a linear layer with a tanh (path `pooler`) after the pooling; None for none.
        drop_rate, pos_drop_rate, proj_drop_rate: Dropout before the head, after the position embedding, and in blocks.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    if not class_token and (distilled or pool is class_token_pool):
        raise ValueError("a model with class_token=False pools all tokens: give pool=average_pool or map_pool")
    check_heads(scope["blocks"], dim, num_heads)
    embed = dict(patch_size=patch_size, bias=not pre_norm, norm=embed_norm, drop_remainder=drop_remainder)
    x = patch_embed(scope["patch_embed"], x, dim, **embed)
    require_fixed(scope, "pos_embed", x.shape[1:3])
    x = x.reshape(x.shape[0], -1, dim)

    near_zero, normal = initializers.normal(1e-6), initializers.truncated_normal(0.02)
    prefix = [scope.param("cls_token", (1, 1, dim), near_zero)] if class_token else []
    prefix += [scope.param("dist_token", (1, 1, dim), normal)] if distilled else []
    prefix += [scope.param("reg_token", (1, num_registers, dim), near_zero)] if num_registers else []
    num_prefix = sum(token.shape[1] for token in prefix)
    prefix = [ops.repeat_over_batch(token, x) for token in prefix]
    if embed_prefix:
        x = position_embedding(scope, jnp.concatenate([*prefix, x], axis=1))
    else:
        x = jnp.concatenate([*prefix, position_embedding(scope, x)], axis=1)
    x = dropout(scope["pos_drop"], x, pos_drop_rate)
    if pre_norm:
        x = norm(scope["norm_pre"], x)
    scope.capture("block_0", x)

    hidden = int(dim * mlp_ratio)
    inner = dict(norm=sub_norm, drop_rate=proj_drop_rate)
    each = {"drop_path_rate": [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]} if drop_path_rate else {}
    each |= {"lambda_init": [lambda_init(i) for i in range(depth)]} if lambda_init else {}
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        each=each,
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
        attn_options=dict(num_heads=num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias, qk_norm=qk_norm, **inner),
        mlp_options=dict(hidden=hidden, act=act, bias=proj_bias, **inner),
        norm=norm,
        layer_scale_init=layer_scale_init,
    )

    fc_norm = pool is average_pool if fc_norm is None else fc_norm
    if final_norm and not fc_norm:
        x = norm(scope["norm"], x)
    if n_classes == 0:
        return x
    if distilled:
        first = classifier(scope["head"], x[:, 0], n_classes, drop_rate=drop_rate)
        return (first + classifier(scope["head_dist"], x[:, 1], n_classes, drop_rate=drop_rate)) / 2
    x = pool(scope, x, 0 if pool_prefix else num_prefix, num_heads=num_heads, hidden=hidden, norm=norm, act=act)
    if final_norm and fc_norm:
        x = norm(scope["fc_norm"], x)
    if pooler is not None:
        x = jnp.tanh(linear(scope["pooler"], x, pooler))
    return classifier(scope["head"], x, n_classes, drop_rate=drop_rate)


# Width, depth, heads and, where it is not 4, the MLP's width as a multiple of the first.
_SIZES: dict[str, tuple] = {
    "test_vit": (64, 6, 2, 3.0),
    "test_vit2": (64, 8, 2, 3.0),
    "test_vit3": (96, 9, 3, 2.0),
    "test_vit4": (96, 9, 3, 3.0),
    "tiny": (192, 12, 3),
    "xsmall": (256, 10, 4),
    "wee": (256, 14, 4, 5.0),
    "pwee": (256, 16, 4, 5.0),
    "dwee": (256, 14, 4, 5.0),
    "dpwee": (256, 16, 4, 5.0),
    "dlittle": (320, 14, 5, 5.6),
    "little": (320, 14, 5, 5.6),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "mediumd": (512, 20, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "plus": (896, 12, 14),
    "so150m": (896, 18, 14, 2.572),
    "so150m2": (832, 21, 13, 34 / 13),
    "large": (1024, 24, 16),
    "so400m": (1152, 27, 16, 3.7362),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16, 48 / 11),
    "giantopt": (1536, 40, 16),
    "gigantic": (1664, 48, 16, 64 / 13),
    "giant_24": (1536, 40, 24),
    "aimv2_large": (1024, 24, 8, 2.75),
    "aimv2_huge": (1536, 24, 12, 2.6667),
    "aimv2_1b": (2048, 24, 16, 2.75),
    "aimv2_3b": (3072, 24, 24, 2.6667),
}
# What a name tells after "_patch".
_IN_NAMES = {"patch_size": r"^\d+", "num_registers": r"(?<=_reg)\d", "input_size": r"\d{3}$"}


def _variants(names: str, *parts: Mapping[str, Any], **config) -> dict[str, dict]:
    """Configurations of `names`, which tell the size, patches, registers and image; `parts` and `config` the rest.

    Names that differ in the last number alone are written as one, with slashes: "vit_tiny_patch16_224/384".
    """
    for part in reversed(parts):
        config = {**part, **config}
    size = config.pop("size", None)
    variants = {}
    for group in names.split():
        first, *others = group.split("/")
        for name in (first, *(re.sub(r"\d+$", other, first) for other in others)):
            stem, _, rest = name.partition("_patch")
            sizes = _SIZES[size or (stem if stem in _SIZES else stem.split("_")[1])]
            variants[name] = dict(zip(("dim", "depth", "num_heads", "mlp_ratio"), sizes))
            numbers = {option: re.search(pattern, rest) for option, pattern in _IN_NAMES.items()}
            variants[name] |= {option: int(found[0]) for option, found in numbers.items() if found} | config
    return variants


_norm_1e5 = partial(layer_norm, eps=1e-5)
_rms_norm_1e5 = partial(rms_norm, eps=1e-5)
_glu_block = partial(encoder_block, mlp=glu)
_packed_glu_block = partial(encoder_block, mlp=packed_glu)
_diff_block = partial(encoder_block, attn=differential_attention)

_HEADLESS: dict = dict(n_classes=-1)
_PATCHES: dict = dict(embed_prefix=False)
_SCALE: dict = dict(layer_scale_init=1e-5)
_SCALE_1E6: dict = dict(layer_scale_init=1e-6)
_NO_QKV_BIAS: dict = dict(qkv_bias=False)
_GAP: dict = dict(class_token=False, pool=average_pool)
_NORM_GAP: dict = dict(**_GAP, fc_norm=False)
_MAP: dict = dict(class_token=False, pool=map_pool)
_REG_GAP: dict = dict(**_GAP, **_SCALE, **_PATCHES)
_DIFF: dict = dict(**_REG_GAP, block=_diff_block, lambda_init=differential_schedule)
_XP: dict = dict(**_PATCHES, block=parallel_scaling_block, pre_norm=True, norm=rms_norm, qk_norm=rms_norm)
_CLIP: dict = dict(pre_norm=True, norm=_norm_1e5)
_QUICK: dict = dict(**_CLIP, act=quick_gelu)
_TANH: dict = dict(act=gelu_tanh)
_BEIT3: dict = dict(pool=average_pool, norm=_norm_1e5, sub_norm=_norm_1e5)
_DINO: dict = dict(**_SCALE, **_HEADLESS, input_size=518)
_TIPS: dict = dict(**_PATCHES, **_HEADLESS, layer_scale_init=1.0, input_size=448)
_GLU: dict = dict(size="giant_24", block=_packed_glu_block, act=silu, mlp_ratio=5.33334)
_RADIO: dict = dict(**_PATCHES, **_HEADLESS, num_registers=7, final_norm=False, input_size=512)
_RMS: dict = dict(norm=_rms_norm_1e5, embed_norm=_rms_norm_1e5)
_AIM: dict = dict(**_NORM_GAP, **_HEADLESS, **_RMS, block=_glu_block, act=silu, qkv_bias=False, proj_bias=False)
_TEST: dict = dict(input_size=160, num_registers=1, **_SCALE)

VARIANTS: dict[str, dict] = {
    **_variants("vit_tiny_patch16_224/384 vit_small_patch16_224/384 vit_small_patch32_224/384 vit_base_patch8_224"),
    **_variants("vit_base_patch16_224/384 vit_base_patch32_224/384 vit_large_patch14_224 vit_large_patch16_224/384"),
    **_variants("vit_large_patch32_384 vit_giant_patch14_224 vit_gigantic_patch14_224"),
    **_variants("vit_small_patch8_224 vit_large_patch32_224 vit_huge_patch14_224", _HEADLESS),
    **_variants("vit_base_patch16_224_miil", _NO_QKV_BIAS, n_classes=11221),
    **_variants("vit_base_patch16_plus_240 vit_base_patch32_plus_256", _SCALE, size="plus"),
    **_variants("vit_small_patch16_36x1_224", _SCALE, depth=36),
    **_variants("vit_small_patch16_18x2_224 vit_base_patch16_18x2_224", _SCALE, depth=18, block=parallel_things_block),
    **_variants("vit_base_patch16_xp_224 vit_large_patch14_xp_224 vit_huge_patch14_xp_224", _XP, _NO_QKV_BIAS),
    **_variants("vit_base_patch16_rpn_224", _GAP, _SCALE, _NO_QKV_BIAS, block=res_post_block),
    **_variants("flexivit_small flexivit_base flexivit_large", _PATCHES, input_size=240),
    **_variants("eva_large_patch14_196/336", pool=average_pool),
    **_variants("beit3_base_patch16_224 beit3_large_patch16_224 beit3_giant_patch14_224/336", _BEIT3),
    # DeiT and DeiT III
    **_variants("deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224/384"),
    **_variants("deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224", distilled=True),
    **_variants("deit_base_distilled_patch16_224/384", distilled=True),
    **_variants("deit3_small_patch16_224/384 deit3_medium_patch16_224 deit3_huge_patch14_224", _PATCHES, _SCALE_1E6),
    **_variants("deit3_base_patch16_224/384 deit3_large_patch16_224/384", _PATCHES, _SCALE_1E6),
    # Average pooling and registers
    **_variants("vit_base_patch16_gap_224", _NORM_GAP, num_heads=16),
    **_variants("vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_giant_patch16_gap_224", _NORM_GAP, _HEADLESS),
    **_variants("vit_medium_patch16_gap_240", _NORM_GAP, _SCALE_1E6, _NO_QKV_BIAS, n_classes=11821),
    **_variants("vit_medium_patch16_gap_256/384 vit_betwixt_patch16_gap_256", _NORM_GAP, _SCALE_1E6, _NO_QKV_BIAS),
    **_variants("vit_base_patch16_reg4_gap_256", _GAP, _PATCHES),
    **_variants("vit_wee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256", _REG_GAP),
    **_variants("vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg1_gap_256", _REG_GAP),
    **_variants("vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256/384", _REG_GAP),
    **_variants("vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256/384", _REG_GAP),
    **_variants("vit_pwee_patch16_reg1_gap_256", _REG_GAP, block=parallel_scaling_block),
    **_variants("vit_dpwee_patch16_reg1_gap_256", _DIFF, block=diff_parallel_scaling_block),
    **_variants("vit_dwee_patch16_reg1_gap_256 vit_dlittle_patch16_reg1_gap_256", _DIFF),
    **_variants("vit_so150m_patch16_reg4_gap_256/384", _NORM_GAP),
    **_variants("vit_so150m_patch16_reg4_map_256", _MAP),
    **_variants("vit_so150m2_patch16_reg1_gap_256/384/448", _GAP, _SCALE, _NO_QKV_BIAS),
    # CLIP
    **_variants("vit_base_patch32_clip_224/384/448 vit_base_patch16_clip_224/384", _CLIP),
    **_variants("vit_large_patch14_clip_224/336 vit_huge_patch14_clip_224/336", _CLIP),
    **_variants("vit_xsmall_patch16_clip_224 vit_medium_patch16_clip_224", _CLIP, n_classes=512),
    **_variants("vit_medium_patch32_clip_224 vit_betwixt_patch32_clip_224", _CLIP, n_classes=512),
    **_variants("vit_base_patch32_clip_256", _CLIP, n_classes=512),
    **_variants("vit_base_patch16_plus_clip_240", _CLIP, size="plus", n_classes=640),
    **_variants("vit_huge_patch14_clip_378 vit_giant_patch14_clip_224", _CLIP, n_classes=1024),
    **_variants("vit_gigantic_patch14_clip_224/378", _CLIP, n_classes=1280),
    **_variants("vit_base_patch32_clip_quickgelu_224 vit_base_patch16_clip_quickgelu_224", _QUICK, n_classes=512),
    **_variants("vit_large_patch14_clip_quickgelu_224/336", _QUICK, n_classes=768),
    **_variants("vit_huge_patch14_clip_quickgelu_224/378", _QUICK, n_classes=1024),
    **_variants("vit_gigantic_patch14_clip_quickgelu_224", _QUICK, n_classes=1280),
    # SigLIP
    **_variants("vit_base_patch16_siglip_224/256/384/512 vit_large_patch16_siglip_256/384", _MAP, _HEADLESS),
    **_variants("vit_base_patch32_siglip_256 vit_large_patch16_siglip_512", _MAP, _TANH, _HEADLESS),
    **_variants("vit_so400m_patch16_siglip_256/384/512 vit_giantopt_patch16_siglip_256/384", _MAP, _TANH, _HEADLESS),
    **_variants("vit_so400m_patch14_siglip_224/378", _MAP, _HEADLESS),
    **_variants("vit_so400m_patch14_siglip_384", _MAP, _HEADLESS, drop_remainder=True),
    **_variants("vit_base_patch16_siglip_gap_224/256/384/512", _NORM_GAP, _HEADLESS),
    **_variants("vit_large_patch16_siglip_gap_256/384", _NORM_GAP, _HEADLESS),
    **_variants("vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512", _NORM_GAP, _TANH, _HEADLESS),
    **_variants("vit_so400m_patch16_siglip_gap_256/384/512", _NORM_GAP, _TANH, _HEADLESS),
    **_variants("vit_giantopt_patch16_siglip_gap_256/384", _NORM_GAP, _TANH, _HEADLESS),
    **_variants("vit_so400m_patch14_siglip_gap_224/378/448/896", _NORM_GAP, _HEADLESS),
    **_variants("vit_so400m_patch14_siglip_gap_384", _NORM_GAP, _HEADLESS, drop_remainder=True),
    # DINOv2, TIPS, RADIO, AIMv2, InternViT
    **_variants("vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2", _DINO),
    **_variants("vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2", _DINO, _PATCHES),
    **_variants("vit_large_patch14_reg4_dinov2", _DINO, _PATCHES),
    **_variants("vit_giant_patch14_dinov2", _DINO, _GLU),
    **_variants("vit_giant_patch14_reg4_dinov2", _DINO, _PATCHES, _GLU),
    **_variants("vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2 vit_so400m_patch14_reg1_tipsv2", _TIPS),
    **_variants("vit_giant_patch14_reg1_tipsv2", _TIPS, _GLU),
    **_variants("vit_base_patch16_radio_v3 vit_large_patch16_radio_v3", _RADIO, _SCALE),
    **_variants("vit_huge_patch16_radio_v3", _RADIO),
    **_variants("vit_giant_patch16_radio_v3", _RADIO, size="giant_24"),
    **_variants("vit_so400m_patch16_radio_v4 vit_huge_patch16_radio_v4", _RADIO, num_registers=9),
    **_variants("aimv2_large_patch14_224/336/448 aimv2_huge_patch14_224/336/448", _AIM),
    **_variants("aimv2_1b_patch14_224/336/448 aimv2_3b_patch14_224/336/448", _AIM),
    **_variants("vit_intern300m_patch14_448", _HEADLESS, size="large", layer_scale_init=0.1, final_norm=False),
    # Small ones for tests
    **_variants("test_vit", input_size=160),
    **_variants("test_vit2", _GAP, _TEST),
    **_variants("test_vit3", _MAP, _TEST, pool_prefix=True),
    **_variants("test_vit4", _GAP, _TEST, norm=rms_norm),
}


def _add_head_bias(tensors: dict[str, Any]) -> dict[str, Any]:
    """CLIP's projection has no bias, timm's classifier in its place has one: zero."""
    if (weight := tensors.get("head.weight")) is not None:
        tensors.setdefault("head.bias", np.zeros(weight.shape[0], weight.dtype))
    return tensors


def _finish_openai_clip(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["cls_token"] = tensors["cls_token"][None, None]
    tensors["pos_embed"] = tensors["pos_embed"][None]
    if "head.weight" in tensors:
        tensors["head.weight"] = tensors["head.weight"].T
    return _add_head_bias(tensors)


def _finish_dinov2(tensors: dict[str, Any]) -> dict[str, Any]:
    """With registers, timm adds the class token's position embedding to the token itself."""
    if "reg_token" in tensors:
        position = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    return tensors


OLDER_NAMES = (
    OlderNames(  # OpenAI's CLIP, and OpenCLIP's own tower
        r"^visual\.class_embedding$",
        (
            (r"^(?!visual\.)", None),
            (r"^visual\.", ""),
            (r"^conv1\.", "patch_embed.proj."),
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.in_proj_", ".qkv."),
            (r"\.out_proj\.", ".proj."),
            (r"\.c_fc\.", ".fc1."),
            (r"\.c_proj\.", ".fc2."),
            (r"^proj$", "head.weight"),
        ),
        _finish_openai_clip,
    ),
    OlderNames(  # OpenCLIP around timm's tower
        r"^visual\.trunk\.",
        (
            (r"^(?!visual\.)", None),
            (r"^visual\.trunk\.", ""),
            (r"^visual\.head\.proj\.", "head."),
        ),
        _add_head_bias,
    ),
    OlderNames(  # DINOv2
        r"^mask_token$",
        (
            (r"^mask_token$", None),
            (r"^register_tokens$", "reg_token"),
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        _finish_dinov2,
    ),
    OlderNames(r"\.gamma_1$", ((r"\.gamma_(\d)$", r".ls\1.gamma"),)),  # DeiT III
    OlderNames(r"^pre_logits\.", ((r"^pre_logits\.", None),)),  # a representation layer that timm has given up
)


def _unused(architecture: str, name: str) -> bool:
    """SigLIP towers that average their tokens come with the attention pooling that they were trained with.

    A model may also be wanted without the pooler that its checkpoint has.
    """
    return name.startswith("pooler.") or ("siglip" in architecture and name.startswith("attn_pool."))


def _interpolation(architecture: str) -> str:
    """How timm resamples the position embeddings; see `resample_position_embedding`."""
    if re.search(r"(base|huge)_patch16_radio_v3", architecture):
        return "bilinear_aligned"
    return "bilinear" if "flexi" in architecture or "radio" in architecture else "bicubic"


FAMILY = Family(
    vit,
    "head",
    VARIANTS,
    choices={
        "average_pool": average_pool,
        "class_and_average_pool": class_and_average_pool,
        "class_token_pool": class_token_pool,
        "diff_parallel_scaling_block": diff_parallel_scaling_block,
        "differential_schedule": differential_schedule,
        "encoder_block": encoder_block,
        "map_pool": map_pool,
        "parallel_scaling_block": parallel_scaling_block,
        "parallel_things_block": parallel_things_block,
        "res_post_block": res_post_block,
    },
    timm=Timm(
        ("vision_transformer", "deit"),
        {
            "class_token": ("class_token", None),
            "depth": ("depth", None),
            "embed_dim": ("dim", None),
            "fc_norm": ("fc_norm", None),
            "final_norm": ("final_norm", None),
            "global_pool": (
                "pool",
                {
                    "avg": {"function": "average_pool"},
                    "map": {"function": "map_pool"},
                    "token": {"function": "class_token_pool"},
                },
            ),
            "init_values": ("layer_scale_init", None),
            "mlp_ratio": ("mlp_ratio", None),
            "no_embed_class": ("embed_prefix", {True: False, False: True}),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "pool_include_prefix": ("pool_prefix", None),
            "pre_norm": ("pre_norm", None),
            "proj_bias": ("proj_bias", None),
            "qkv_bias": ("qkv_bias", None),
            "reg_tokens": ("num_registers", None),
        },
        fixed_input_size=True,
        unused=_unused,
        interpolation=_interpolation,
    ),
    older_names=OLDER_NAMES,
    tiny=("test_vit", {"input_size": 32}),
)
