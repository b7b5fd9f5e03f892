"""The picture of the error against passes: readable, and with every efficient way."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from pipelines.report.figure_of_spending import spending as picture_of_spending
from pipelines.report.spending import Ways, spending_rows
from tests.pipelines.report.test_spending import cell


@pytest.mark.parametrize("second", [(2.0, 8.0), (2.1, 8.02), (280.0, 8.0)])
def test_no_text_of_the_picture_lies_on_another(second: tuple[float, float], letters_run: Path) -> None:
    report = json.loads((letters_run / "report/report.json").read_text())
    marks = ((2.0, 8.0), second)
    report["budgets"] = [
        {"budget": name, "passes": passes, "top1_error": error, "saving": 99.0}
        for name, (passes, error) in zip(("fast", "balanced"), marks, strict=True)
    ]
    figure = picture_of_spending(report, 0.001)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert {"fast: 99.0 % saved", "balanced: 99.0 % saved"} < {name for name, _ in boxes}
    for (name, box), (other_name, other) in combinations(boxes, 2):
        assert not box.overlaps(other), f"{name!r} lies on {other_name!r}"


def test_every_efficient_way_of_a_student_is_drawn_with_the_budgets_of_its_teacher() -> None:
    way: Any = {"way": "cascade", "top1_ci95": [1.0, 9.0], "images": 50}
    taught: list[Any] = [
        {"way": "replicas", "models": 1, "crops": 1, "passes": 1.0, "top1_error": 9.0, "images": 50},
        {**way, "budget": "fast", "passes": 2.0, "top1_error": 7.5},
        {**way, "budget": "balanced", "passes": 4.0, "top1_error": 7.0},
    ]
    ways = Ways(taught=taught)
    report: Any = {"spending": spending_rows([cell(1, 1, 8.1), cell(1, 144, 8.0)], 50, ways), "budgets": ways.budgets}
    [axes] = picture_of_spending(report, 0.0).axes
    drawn = [line for line in axes.lines if line.get_label() != "efficient"]
    points = {(float(x), float(y)) for line in drawn for x, y in zip(*line.get_data(), strict=True)}
    efficient = {(row["passes"], row["top1_error"]) for row in report["spending"] if row["efficient"]}
    assert efficient == {(1.0, 8.1), (2.0, 7.5), (4.0, 7.0)}
    assert efficient <= points
    assert {"fast, of the teacher", "balanced, of the teacher"} < {line.get_label() for line in drawn}
