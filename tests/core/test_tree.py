"""Nested dicts and their paths."""

import chex

import flaim_core as core


def test_flatten_and_unflatten_are_inverse(variables):
    chex.assert_trees_all_equal(core.unflatten(core.flatten(variables)), variables)
