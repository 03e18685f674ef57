"""Keras' NASNets."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table

# Keras' names of a cell's separable convolutions in the order of `model.layers`, grouped by their place in it.
_SEPARABLE = {
    "normal": (("left1", "right1", "left2", "right2", "left5"),),
    "reduction": (("left1", "right1"), ("right2",), ("right3", "left4")),
}
_BRANCHES = {
    "normal_left1": "comb_iter_0_left",
    "normal_right1": "comb_iter_0_right",
    "normal_left2": "comb_iter_1_left",
    "normal_right2": "comb_iter_1_right",
    "normal_left5": "comb_iter_4_left",
    "reduction_left1": "comb_iter_0_left",
    "reduction_right1": "comb_iter_0_right",
    "reduction_right2": "comb_iter_1_right",
    "reduction_right3": "comb_iter_2_right",
    "reduction_left4": "comb_iter_4_left",
}


def _separable(cell: str, branches: tuple[str, ...], i: int, block: str, path: str) -> Iterator[tuple[str, str]]:
    """The `i`-th separable convolutions of these branches, then their norms."""
    for infix, layer in (("", f"separable_{i}"), ("bn_", f"bn_sep_{i}")):
        for branch in branches:
            name = f"{cell}_{branch}"
            yield f"separable_conv_{i}_{infix}{name}_{block}", f"{path}/{_BRANCHES[name]}/{layer}"


def _cell(cell: str, block: str, path: str, previous: str) -> Iterator[tuple[str, str]]:
    """The layers of a cell; `previous` is the layer for the output of the cell before last: "", "reduce", "project"."""
    own = [(f"{cell}_conv_1_{block}", f"{path}/conv_1x1/conv"), (f"{cell}_bn_1_{block}", f"{path}/conv_1x1/bn")]
    if previous == "":
        yield from own
    elif previous == "reduce":
        yield from ((f"adjust_conv_{i}_{block}", f"{path}/path_{i}/conv") for i in (1, 2))
        norm = f"adjust_bn_{block}", f"{path}/final_path_bn"
        yield from (own[0], *((norm, own[1]) if cell == "normal" else (own[1], norm)))
    else:
        conv = f"adjust_conv_projection_{block}", f"{path}/conv_prev_1x1/conv"
        norm = f"adjust_bn_{block}", f"{path}/conv_prev_1x1/bn"
        yield from (conv, own[0], norm, own[1]) if cell == "normal" else (own[0], conv, own[1], norm)
    if cell == "normal":
        for i in (1, 2):
            yield from _separable(cell, _SEPARABLE[cell][0], i, block, path)
    else:
        first, second, third = _SEPARABLE[cell]
        for i in (1, 2):
            yield from _separable(cell, first, i, block, path)
        for i in (1, 2):
            yield from _separable(cell, second, i, block, path)
            yield from _separable(cell, third, i, block, path)


def _names(depth: int) -> Iterator[tuple[str, str]]:
    yield from (("stem_conv1", "conv0/conv"), ("stem_bn1", "conv0/bn"))
    yield from _cell("reduction", "stem_1", "cell_stem_0", "")
    yield from _cell("reduction", "stem_2", "cell_stem_1", "reduce")
    for stage in range(3):
        if stage > 0:
            yield from _cell("reduction", f"reduce_{stage * depth}", f"reduction_cell_{stage - 1}", "project")
        for i in range(depth):
            cell, shape = stage * depth + i, "reduce" if i == 0 else "project"
            # Keras skips a number only for the first reduction cell.
            yield from _cell("normal", f"{cell + (stage > 0)}", f"cell_{cell}", shape)
    yield "predictions", "last_linear"


TABLE = Table(
    family="nasnet",
    preprocessing="tf",
    pairs=_names,
    models={
        "nasnet_mobile": Entry("nasnetamobile", (4,)),
        "nasnet_large": Entry("nasnetalarge", (6,), {"pool": {"function": "zero_padded_max_pool"}}, 331),
    },
    kinds=((r"^separable_conv_\d_(?!bn)", "separable_conv2d"),),
    separable=("depthwise_conv2d", "pointwise_conv2d"),
)
