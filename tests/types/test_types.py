"""A user's project passes a type checker: a small program for each framework, and mistakes in one are found."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = sorted(Path(__file__).parent.glob("*_user.py"))

# Strict, but for what the frameworks themselves leave untyped.
OPTIONS = ("--strict", "--ignore-missing-imports", "--allow-any-generics", "--allow-untyped-calls")
OPTIONS += ("--allow-untyped-decorators", "--no-warn-return-any")


def check(folder: Path) -> str:
    """What mypy says of the programs in a folder outside of flaim's own sources."""
    command = [sys.executable, "-m", "mypy", *OPTIONS, *map(str, folder.glob("*.py"))]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_programs_pass_and_mistakes_are_found(tmp_path):
    for program in PROGRAMS:
        shutil.copy(program, tmp_path)
    found = check(tmp_path)
    assert f"Success: no issues found in {len(PROGRAMS)} source files" in found, found

    for program in PROGRAMS:
        (tmp_path / program.name).unlink()
    (tmp_path / "wrong.py").write_text(
        "import flaim_core as core\n"
        "from flaim.adapters.nnx import get_model\n"
        "model, variables, norm_stats = get_model('resnet18')\n"
        "core.layer_norm({}, 0.5, epsilon=1e-6)\n"
        "core.no_such_kernel\n"
    )
    found = check(tmp_path)
    assert sorted(set(re.findall(r"wrong\.py:(\d+): error", found))) == ["3", "4", "5"], found
