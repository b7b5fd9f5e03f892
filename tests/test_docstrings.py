"""Rule for the docstring of every module: it begins with a noun phrase that says what the module holds."""

import re

from tests.project import ROOT

FOLDERS = ("googlenet", "pipelines", "cluster", "benchmarks", "experiments", "tests")
QUESTION = re.compile(r'"""(What|Which|Who|Whose|Whom|How|Why|When|Where|Whether|Is|Are|Does|Do|Can|From|Tests that)\b')


def test_no_modules_docstring_begins_with_a_question_or_on_the_way() -> None:
    modules = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [f"{path.relative_to(ROOT)}" for path in modules if QUESTION.match(path.read_text())]
    assert len(modules) > 300
    assert not found, "\n".join(found)
