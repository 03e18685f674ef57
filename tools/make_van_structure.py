"""Record the leaves of the authors' VAN: `python tools/make_van_structure.py PATH`, with the path of their `van.py`.

The file is `models/van.py` of github.com/Visual-Attention-Network/VAN-Classification. It runs on torch's meta device,
without memory for weights. This writes `tests/data/van_structure.json`: for each model, the shape of each tensor in its
state dict. The blocks of a stage are equal, so `"block1.{0..2}.norm1.weight"` stands for three tensors.
"""

import functools
import importlib.util
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tests.oracle  # noqa: F401  timm, which the file imports, needs its operators

FILE = Path(__file__).parent.parent / "tests" / "data" / "van_structure.json"


def structure(module: ModuleType, name: str) -> dict[str, str]:
    """The shapes, `"64x3x7x7"`, of a model's tensors."""
    # The file reads its drop path rates off a tensor, which must have values.
    with torch.device("meta"), mock.patch("torch.linspace", functools.partial(torch.linspace, device="cpu")):
        state = getattr(module, name)().state_dict()
    found: dict[tuple[str, str], int] = defaultdict(int)
    for tensor, value in state.items():
        if not tensor.endswith("num_batches_tracked"):
            found[re.sub(r"^(block\d)\.\d+\.", r"\1.{}.", tensor), "x".join(map(str, value.shape))] += 1
    return {tensor.replace("{}", f"{{0..{count - 1}}}"): shape for (tensor, shape), count in found.items()}


def main() -> None:
    """Write the file."""
    spec = importlib.util.spec_from_file_location("van", sys.argv[1])
    assert spec and spec.loader
    module = sys.modules["van"] = importlib.util.module_from_spec(spec)  # timm's registry looks there
    spec.loader.exec_module(module)
    models = {f"van_b{i}": structure(module, f"van_b{i}") for i in range(7)}
    FILE.write_text(json.dumps(models, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
