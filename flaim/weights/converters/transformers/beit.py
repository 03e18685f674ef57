"""BEiT and data2vec-vision, one graph under two names."""

from dataclasses import replace

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BICUBIC, INCEPTION, HFConfig, Json, ModelType
from flaim.weights.converters.transformers._names import QKV, join_keyless
from flaim.weights.converters.transformers.vit import BASE, TRANSFORMER, transformer
from flaim.weights.info import size_of


def beit(c: HFConfig) -> Json:
    """BEiT and data2vec-vision; of a model that predicts masked patches, what comes before its last layer."""
    options = transformer(c)
    height, width = size_of(c["image_size"])
    remainder = options.pop("drop_remainder")
    # transformers takes the positions in a rectangle for those in a square.
    c.require("image_size", height == width and not remainder)
    scale, average_pool = c["layer_scale_init_value"], c["use_mean_pooling"]
    if "lm_head.weight" in c.tensors:  # it has a last norm of its own, for all tokens
        c.require("use_mean_pooling", average_pool)
        average_pool = False
    return options | {"layer_scale_init": scale if scale > 0 else None, "average_pool": average_pool}


# fmt: off
_BEIT = ModelType(
    "beit",
    r"^beit(v2)?_(base|large)_patch16_\d+$",
    {
        **BASE, "layer_norm_eps": 1e-12, "layer_scale_init_value": 0.1, "drop_path_rate": 0.1,
        "use_absolute_position_embeddings": False, "use_relative_position_bias": False,
        "use_shared_relative_position_bias": False, "use_mean_pooling": True,
    },
    same={
        **TRANSFORMER,
        "absolute_positions": "use_absolute_position_embeddings",
        "relative_positions": "use_relative_position_bias",
        "shared_relative_positions": "use_shared_relative_position_bias",
    },
    more=beit,
    processor={**INCEPTION, **BICUBIC, "square": True},
)
# fmt: on

MODEL_TYPES = {
    "beit": _BEIT,
    "data2vec-vision": replace(_BEIT, defaults={**_BEIT.defaults, "drop_path_rate": 0.0}),
}

_BEIT_NAMES = OlderNames(
    r"^embeddings\.patch_embeddings\.projection\.",
    (
        (r"^embeddings\.mask_token$|^lm_head\.", None),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(?:encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
        (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
        (r"(?:\.attention\.attention)?\.relative_position_bias\.", ".attn."),
        *QKV,
        (r"\.lambda_(\d)$", r".gamma_\1"),
        (r"^pooler\.layernorm\.", "fc_norm."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ),
    join_keyless,
)

NAMES = {"beit": lambda info: (_BEIT_NAMES,)}
