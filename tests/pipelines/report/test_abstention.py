"""The tables on sets of classes and answers left to people say on what, and by what, they were judged."""

from typing import Any

from pipelines.report.abstention import selective_rows
from pipelines.report.certainty import Table, abstention_tables
from tests.pipelines.report.made_runs import cautious_rows

SETS = {
    "coverage": 0.9, "empirical_coverage": 100.0, "empirical_coverage_ci95": [39.8, 100.0], "mean_size": 1.0,
    "single_answers": 100.0, "classes": [{"class": "a", "images": 4, "empirical_coverage": 100.0}],
}  # fmt: skip


def judged(replicas: int = 3) -> list[Any]:
    rows = cautious_rows()
    return list(selective_rows(rows.probabilities[:, :replicas, 0], rows.labels))


def texts(selective: list[Any], images: int = 400) -> list[str]:
    report: Any = {"images": images, "prediction_sets": [SETS], "selective": selective}
    return [table.text for table in abstention_tables(report)]


def test_the_best_measure_is_named_where_one_is_better_than_others() -> None:
    def text(*areas: float) -> str:
        return texts([{**row, "area": area} for row, area in zip(judged(), areas, strict=True)])[-1]

    assert text(2.0, 1.0, 3.0).endswith("the one that sorts best here is the entropy.")
    assert text(1.0, 1.0, 3.0).endswith("those that sort best here are maximum probability and entropy.")
    assert text(0.0, 0.0, 0.0).endswith("the area is its mean over all shares.")


def test_tables_on_a_share_of_the_images_say_so() -> None:
    assert [row["images"] for row in judged()] == [400] * 3
    of_all, _by_class, answered = texts(judged(), images=50_000)
    for text in (of_all, answered):
        assert text.endswith(" On 400 of the 50,000 images, chosen by a hash of their names.")


def test_every_class_has_its_coverage_the_least_covered_first() -> None:
    def by_class(held: list[tuple[str, float, float]]) -> Table:
        names = [name for name, *_ in held]
        sets = [
            {
                **SETS,
                "coverage": coverage,
                "classes": [
                    {"class": name, "images": 4, "empirical_coverage": percent[column]}
                    for name, percent in zip(names, (row[1:] for row in held), strict=True)
                ],
            }
            for column, coverage in enumerate((0.9, 0.95))
        ]
        report: Any = {"images": 400, "prediction_sets": sets, "selective": judged()}
        return abstention_tables(report)[1]

    table = by_class([("a", 75.0, 100.0), ("b", 50.0, 75.0), ("c", 75.0, 75.0)])
    assert table.headings == ("class", "images", "held % of 90", "held % of 95")
    assert table.rows == [("b", "4", "50.0", "75.0"), ("c", "4", "75.0", "75.0"), ("a", "4", "75.0", "100.0")]
    assert "least covered" not in table.text
    table = by_class([(f"{number:02}", 100.0 - number, 100.0) for number in range(30)])
    assert [row[0] for row in table.rows] == [f"{number:02}" for number in range(29, 9, -1)]
    assert table.text.endswith("The 20 least covered of 30 classes; report.json has all.")


def test_one_replica_has_no_disagreement_to_sort_by() -> None:
    selective = judged(replicas=1)
    assert [row["measure"] for row in selective] == ["maximum_probability", "entropy"]
    selective[1]["area"] -= 0.1
    assert texts(selective)[-1].endswith("Of the two measures, the one that sorts best here is the entropy.")
