"""Window and grid partitions."""

import numpy as np
import pytest

from flaim_core import ops
from tests.numerics import normal


def test_partitions_reverse_and_differ():
    x = normal(2, 8, 12, 3)
    windows, grids = ops.window_partition(x, (4, 6)), ops.grid_partition(x, (4, 6))
    assert windows.shape == grids.shape == (2, 4, 24, 3)
    np.testing.assert_array_equal(ops.window_reverse(windows, (4, 6), (8, 12)), x)
    np.testing.assert_array_equal(ops.grid_reverse(grids, (4, 6), (8, 12)), x)
    np.testing.assert_array_equal(windows[:, 0], x[:, :4, :6].reshape(2, 24, 3))
    np.testing.assert_array_equal(grids[:, 0], x[:, ::2, ::2].reshape(2, 24, 3))
    with pytest.raises(ValueError, match="8x12 does not divide into windows of 3x6"):
        ops.window_partition(x, (3, 6))
