"""Table 1's counts, computed from the network, against calculations from the paper's channels."""

import runpy

import pytest

from googlenet.network.complexity import PRINTED, alexnet_parameter_count, savings, table_rows

# Known misprints of the paper; every other printed figure is within 3 % of the computed one.
MISPRINTED_WEIGHTS = {"conv1", "4c", "5a"}
MISPRINTED_OPS = {"conv1", "5a"}


@pytest.mark.parametrize("name", PRINTED)  # not counted where the test does not run
def test_computed_figures_agree_with_the_printed_ones_but_for_the_misprints(name: str) -> None:
    [row] = [row for row in table_rows() if row.name == name]
    assert (abs(row.weights / 1024 / row.printed_weights_k - 1) < 0.03) == (row.name not in MISPRINTED_WEIGHTS)
    assert (abs(row.multiply_adds / 1e6 / row.printed_ops_m - 1) < 0.03) == (row.name not in MISPRINTED_OPS)
    assert bool(row.remark) == (row.name in MISPRINTED_WEIGHTS | MISPRINTED_OPS)


def test_a_module_counted_by_hand() -> None:
    row = next(row for row in table_rows() if row.name == "3a")
    weights = 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32
    assert (row.weights, row.multiply_adds, row.output) == (weights, weights * 28 * 28, (256, 28, 28))


def test_a_crop_costs_less_than_1_6_billion_multiply_adds() -> None:
    total = sum(row.multiply_adds for row in table_rows())
    assert 1.5e9 < total < 1.6e9


def test_alexnet_is_counted_with_its_groups() -> None:
    assert alexnet_parameter_count() == 60_965_224  # as published for Caffe's model


def test_reductions_save_in_every_module() -> None:
    by_name = {saving.name: saving for saving in savings()}
    assert by_name["3a"].naive == 192 * (64 + 9 * 128 + 25 * 32) * 28 * 28
    assert all(saving.naive > 2 * saving.reduced for saving in by_name.values())


def test_the_module_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("googlenet", run_name="__main__")
    printed = capsys.readouterr().out
    assert "6,998,552 without auxiliary heads" in printed
    assert "13,378,280" in printed
    assert printed.count("misprint") == 2
