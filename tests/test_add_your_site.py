"""The guide, followed literally: its commands in their order, and what it says that they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
GUIDE = REPO / "docs" / "add_your_site.md"
BLOCK = re.compile(r"(?ms)^```(sh|text)\n(.*?)^```$")
CODE = re.compile(r"# exit code (\d+)")


def steps() -> list[tuple[str, list[str]]]:
    """Each command block with the lines that the guide shows after it."""
    found: list[tuple[str, list[str]]] = []
    for kind, content in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if kind == "sh":
            found.append((content, []))
        else:
            found[-1][1].extend(content.splitlines())
    return found


def plain(text: str) -> str:
    return " ".join(text.split())


def test_the_guide_has_commands_and_output() -> None:
    commands = [command for command, _ in steps()]
    verbs = re.findall(r"^neurobolt (\w+ ?\w*)", "\n".join(commands), re.MULTILINE)
    assert [verb.split()[0] for verb in verbs] == ["phantom", "site", "site", "site", "ingest", "ingest", "quality"]
    assert sum(bool(lines) for _, lines in steps()) >= 6


@pytest.mark.slow
def test_followed_literally(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'platform'}", "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    shell = f'neurobolt() {{ "{sys.executable}" -m jobs.cli "$@"; }}\nset -e\n'
    for command, shown in steps():
        wanted = CODE.search(command)
        done = subprocess.run(
            ["bash", "-c", shell + command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        said = done.stdout + done.stderr
        assert done.returncode == (int(wanted[1]) if wanted else 0), f"{command}\n{said}"
        for line in shown:
            assert plain(line.removesuffix("...")) in plain(said), f"{command} does not print: {line}\n{said}"
    drafted = (tmp_path / "mylab.yaml").read_text(encoding="utf-8")
    assert "\nextra_markers: end\n" in drafted
    for name in ("mylab.html", "store/manifest.parquet", "pages/index.html"):
        assert (tmp_path / name).stat().st_size > 0
