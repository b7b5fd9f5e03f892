"""The tables on sets of classes and answers left to people say on what, and by what, they were judged."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from googlenet.evaluation.temperature import FEWEST_IMAGES
from pipelines import evaluate_ensemble
from pipelines.evaluate_ensemble import Arguments, evaluate_own_images
from pipelines.report import abstention, temperatures
from pipelines.report.abstention import ReportedSets, selective_rows, set_rows
from pipelines.report.certainty import Table, abstention_tables
from pipelines.report.numbers import numbers_about_answers
from pipelines.run.recipe import Recipe
from tests.pipelines.report.made_runs import ENSEMBLE, cautious_rows, ensemble_of, made_run, predict

SETS = {
    "coverage": 0.9, "empirical_coverage": 100.0, "empirical_coverage_ci95": [39.8, 100.0], "mean_size": 1.0,
    "single_answers": 100.0, "judged_on": "other_folds",
    "classes": [{"class": "a", "images": 4, "empirical_coverage": 100.0}],
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


def test_the_table_of_sets_says_on_what_their_threshold_was_fitted() -> None:
    def text(judged_on: str) -> str:
        report: Any = {"images": 400, "prediction_sets": [{**SETS, "judged_on": judged_on}], "selective": judged()}
        return abstention_tables(report)[0].text

    assert text("other_folds").endswith(
        " Each fold of the images is judged with the temperature and the threshold fitted on the others."
    )
    assert text("other_images").endswith(
        " The temperature and the threshold of the sets were fitted on the validation images of the training run, "
        "which are other images."
    )


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


def test_evaluating_again_with_a_coverage_adds_its_sets_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_run(tmp_path / "run")
    predict(run, list(range(6)))
    monkeypatch.setattr(temperatures, "FEWEST_IMAGES", 6)
    monkeypatch.setattr("pipelines.report.write._pictures", lambda *_: {})
    monkeypatch.setattr(evaluate_ensemble, "connected", nullcontext)
    monkeypatch.setattr(evaluate_ensemble, "_start", lambda _: {})
    monkeypatch.setattr(evaluate_ensemble, "evaluate_run", lambda *_: ENSEMBLE)
    for coverage, promised in ((None, ["0.9", "0.95"]), (0.99, ["0.9", "0.95", "0.99"]), (0.8, ["0.8", "0.9", "0.95"])):
        evaluate_own_images(run, Recipe(replicas=2), Arguments(run.root, coverage=coverage))
        sent = numbers_about_answers(run.read_json("report/report.json"))
        assert [name for name in sent if name.startswith("set_coverage/")] == [f"set_coverage/{c}" for c in promised]
        assert f"| {100 * float(promised[-1]):g} | " in run.read("report/report.md").decode()
    monkeypatch.setattr(temperatures, "FEWEST_IMAGES", FEWEST_IMAGES)
    told = evaluate_own_images(run, Recipe(replicas=2), Arguments(run.root, coverage=0.8))
    assert "note: --coverage is not used: sets of classes need 40 labelled images or more" in told


def test_a_coverage_that_too_few_images_can_promise_is_named_with_what_it_needs() -> None:
    rows, asked = cautious_rows(), ReportedSets.asked_for(0.0, 0.99)
    averaged = rows.probabilities[:, :, 1].mean(axis=1, dtype=np.float64)

    def sets(images: int) -> list[Any]:
        folds = np.arange(images) % 5
        return list(set_rows(averaged[:images], rows.labels[:images], folds, ensemble_of(3, 4), None, asked))

    *usual, few = sets(120)  # four folds of five have 96
    assert (few["fitted_images"], few["empirical_coverage"], few["mean_size"]) == (96, 100.0, 4.0)
    report: Any = {"images": 120, "prediction_sets": [*usual, few], "selective": judged()}
    told = "A promise of 99 % needs 99 images: sets whose threshold was fitted on fewer (96) hold all classes."
    assert told in abstention_tables(report)[0].text
    report["prediction_sets"] = sets(400)
    assert report["prediction_sets"][2]["mean_size"] < 4
    assert "needs" not in abstention_tables(report)[0].text


def test_no_image_has_a_say_in_its_own_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    about = abstention._about_sets
    monkeypatch.setattr(abstention, "_about_sets", lambda sets, *rest: seen.append(sets) or about(sets, *rest))
    generator, folds = np.random.default_rng(3), np.arange(500) % 5
    probabilities = generator.dirichlet(np.ones(4), 500)
    labels = np.array([generator.choice(4, p=row) for row in probabilities], np.int32)
    changed = labels.copy()
    changed[folds == 2] = probabilities[folds == 2].argmin(axis=1)
    for given in (labels, changed):
        set_rows(probabilities, given, folds, ensemble_of(1, 4), None)
    for before, after in zip(seen[:2], seen[2:], strict=True):
        same = (before == after).all(axis=1)
        assert same[folds == 2].all()
        assert all(not same[folds == fold].all() for fold in (0, 1, 3, 4))
