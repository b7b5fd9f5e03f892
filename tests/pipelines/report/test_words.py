"""Sentences of a report and its columns, on the terminal, on the page and in report.md."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.report.contents import contents
from pipelines.report.figures import figures
from pipelines.report.markdown import markdown
from pipelines.report.page import heat_map, report_page
from pipelines.report.remarks import headline, notes
from pipelines.report.schema import Report
from pipelines.report.tally import tally_predictions
from pipelines.report.text import table_text
from pipelines.report.write import write_report
from pipelines.run.claims import claim
from pipelines.run.directory import COST_JSON
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import (
    LABELS,
    NOISY,
    answers,
    ensemble_of,
    made_run,
    predict_as,
)

RIGHT = LABELS.tolist()
NO_SINGULAR = re.compile(r"(?<!-)\b1 (\w+ )?(images|classes|models|crops|replicas|views|passes|seconds|GoogLeNets)\b")
COST = {
    "predictor_seconds": 1.0,
    "forward_passes": 2,
    "passes_per_second": 2.0,
    "seconds_per_pass": 0.5,
    "arithmetic": "fp32",
    "shards_by_host": {"here": 1},
}


def written(folder: Path, *choices: list[int], classes: int = 7, trained: Storage | None = None) -> tuple[Storage, str]:
    """A run whose replicas answered ``choices``, with its report without pictures, and the text for the terminal."""
    run, ensemble = made_run(folder), ensemble_of(len(choices), classes)
    predict_as(run, answers(*choices, classes=classes), ensemble)
    return run, write_report(run, ensemble, trained, with_pictures=False)


def composed(folder: Path, *choices: list[int], classes: int = 7) -> tuple[Report, str, str, str]:
    """The same without any file: the report, and its text for the terminal and for both pages."""
    run, ensemble = made_run(folder), ensemble_of(len(choices), classes)
    predict_as(run, answers(*choices, classes=classes), ensemble)
    report = contents(tally_predictions(run, ensemble), ensemble)
    page = report_page(report, COST, "", {}, {}, {"image_id": "", "strips": [], "mistakes": []})
    return report, table_text(report, COST, "report.md"), page, markdown(report, COST, {}, {})


def pages_of(run: Storage) -> tuple[str, str]:
    """The page and report.md."""
    return run.read("report/index.html").decode(), run.read("report/report.md").decode()


def report_in(run: Storage) -> Any:
    return run.read_json("report/report.json")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    return written(tmp_path_factory.mktemp("imagenet"), *NOISY, classes=1000)


@pytest.fixture(scope="module")
def letters(letters_run: Path) -> tuple[Storage, str]:
    return Storage.at(str(letters_run)), (letters_run / "terminal.txt").read_text()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_everything_begins_with_the_result_in_a_sentence(letters: tuple[Storage, str]) -> None:
    run, terminal = letters
    last = report_in(run)["table"][-1]
    low, high = last["top1_ci95"]
    sentence = (
        f"3 models with 144 crops err on {last['top1_error']:.1f} % ({low:.1f} to {high:.1f}) of 6 images; "
        f"one model with one crop on {100 * 7 / 18:.1f} %."
    )
    page, markdown = pages_of(run)
    assert f"<h1>{sentence}</h1>" in page
    assert markdown.startswith(f"# {sentence}\n")
    assert flat(terminal).startswith(sentence)


def test_many_images_deserve_two_decimals_and_many_classes_top_5(imagenet: tuple[Storage, str]) -> None:
    report = report_in(imagenet[0])
    assert re.search(r"of 6 images \(top-5 error \d+\.\d %\); one model .* \(\d+\.\d %\)\.$", headline(report))
    assert re.search(r"err on \d+\.\d\d % .* of 50,000 images", headline({**report, "images": 50_000}))


def test_the_papers_figures_stand_beside_those_of_imagenets_classes(imagenet: tuple[Storage, str]) -> None:
    run, terminal = imagenet
    of_one_model = [line.split()[-1] for line in terminal.splitlines() if line.startswith("     1")]
    assert of_one_model == ["10.07", "9.15", "7.89"]
    page, markdown = pages_of(run)
    assert page.count("<small>paper, best ") == 3  # of one model, as the legend says
    assert "| paper (one model: its best), top-5 % |" in markdown
    for text in (flat(terminal), page, markdown):
        assert "Those for one model are of its best one: compare them with ours." in text


def test_a_thousand_classes_are_needed_for_the_papers_figures_and_eleven_for_top_5(
    letters: tuple[Storage, str], tmp_path: Path
) -> None:
    run, terminal = letters
    for text in (terminal, *pages_of(run)):
        assert "10.07" not in text
        assert "top-5" not in text.lower().replace("top-5 errors are left out", "")
    assert report_in(run)["table"][0]["paper_top5_error"] == 10.07
    assert "top5_error" in report_in(run)["table"][0]
    _, *texts = composed(tmp_path, *NOISY, classes=11)
    for text in texts:
        assert "top-5" in text.lower()
        assert "10.07" not in text


def test_the_table_fits_a_terminal_and_says_where_the_rest_is(
    imagenet: tuple[Storage, str], letters: tuple[Storage, str]
) -> None:
    for run, terminal in (imagenet, letters):
        *lines, last = terminal.splitlines()
        assert max(map(len, lines)) <= 80
        assert last == f"all ensemble sizes, costs and intervals: {run.root}/report/report.md"
        words = set(flat(" ".join(notes(report_in(run)))).split())
        assert words <= set(terminal.split())  # no word is broken
        sizes = [line.split()[0] for line in lines if re.match(r" {4,}\d", line)]
        assert sizes == ["1"] * 3 + ["3"] * 3


def test_a_terminal_of_40_columns_keeps_the_errors(imagenet: tuple[Storage, str], letters: tuple[Storage, str]) -> None:
    for (run, _), headings in (
        (imagenet, ["models", "crops", "top-1", "top-5", "paper"]),
        (letters, ["models", "crops", "top-1", "95", "%", "interval"]),
    ):
        text = table_text(report_in(run), run.read_json(COST_JSON), "report.md", 40)
        *lines, _ = text.splitlines()
        assert max(map(len, lines)) <= 40
        assert [line.split() for line in lines if line.startswith("models")] == [headings]
        assert set(flat(" ".join(notes(report_in(run)))).split()) <= set(text.split())


def test_images_and_replicas_have_an_interval_of_their_own(letters: tuple[Storage, str], tmp_path: Path) -> None:
    run, terminal = letters
    first = report_in(run)["table"][0]
    wide, narrow = first["top1_ci95_images_and_replicas"], first["top1_ci95"]
    assert wide[1] - wide[0] > 1.25 * (narrow[1] - narrow[0])
    assert first["top1_difference_ci95_images_and_replicas"] == [0, 0]
    page, markdown = pages_of(run)
    assert f"<small>seeds {wide[0]:.1f}\N{EN DASH}{wide[1]:.1f}</small>" in page
    assert f"| {wide[0]:.2f} - {wide[1]:.2f} |" in markdown
    assert f"{wide[0]:.2f} - {wide[1]:.2f}" in terminal
    report, terminal, *_ = composed(tmp_path, RIGHT, NOISY[0])
    assert not [name for name in report["table"][0] if "replicas" in name]
    assert "over images alone: 2 replicas say too little about those of another seed" in flat(terminal)


def trained_run(folder: Path, *last_errors: float) -> Storage:
    """A training run of which only the validation errors are known, the last ones as given."""
    folder.mkdir()
    run = Storage.at(str(folder))
    for replica, error in enumerate(last_errors):
        lines = [{"epoch": 1, "val_top1_error": 1.0}, {"epoch": 2, "val_top1_error": error}]
        run.write_json_lines(f"replicas/{replica}/metrics.jsonl", lines)
    return run


def test_the_best_one_is_chosen_by_the_validation_images_of_its_training(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trained = trained_run(tmp_path / "trained", 30.0, 20.0, 25.0)
    run, terminal = written(tmp_path / "run", *NOISY, trained=trained)
    single = report_in(run)["single_model"]
    assert (single["replica"], single["chosen_on"]) == ("replica_1", "training_validation_images")
    assert single["rows"][0]["top1_error"] == 50  # not the lowest on these images
    assert "It was chosen on the validation images of its training, not on these." in flat(terminal)
    assert "<small>best 50.0</small>" in pages_of(run)[0]


def test_a_choice_on_the_images_of_the_report_is_called_optimistic(
    letters: tuple[Storage, str], tmp_path: Path
) -> None:
    run, terminal = letters
    assert report_in(run)["single_model"]["replica"] == "replica_0"
    assert "It was chosen on these very images, so its errors are optimistic." in flat(terminal)
    (tmp_path / "run").mkdir()
    unknown = trained_run(tmp_path / "trained", 30.0)  # of two replicas nothing is known
    run, terminal = written(tmp_path / "run", *NOISY, trained=unknown)
    assert report_in(run)["single_model"]["chosen_on"] == "evaluated_images"
    assert "so its errors are optimistic" in flat(terminal)


def test_a_replica_that_beats_the_ensemble_is_named(tmp_path: Path) -> None:
    wrong = [(label + 1) % 6 for label in RIGHT]
    equal, *texts = composed(tmp_path, wrong, RIGHT)  # the first is surer, and wins in the average
    for text in map(flat, texts):
        assert "replica_1 errs on 0.00 % with 144 crops, all 2 models together on 100.00 %" in text
    for row in equal["table"]:
        row["top1_error"] = 0.0
    assert "beats the ensemble" not in " ".join(notes(equal))
    equal["table"][-2]["top1_error"] = 20.0  # only with ten crops
    [told] = [note for note in notes(equal) if "beats the ensemble" in note]
    assert ": replica_1 errs on 0.00 % with 10 crops, all 2 models together on 20.00 %. Averaging" in told


def test_replicas_that_are_missing_are_not_called_failed(tmp_path: Path) -> None:
    claim(Storage.at(str(tmp_path)), "recipe", Recipe(replicas=3).to_dict())
    _, terminal = written(tmp_path, *NOISY[:2])
    assert "Only 2 of 3 replicas were evaluated (replica_0, replica_1); the other one was not finished." in flat(
        terminal
    )
    assert "failed" not in terminal


def test_one_of_something_is_singular(letters: tuple[Storage, str]) -> None:
    report = report_in(letters[0])
    row = {name: value for name, value in report["table"][0].items() if "_and_replicas" not in name}  # of one replica
    one_view = {**report["pooling"][0], "crops": 1, "policy": "1"}
    ensemble = {**report["ensemble"], "replicas": ["replica_0"]}
    single = {
        **report,
        "images": 1,
        "classes": 1,
        "table": [row],
        "replicas": report["replicas"][:1],
        "pooling": [one_view],
        "view_groups": [],
        "class_errors": report["class_errors"][:1],
        "ensemble": ensemble,
        "diversity": {"disagreement": [[0.0]], "pairs": []},
    }
    text = " ".join([headline(single), *notes(single)])
    assert "One model with one crop errs on" in text
    assert "of 1 image." in text
    strip = {"title": "84 px", "source": "", "views": 1}
    cost: Any = {**COST, "passes_per_second": 1.2, "predictor_seconds": 1.0, "forward_passes": 1}
    page = report_page(single, cost, "", {}, {}, {"image_id": "a", "strips": [strip], "mistakes": []})
    report_md = markdown(single, cost, {}, {})
    for told in (text, page, report_md):
        assert not re.search(
            r"\b1 (\w+ )?(images|classes|models|crops|replicas|views|passes|seconds|GoogLeNets)\b", told
        )
    assert 'alt="1 view of a, 84 px"' in page
    assert "<p>1 GoogLeNet on images</p>" in page
    assert "## Averaging or maximum over 1 crop\n" in report_md
    assert "(1 pass per second, fp32)" in report_md


def test_chosen_views_are_called_alike_on_the_page_and_in_the_pictures(letters: tuple[Storage, str]) -> None:
    report = report_in(letters[0])
    for row in [*report["table"], *report["single_model"]["rows"]]:
        row.update({"policy": "best:24:00ff", "crops": 24} if row["crops"] == 10 else {})
    assert heat_map(report, "top1")["columns"] == ["1 crop", "24 crops (best)", "144 crops"]
    labels = [text.get_text() for text in figures(report)["error_by_models"].axes[0].get_legend().get_texts()]
    assert labels == ["1 crop", "24 crops (best)", "144 crops"]


def test_report_md_shows_every_picture_beside_it(letters: tuple[Storage, str]) -> None:
    run, _ = letters
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", pages_of(run)[1])
    assert sorted(shown) == [name for name in run.files("report") if name.endswith(".png")]
    assert {"learning_curves.png", "disagreement.png", "diversity.png"} < set(shown)


def test_pairs_are_drawn_from_three_replicas_on(letters: tuple[Storage, str], tmp_path: Path) -> None:
    assert {"diversity", "disagreement"} < figures(report_in(letters[0])).keys()
    report, *_, markdown_text = composed(tmp_path, *NOISY[:2])
    assert not {"diversity", "disagreement"} & figures(report).keys()
    assert "## Diversity" in markdown_text  # its numbers remain


def test_the_counts_of_the_reliability_diagram_have_the_colour_of_the_text(letters: tuple[Storage, str]) -> None:
    figure = figures(report_in(letters[0]))["reliability"]
    assert figure.axes[0].get_title(loc="left") == "as averaged, 6 images; in each bin:"
    counts = [text for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert sum(int(text.get_text()) for text in counts) == 6
    assert {text.get_color() for text in counts} == {"black"}
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    [dots] = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert np.allclose(dots.get_ydata(), bars)  # both are accuracies, as the legend says
