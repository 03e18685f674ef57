"""The index of architectures, and that finding one imports its family alone."""

import subprocess
import sys

import pytest

from flaim import _index, registry
from tools import make_index


def test_the_index_is_what_its_tool_writes():
    assert make_index.names() == {name: sorted(found) for name, found in _index._families().items()}


# One of each family: the structural tests compare every architecture's parameters with timm's.
@pytest.mark.parametrize("family", registry.families())
def test_figures_are_the_models(family):
    name, _ = registry.family(family).tiny
    assert make_index.facts(family, name) == _index.facts_of(name)


def test_looking_up_a_name_imports_one_family():
    code = (
        "import sys; from flaim.models import create; create('resnet18'); "
        "print({name.split('.')[2] for name in sys.modules if name.startswith('flaim.models.')})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "{'resnet'}\n"
