"""Record the parameters of HorNet's variants: `python -m tools.make_hornet_structure path/to/hornet.py`.

`hornet.py` is the authors', of github.com/raoyongming/HorNet; it is imported, and its models are built on torch's meta
device. Writes `tests/data/hornet_structure.json`: for each variant the shape of each parameter, by its name. All blocks
of a stage are equal, so they have one entry, whose name has `*` in the place of their number; their count comes first.
"""

import importlib.util
import json
import re
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

import tests.oracle  # noqa: F401  # torchvision's missing operators, before timm is imported

FILE = Path(__file__).parent.parent / "tests" / "data" / "hornet_structure.json"


def authors_module(path: str):
    """The authors' module; their decorator looks it up by its name."""
    spec = importlib.util.spec_from_file_location("authors_hornet", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def structure(model: torch.nn.Module) -> dict[str, list]:
    """Count and shape of the model's parameters by name."""
    found: dict[str, list] = {}
    for name, tensor in model.state_dict().items():
        name, shape = re.sub(r"^(stages\.\d+)\.\d+\.", r"\1.*.", name), list(tensor.shape)
        count, known = found.get(name, (0, shape))
        assert known == shape, f"the blocks of a stage differ in {name}"
        found[name] = [count + 1, shape]
    return found


if __name__ == "__main__":
    module = authors_module(sys.argv[1])
    lines = []
    on_cpu = partial(torch.linspace, device="cpu")  # they read the rates of stochastic depth from a tensor
    for name in sorted(name for name in vars(module) if name.startswith("hornet_")):
        with torch.device("meta"), patch.object(torch, "linspace", on_cpu):
            found = structure(getattr(module, name)())
        lines.append(f"{json.dumps(name)}: {json.dumps(found, separators=(',', ':'))}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
