"""The house's plan: imports go one way and without a circle, and files and functions stay small."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("flaim", "flaim_core")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

# From the bottom to the top: a module imports what stands in its own line or in one above it.
FLOORS = (
    ("flaim_core",),
    (
        "flaim._lazy",
        "flaim._values",
        "flaim._fused_norm",
        "flaim._eager",
        "flaim._index",
        "flaim.family",
        "flaim.model",
    ),
    ("flaim.models",),
    ("flaim.registry", "flaim.fuse", "flaim.options", "flaim.counts"),
    ("flaim.weights.errors", "flaim.weights.info"),
    ("flaim.weights.formats", "flaim.weights.catalogue", "flaim.weights.resample"),
    ("flaim.weights.converters",),
    ("flaim.weights.assign",),
    ("flaim.weights.sources",),
    ("flaim.weights.saving",),
    ("flaim.pretrained", "flaim.weights", "flaim.data", "flaim.checkpoints"),
    ("flaim.adapters", "flaim.export"),
    ("flaim.cli", "flaim.__main__", "flaim"),
)


def floor(name: str) -> int:
    """The line of `FLOORS` that a module stands in: that of the longest name it begins with."""
    found = [
        (len(prefix), i) for i, line in enumerate(FLOORS) for prefix in line if f"{name}.".startswith(f"{prefix}.")
    ]
    return max(found)[1]


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import in a module, those in functions too; what is there for type checkers alone is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from statements(child)


def imported(name: str) -> set[str]:
    """Modules that a module imports, submodules rather than the packages that they are named from."""
    found = set()
    for statement in statements(TREES[name]):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{name}: imports are absolute"
            module = statement.module or ""
            for alias in statement.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if inner in FILES else module)
    return found


IMPORTS = {name: imported(name) for name in FILES}


def test_there_is_no_circle():
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for other in sorted(IMPORTS[name] & FILES.keys()):
                visit(other, (*path, name))
            finished.add(name)

    for name in FILES:
        visit(name, ())


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downwards(name):
    above = {other for other in IMPORTS[name] & FILES.keys() if floor(other) > floor(name)}
    assert not above, f"{name} imports {', '.join(sorted(above))} from above"


def test_the_core_knows_jax_alone():
    outside = {
        (name, other)
        for name in FILES
        if name.startswith("flaim_core")
        for other in IMPORTS[name]
        if (top := other.partition(".")[0]) not in ("flaim_core", "jax", "numpy", "jaxtyping")
        and top not in sys.stdlib_module_names
    }
    assert not outside


def test_a_family_knows_no_other_and_no_weights():
    for name in FILES:
        if name.startswith("flaim.models."):
            family = ".".join(name.split(".")[:3])
            known = {other for other in IMPORTS[name] if other.startswith("flaim.")}
            others = {other for other in known if other != "flaim.family" and not f"{other}.".startswith(f"{family}.")}
            assert not others, f"{name} imports {others}"


def test_an_adapter_knows_no_other():
    adapters = ("linen", "nnx", "eqx", "haiku")
    for name in FILES:
        for adapter in adapters:
            if name.startswith(f"flaim.adapters.{adapter}"):
                others = tuple(f"flaim.adapters.{other}" for other in adapters if other != adapter)
                assert not [other for other in IMPORTS[name] if other.startswith(others)]


@pytest.mark.parametrize("name", FILES)
def test_files_and_signatures_are_short(name):
    lines = FILES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= 400, f"{lines} lines"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            number = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            why = "more than 20" in " ".join((ast.get_docstring(node) or "").lower().split())
            assert number <= 20 or why, f"{node.name} has {number} parameters and does not say why"
