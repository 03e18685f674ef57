"""Write flaim/models/index.json: the architectures of every family, so that a name is found without importing them all.

Run it from the root of the repository when a family or a variant is new or changes: `python -m tools.make_index` writes
the architectures of all families, their parameters and multiply-adds (minutes); with names, only those families.
"""

import json
import pkgutil
import sys
from pathlib import Path

import flaim.models
from flaim import registry
from flaim.counts import count_multiply_adds, count_parameters

INDEX = Path(flaim.models.__file__).with_name("index.json")


def names() -> dict[str, list[str]]:
    """Each family's architectures, from the families themselves."""
    families = sorted(module.name for module in pkgutil.iter_modules(flaim.models.__path__))
    return {name: sorted(registry.family(name).variants) for name in families}


def facts(family: str, architecture: str) -> dict[str, int]:
    """The index entry of an architecture: its parameters, and multiply-adds for one image of its own size."""
    model = registry.build(registry.family(family), architecture)
    return {"params": count_parameters(model), "macs": count_multiply_adds(model)}


def text(index: dict[str, dict[str, dict[str, int]]]) -> str:
    """The index, one line per architecture."""
    blocks = []
    for family, architectures in index.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(known)}" for name, known in architectures.items())
        blocks.append(f" {json.dumps(family)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    old = json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.exists() else {}
    chosen = sys.argv[1:] or list(names())
    found = {
        family: {name: facts(family, name) for name in architectures} if family in chosen else old[family]
        for family, architectures in names().items()
    }
    INDEX.write_text(text(found), encoding="utf-8")
    print(f"{INDEX}: {sum(map(len, found.values()))} architectures of {len(found)} families")
