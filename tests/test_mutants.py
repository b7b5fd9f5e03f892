"""The mutants still fit the code: each replaces exactly one place, and there are tests that should notice."""

import pytest

from tests.mutants import ROOT, Mutant, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.claim)
def test_a_mutant_changes_one_place_and_has_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new not in (mutant.old, "")
    assert (ROOT / "tests" / mutant.tests).is_file()
