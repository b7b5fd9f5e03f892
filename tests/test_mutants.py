"""Checks that each mutant still replaces exactly one place in the code, and that its tests exist and may judge it."""

from pathlib import Path

import pytest

from tests.mutant_trials import Arguments, red_without_mutants
from tests.mutants import ON_CLUSTER, Mutant, mutants
from tests.project import ROOT


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.claim)
def test_a_mutant_changes_one_place_and_has_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new not in (mutant.old, "")
    assert (ROOT / "tests" / mutant.tests).is_file()


def test_the_mutants_that_need_a_cluster_exist() -> None:
    assert {mutant.claim for mutant in mutants()} >= ON_CLUSTER


@pytest.mark.processes
def test_tests_that_fail_without_a_mutant_judge_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # to import them takes a second
    (tmp_path / "tests").mkdir()
    bodies = {"green": "pass", "red": "assert False"}
    for name, body in bodies.items():
        (tmp_path / f"tests/test_{name}.py").write_text(f"def test_it(): {body}\n")
    listed = [Mutant("a claim", "a.py", "old", "new", f"test_{name}.py") for name in bodies]
    here = lambda call, files: (call(file, tmp_path) for file in files)  # noqa: E731
    assert red_without_mutants(listed, here, Arguments()) == ["test_red.py"]
