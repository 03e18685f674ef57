"""Write flaim/models/index.json: the architectures of every family, so that a name is found without importing them all.

Run it from the root of the repository, `python -m tools.make_index`, when a family or a variant is new.
"""

import importlib
import json
import pkgutil
from pathlib import Path

import flaim.models

INDEX = Path(flaim.models.__file__).with_name("index.json")


def index() -> dict[str, list[str]]:
    """Each family's architectures, from the families themselves."""
    families = sorted(module.name for module in pkgutil.iter_modules(flaim.models.__path__))
    return {name: sorted(importlib.import_module(f"flaim.models.{name}").FAMILY.variants) for name in families}


if __name__ == "__main__":
    found = index()
    INDEX.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{INDEX}: {sum(map(len, found.values()))} architectures of {len(found)} families")
