"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("neurobolt", "site_adapters", "jobs", "platform/xsite")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def bodies(path: Path) -> list[tuple[str, int]]:
    """Name and number of lines of every function body, docstring not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines))
    return found


def test_platform_folder_does_not_shadow_the_standard_library() -> None:
    assert not list((ROOT / "platform").glob("*.py"))
    code = "import platform; print(platform.system())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip()


def test_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_drawers() -> None:
    drawers = {"utils", "util", "misc", "common", "helpers", "helper"}
    assert not [path for path in SOURCES if path.stem in drawers]


def test_files_and_bodies_stay_short() -> None:
    long_files = [str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 400]
    every = [body for path in SOURCES for body in bodies(path)]
    long_bodies = [name for name, lines in every if lines > 60]
    assert not long_files
    assert not long_bodies
    assert sum(lines < 40 for _, lines in every) >= 0.9 * len(every)


@pytest.mark.parametrize("package", ["neurobolt", "xsite", "site_adapters", "jobs"])
def test_package_imports_in_a_fresh_process(package: str, tmp_path: Path) -> None:
    """From another folder, so that the installed package answers and not the working directory."""
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {package}"], cwd=tmp_path, check=True)


def test_readme_tree_names_every_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [str(p.relative_to(ROOT)) for p in SOURCES if p.name != "__init__.py" and f" {p.name} " not in readme]
    assert not missing, f"the tree in README.md lacks {missing}"
