"""Attention against torch's."""

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from flaim_core import ops
from tests.numerics import normal, relative_error


def test_attention_is_torchs():
    query, key, value = normal(2, 5, 3, 8), normal(2, 7, 3, 8), normal(2, 7, 3, 8)
    bias = normal(3, 5, 7)
    heads_first = [torch.from_numpy(np.array(t.transpose(0, 2, 1, 3))) for t in (query, key, value)]
    expected = F.scaled_dot_product_attention(*heads_first, attn_mask=torch.from_numpy(np.array(bias))[None])
    assert relative_error(ops.dot_product_attention(query, key, value, bias), expected.transpose(1, 2)) < 1e-6
    half = ops.dot_product_attention(*(t.astype(jnp.bfloat16) for t in (query, key, value)), bias)
    assert half.dtype == jnp.bfloat16
