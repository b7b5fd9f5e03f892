"""The project's modules and what they import."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.project import ROOT

SCIENCE = sorted((ROOT / "googlenet").rglob("*.py"))
MODULES = SCIENCE + sorted((ROOT / "pipelines").rglob("*.py"))
WINGS = sorted(path.parent for top in ("googlenet", "pipelines") for path in ROOT.glob(f"{top}/*/__init__.py"))


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree, made once: most modules are looked at by four tests."""
    return ast.parse(source)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all imported modules, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            yield from (
                f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module for alias in node.names
            )


@cache
def is_module(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
