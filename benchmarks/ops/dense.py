"""Which operand of a dense layer's kernel gradient goes first, the narrow or the wide one?

On a CPU, XLA transposes the first operand. `python -m benchmarks.ops.dense`
"""

from benchmarks.ops._turns import array, milliseconds, show
from flaim_core.ops._dense import _product_over_rows

# rows, width of the layer's input, width of its output
CASES = [(25088, 96, 384), (25088, 384, 96), (1568, 384, 1536), (1568, 1536, 384), (25088, 64, 256)]


def narrow_first(x, y):
    """What `flaim_core.ops.dense` does."""
    return _product_over_rows(x, y) if x.shape[1] <= y.shape[1] else _product_over_rows(y, x).T


if __name__ == "__main__":
    rows = {}
    for case in CASES:
        n, width, features = case
        ways = {"as it comes": _product_over_rows, "narrow first": narrow_first}
        rows[f"{n} rows, {width} to {features}"] = milliseconds(ways, array(n, width), array(n, features, seed=1))
    show("Kernel gradient of a dense layer", rows)
