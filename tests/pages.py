"""Pages of the documentation, and the Python that they show."""

import ast
import re

from tests.project import ROOT

TOP = ("README.md", "RESULTS.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "cluster/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its rank."""
    [found] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##? |\Z)", (ROOT / page).read_text(), re.M | re.S)
    return str(found)


def python_of(page: str) -> list[str]:
    """Blocks of Python, and calls within the text, of a page."""
    text = (ROOT / page).read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL) + [code for code in marked(text) if _is_call(code)]


def marked(text: str) -> list[str]:
    """What is marked as code within a text."""
    without_blocks = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_blocks)]


def example(page: str, beginning: str) -> str:
    """The Python of a page that begins so; ``test_python_of_pages.py`` finds the calls of this by their text."""
    [found] = {code for code in python_of(page) if code.startswith(beginning)}
    return found


def _is_call(code: str) -> bool:
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    # A space comes before the bracket in names of data sets, photos (val).
    return " (" not in code and any(isinstance(node, ast.Call) for node in ast.walk(tree))
