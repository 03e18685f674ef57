"""Rotary position embedding against timm's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaim_core import ops
from tests import oracle
from tests.numerics import normal, relative_error

timm_rope = oracle.timm.layers.pos_embed_sincos

GRID, WIDTH = (5, 7), 16
PERMUTED = [*range(0, WIDTH, 2), *range(1, WIDTH, 2)]  # the first channels of all pairs, then the second ones


def tables(angles) -> np.ndarray:
    """Sines and cosines, side by side."""
    return np.concatenate(ops.rotation(angles), axis=-1)


AXIAL = (
    ({}, {}),
    ({"temperature": 100.0, "columns_first": True}, {"temperature": 100.0, "grid_indexing": "xy"}),
    ({"reference": (16, 14)}, {"ref_feat_shape": (16, 14)}),
    (
        {"reference": (24, 16), "offset": 1.0, "columns_first": True},
        {"ref_feat_shape": (24, 16), "grid_offset": 1.0, "grid_indexing": "xy"},
    ),
)


@pytest.mark.parametrize("options, arguments", AXIAL)
def test_axial_angles_are_timms(options, arguments):
    module = timm_rope.RotaryEmbeddingCat(WIDTH, in_pixels=False, feat_shape=list(GRID), rotate_half=True, **arguments)
    sin, cos = (half[:, : WIDTH // 2] for half in module.get_embed().chunk(2, -1))
    expected = torch.cat([sin, cos], -1)[:, None]
    assert relative_error(tables(ops.axial_angles(GRID, WIDTH, **options)), expected) < 1e-6


def test_centred_angles_are_timms():
    sin, cos = (half[:, : WIDTH // 2] for half in timm_rope.RotaryEmbeddingDinoV3(WIDTH).get_embed(GRID).chunk(2, -1))
    expected = torch.cat([sin, cos], -1)[:, None]
    assert relative_error(tables(ops.centred_angles(GRID, WIDTH)), expected) < 1e-6


def test_mixed_angles_are_timms():
    frequencies = normal(2, 3, WIDTH // 2)
    x, y = timm_rope.get_mixed_grid(list(GRID), grid_indexing="xy")
    embedding = timm_rope.get_mixed_freqs(torch.from_numpy(np.array(frequencies)), x, y)  # each value twice in a row
    expected = embedding.transpose(0, 1)[..., ::2]
    assert relative_error(tables(ops.mixed_angles(frequencies, GRID)), expected) < 1e-6


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_timms_and_leaves_the_first_tokens_alone(interleaved):
    x, angles = normal(2, 3 + 35, 2, WIDTH), ops.axial_angles(GRID, WIDTH)
    found = ops.rotate(x, *ops.rotation(angles, fixed=3), interleaved=interleaved)
    tensor = torch.from_numpy(np.array(x)).transpose(1, 2)
    embedding = torch.cat(
        timm_rope.build_rotary_pos_embed(GRID, dim=WIDTH, in_pixels=False, rotate_half=not interleaved), -1
    )
    rotated = timm_rope.apply_rot_embed_cat(tensor[:, :, 3:], embedding, half=not interleaved)
    expected = torch.cat([tensor[:, :, :3], rotated], 2).transpose(1, 2)
    if interleaved:
        expected = expected[..., PERMUTED]
    assert relative_error(found, expected) < 1e-6
    np.testing.assert_array_equal(found[:, :3], x[:, :3, :, PERMUTED] if interleaved else x[:, :3])
    half = ops.rotate(x.astype(jnp.bfloat16), *ops.rotation(angles, fixed=3), interleaved=interleaved)
    assert half.dtype == jnp.bfloat16 and relative_error(half.astype(jnp.float32), expected) < 1e-2


def test_maps_of_symbolic_size_have_the_same_angles():
    def run(x, frequencies):
        grid = x.shape
        return (
            ops.axial_angles(grid, WIDTH, reference=(16, 14), offset=1.0, columns_first=True),
            ops.centred_angles(grid, WIDTH),
            ops.mixed_angles(frequencies, grid),
        )

    shape, frequencies = jax.export.symbolic_shape("h, w"), normal(2, 3, WIDTH // 2)
    arguments = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(frequencies.shape, jnp.float32)
    found = jax.export.export(jax.jit(run))(*arguments).call(jnp.zeros(GRID), frequencies)
    for a, b in zip(found, run(np.zeros(GRID), frequencies)):
        assert relative_error(a, b) < 1e-6
