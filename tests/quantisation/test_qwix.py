"""Quantisation by qwix, in Linen and NNX: every product and convolution, with weights that it finds by name."""

import json
import subprocess
import sys

import pytest


# Attention; depthwise convolutions and gates; a blurred subsampling, whose fixed weights are nobody's parameters.
@pytest.mark.parametrize("family", ["vit", "efficientnet", "densenet"])
def test_every_product_is_quantised(family):
    command = [sys.executable, "-m", "tests.quantisation.child", family]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result == {"family": family, "error": None}, result["error"]
