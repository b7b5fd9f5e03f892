"""Layout as the README, the wings' docstrings and the folders' READMEs describe it: each module is named."""

import ast
import re
from pathlib import Path

import pytest

from tests.modules import MODULES, WINGS, parsed
from tests.project import ROOT

README = (ROOT / "README.md").read_text()


def layout() -> dict[str, str]:
    """The names in the README's layout by their full path, each with the words beside it."""
    [block] = re.findall(r"^```\n(googlenet/.*?)^```", README, re.DOTALL | re.MULTILINE)
    named, top = {}, ""
    for line in block.splitlines():
        name, _, words = line.strip().partition(" ")
        top = top if line.startswith(" ") else name
        named[f"{top}{name}" if line.startswith(" ") else name] = words.strip()
    return named


def test_the_readmes_layout_names_every_wing_and_every_module_outside_of_wings() -> None:
    wings = {f"{wing.relative_to(ROOT)}/" for wing in WINGS}
    modules = {str(path.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py"}
    others = {name for name in modules if not any(name.startswith(wing) for wing in wings)}
    folders = {"googlenet/", "pipelines/", "cluster/", "benchmarks/", "experiments/", "tests/", "docs/"}
    assert layout().keys() == wings | others | folders
    assert all(layout().values()), "a name in the layout without a description"


@pytest.mark.parametrize("folder", ["benchmarks", "experiments"])
def test_a_folders_readme_names_each_of_its_modules_and_nothing_else(folder: str) -> None:
    named = re.findall(r"^\| `(\w+\.py)` \| \w", (ROOT / folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 200
    without_code = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    prose = [line for line in without_code.splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 120] == []


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wings_docstring_names_each_of_its_modules_and_nothing_else(wing: Path) -> None:
    plan = ast.get_docstring(parsed((wing / "__init__.py").read_text())) or ""
    named = re.findall(r"^- ``(\w+)``: \w", plan, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in wing.rglob("*.py") if path != wing / "__init__.py")
