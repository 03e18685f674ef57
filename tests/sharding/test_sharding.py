"""Models on several devices: `jax.shard_map`, Explicit and Auto meshes, sharded parameters; see `child`."""

import json
import os
import subprocess
import sys

import pytest

from flaim import models
from tests.sharding.child import KINDS
from tests.small import UNLIKE


def checked(*names: str) -> list[dict]:
    """What a process with four devices says of these checks' subjects."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.sharding.child", *names], capture_output=True, text=True, env=environment
    )
    assert found.returncode == 0, found.stderr
    return list(map(json.loads, found.stdout.splitlines()))


def assert_all_hold(results: list[dict]) -> None:
    failed = [f"{result['check']} of {result['of']}:\n{result['error']}" for result in results if result["error"]]
    assert results and not failed, "\n".join(failed)


@pytest.mark.parametrize("family", UNLIKE)
def test_one_device_and_four_agree(family):
    assert_all_hold(checked(family))


# Several in a process: starting one takes longer than tracing a model.
OTHERS = [name for name in models.families() if name not in UNLIKE]
GROUPS = [OTHERS[i : i + 6] for i in range(0, len(OTHERS), 6)]


@pytest.mark.parametrize("families", GROUPS, ids="+".join)
def test_every_family_can_be_sharded(families):
    assert_all_hold(checked(*families))


def test_every_kind_of_layer_can_be_sharded():
    assert_all_hold(checked(*KINDS))
