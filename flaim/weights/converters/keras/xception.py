"""Keras' Xception. The layers of its shortcuts have generated names."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table

# Suffixes of the shortcuts' names by the number of the block in Keras, which counts the stem as the first.
_SHORTCUTS = {2: "", 3: "_1", 4: "_2", 13: "_3"}


def _names(middle: int) -> Iterator[tuple[str, str]]:
    for i in (1, 2):
        yield from ((f"block1_conv{i}", f"conv{i}"), (f"block1_conv{i}_bn", f"bn{i}"))
    for position, block in enumerate((*range(2, 5 + middle), 13), 1):
        path, shortcut = f"block{position}", _SHORTCUTS.get(block)
        first = 0 if block == 2 else 1  # the first block does not activate its input
        for i in range(2 if shortcut is not None else 3):
            name = f"block{block}_sepconv{i + 1}"
            yield from ((name, f"{path}/rep/{first + 3 * i}"), (f"{name}_bn", f"{path}/rep/{first + 3 * i + 1}"))
        if shortcut is not None:
            yield from ((f"conv2d{shortcut}", f"{path}/skip"), (f"batch_normalization{shortcut}", f"{path}/skipbn"))
    for i in (1, 2):
        yield from ((f"block14_sepconv{i}", f"conv{i + 2}"), (f"block14_sepconv{i}_bn", f"bn{i + 2}"))
    yield "predictions", "fc"


TABLE = Table(
    family="xception",
    preprocessing="tf",
    pairs=_names,
    models={"xception": Entry("legacy_xception", (8,), {"padding": "same", "norm_eps": 1e-3}, 299)},
    kinds=((r"_sepconv\d$", "separable_conv2d"),),
)
