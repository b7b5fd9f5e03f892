"""The page and its pictures of classes hold every answer and every name."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.report.figures import class_figures


def test_the_picture_of_confusions_holds_every_answer() -> None:
    """Answers into classes without images, and into more classes than are drawn, have columns too."""

    def drawn(classes: int, seen: int, wrong: dict[int, int]) -> tuple[list[str], np.ndarray]:
        confusion = np.zeros((classes, classes), np.int32)
        for label in range(seen):
            confusion[label, label] = 80
        for answer, images in wrong.items():
            confusion[0, answer] = images
        rows = [
            {"class": f"c{n}", "images": int(row.sum()), "top1_error": 20.0 if n == 0 else 0.0}
            for n, row in enumerate(confusion)
        ]
        report: Any = {"class_errors": rows}
        axes = class_figures(report, confusion)["confusion"].axes[0]
        return [label.get_text() for label in axes.get_xticklabels()], np.asarray(axes.images[0].get_array())

    names, counts = drawn(5, 4, {4: 20})
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert counts[0].tolist() == [80, 0, 0, 0, 20]
    names, counts = drawn(60, 10, {20: 7, **dict.fromkeys(range(30, 55), 1)})
    assert (names[:11], names[-1], len(names)) == ([f"c{n}" for n in range(10)] + ["c20"], "(others)", 31)
    assert counts.sum(axis=1).tolist() == [80 + 7 + 25] + [80] * 9
    assert drawn(5, 5, {4: 20})[0] == ["c0", "c1", "c2", "c3", "c4"]


def test_a_long_name_of_an_image_does_not_widen_the_page(reported_run: Path) -> None:
    page = (reported_run / "report/index.html").read_text()
    [rule] = re.findall(r"^p, figcaption, li \{([^}]*)\}", page, re.MULTILINE)
    assert "overflow-wrap: anywhere" in rule
