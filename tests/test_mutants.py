"""Checks that each mutant still replaces exactly one place in the code, and that its tests exist."""

import pytest

from tests.mutants import ON_CLUSTER, Mutant, mutants
from tests.project import ROOT


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.claim)
def test_a_mutant_changes_one_place_and_has_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new not in (mutant.old, "")
    assert (ROOT / "tests" / mutant.tests).is_file()


def test_the_mutants_that_need_a_cluster_exist() -> None:
    assert {mutant.claim for mutant in mutants()} >= ON_CLUSTER
