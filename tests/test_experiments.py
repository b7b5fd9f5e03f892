"""The experiments' own arithmetic against brute force, and a run of each."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import experiments.ensembles
import experiments.short_runs
import experiments.students
import experiments.views
from experiments.answers import Answers, check_same_images, read_answers
from experiments.ensembles import (
    Arguments,
    main,
    options_of,
    print_errors,
    print_over_replicas,
    questions_of,
    recipe_of,
    without_each,
)
from experiments.intervals import over_images, over_images_and_replicas, over_seeds, student_interval
from googlenet.evaluation.metrics import EnsembleTally, bootstrap_interval
from googlenet.evaluation.two_way import two_way_intervals
from googlenet.evaluation.view_order import errors_along, greedy_order
from pipelines.errors import UserError
from pipelines.run.named_recipes import demo
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.commands import run_script
from tests.prepared import training_here

pytestmark = pytest.mark.timeout(300)


def test_students_interval_is_scipys() -> None:
    values = np.array([[1.0, 2.0], [2.5, -1.0], [0.5, 3.0], [1.5, 0.0]])
    low, high = student_interval(values)
    for column in range(2):
        expected = stats.ttest_1samp(values[:, column], 0).confidence_interval(0.95)
        assert (low[column], high[column]) == pytest.approx((expected.low, expected.high))


def test_an_image_has_no_say_in_the_order_of_views_that_it_is_measured_in() -> None:
    generator = np.random.default_rng(7)
    probabilities, labels = generator.dirichlet(np.ones(3), size=(12, 1, 4)), generator.integers(3, size=12)
    folds = np.arange(12) % 3
    for image in range(12):
        others = folds != folds[image]
        order = greedy_order(probabilities[others], labels[others])
        alone = errors_along(probabilities[[image]], labels[[image]], order)
        assert experiments.views.held_out_errors(probabilities, labels, folds)[image] == pytest.approx(alone[0])


def test_the_questions_compare_what_they_say() -> None:
    """Two images of two classes, one policy; replicas that are right about both, one, or none."""
    right, half, none = ([[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.6, 0.4]])

    def answers(*replicas: list[list[float]]) -> Answers:
        probabilities = np.array(replicas, np.float32).transpose(1, 0, 2)[:, :, None]
        return Answers(probabilities, np.array([0, 1], np.int32), (1,), "digest")

    runs = {
        "paper": answers(right, none),  # together right about both
        "initialisations": answers(none, none),
        "wide": answers(half),
        "long": answers(half, half),
    }
    found = {question: ask(runs).mean(axis=0).tolist() for question, ask in questions_of(runs).items()}
    assert list(found.values()) == [[100.0], [50.0], [-100.0], [-50.0], [0.0], [0.0], [50.0]]


def test_a_comparison_has_the_runs_that_were_asked_for_and_their_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(options_of(Arguments(tmp_path), 0)) == ["paper", "initialisations", "wide", "long"]
    assert list(options_of(Arguments(tmp_path, compare=("long",)), 0)) == ["paper", "long"]
    answers = Answers(np.full((9, 4, 1, 2), 0.5, np.float32), np.zeros(9, np.int32), (1,), "digest")
    print_over_replicas({"paper": answers, "long": answers})
    questions = re.findall(r"^\| ([a-z ]+):", capsys.readouterr().out, re.MULTILINE)
    assert questions == ["one replica trained for all epochs of the ensemble"] * 2


def test_the_two_ensembles_of_seven_differ_in_the_initial_weights_alone(tmp_path: Path) -> None:
    options = options_of(Arguments(tmp_path), 100)
    seeds = ["--data-seed", "100", "--weights-seed", "100", "--sampling-seed", "100"]
    assert options["paper"] == [*seeds, "--replicas", "7"]
    assert options["initialisations"] == [*options["paper"], "--no-shared-initial-weights"]


def test_the_long_replicas_train_as_long_as_all_of_the_ensemble_together(tmp_path: Path) -> None:
    options = options_of(Arguments(tmp_path, recipe="demo", replicas=3), 100)["long"]
    assert options[options.index("--epochs") + 1] == str(3 * demo().epochs)
    assert options[options.index("--replicas") + 1] == "2"
    options = options_of(Arguments(tmp_path, long_replicas=1), 100)["long"]
    assert options[options.index("--replicas") + 1] == "1"


def test_intervals_are_over_the_images_of_all_seeds_or_over_the_seeds() -> None:
    by_seed = [np.full((40, 1), value) for value in (-10.0, 0.0, 10.0)]
    low, high = over_images(by_seed, ["a", "b", "c"])
    assert (low[0], high[0]) == pytest.approx((-1.5, 1.5), abs=0.3)  # 1.96 standard errors of 120 values
    low, high = over_seeds(by_seed)
    assert (low[0], high[0]) == pytest.approx((-24.8, 24.8), abs=0.1)  # 4.30 standard errors of three


def test_intervals_over_replicas_are_those_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Probabilities of 60 images, seven replicas that are right more or less often, one policy and three classes.

    A long replica that is always right: the difference to the ensemble is the ensemble's own error, less nothing.
    """
    shift = np.array([0.1, 0.4, 0.2, 0.9, 0.3, 0.0, 0.6])[:, None, None] * np.array([1.0, 0.0, 0.0])
    scores = np.random.default_rng(0).random((60, 7, 1, 3)) + shift
    answers = Answers((scores / scores.sum(axis=3, keepdims=True)).astype(np.float32), np.zeros(60, np.int32), (1,), "")
    tally = EnsembleTally(7, 1)
    tally.update(answers.probabilities, answers.labels)
    (low, high), _ = two_way_intervals(tally)
    right = Answers(np.tile(np.float32([1, 0, 0]), (60, 1, 1, 1)), answers.labels, (1,), "")
    runs = {"paper": answers, "long": right}
    for title, ask in questions_of(runs).items():
        size = 6 if title.endswith("ensemble") else 0
        bounds = over_images_and_replicas(ask(runs), without_each(runs, ask, range(7)))
        found = np.clip([-bounds[1][0], -bounds[0][0]], 0, 100)  # as the report does
        assert found == pytest.approx([100 * low[size, 0, 0], 100 * high[size, 0, 0]]), title
    alone = bootstrap_interval(answers.single_errors())
    assert 100 * (high - low)[0, 0, 0] > 1.2 * (alone[1] - alone[0])[0]
    one = answers.only([0])
    print_over_replicas({"paper": answers, "initialisations": answers, "wide": one, "long": one})
    printed = capsys.readouterr().out
    assert "(95 % interval over the 60 images and 7 replicas)" in printed
    assert "(95 % interval over the 60 images and 6 replicas)" in printed  # beside the wide one
    assert "error of the ensemble | +0.0 (+0.0 to +0.0) |" in printed  # the same answers
    assert "a wider last replica: error of the ensemble with it |" in printed
    assert "a wider last replica: its own error" not in printed  # one replica has no spread


def test_runs_of_different_images_are_not_paired() -> None:
    answers = Answers(np.zeros((2, 1, 2, 2), np.float32), np.array([0, 1], np.int32), (1, 144), "digest")
    check_same_images({"paper": answers, "long": answers})
    with pytest.raises(UserError, match="the runs paper, long are of different images"):
        check_same_images({"paper": answers, "long": replace(answers, dataset_digest="other")})


def test_a_run_without_predictions_or_labels_has_no_errors(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no predictions: give a finished run"):
        read_answers(Storage.at(str(tmp_path)))
    answers = read_answers(Storage.at(str(finished_run)))
    assert set(answers.labels) == set(range(answers.probabilities.shape[3]))
    for file in shutil.copytree(finished_run / "predictions", tmp_path / "predictions").glob("*.parquet"):
        table = pq.read_table(file)
        labels = pa.array([-1] * len(table), table.schema.field("label").type)
        pq.write_table(
            table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), labels), file
        )
    with pytest.raises(UserError, match=r"has images without labels, on which no error can be counted"):
        read_answers(Storage.at(str(tmp_path)))


def test_the_wide_replica_stays_in_each_ensemble_that_an_interval_draws(capsys: pytest.CaptureFixture[str]) -> None:
    """Six replicas that are always wrong, a seventh that is right as often as not, and a wide one that is always right.

    If the seventh or the wide one were drawn as well, the interval of their difference would be wide.
    """
    never, always = np.tile([0.0, 1.0], (400, 1)), np.tile([1.0, 0.0], (400, 1)) * 9
    half = np.where(np.arange(400)[:, None] % 2 == 0, always, never)
    paper = np.stack([never] * 6 + [half], axis=1)[:, :, None].astype(np.float32)

    def answers(probabilities: np.ndarray) -> Answers:
        return Answers(probabilities, np.zeros(400, np.int32), (1,), "digest")

    wide = answers(always[:, None, None].astype(np.float32))
    print_over_replicas({"paper": answers(paper), "initialisations": answers(paper), "wide": wide, "long": wide})
    [row] = [line for line in capsys.readouterr().out.splitlines() if "wider" in line]
    mean, low, high = (float(number) for number in re.findall(r"[+-][0-9.]+", row))
    assert (mean, low, high) == pytest.approx((-50, -54.9, -45.1), abs=0.5)  # 1.96 standard errors over 400 images


def test_columns_are_those_of_the_runs_own_policies(capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers(np.zeros((2, 1, 2, 2), np.float32), np.array([0, 1], np.int32), (1, 144), "digest")
    print_errors({0: {"paper": answers}})
    heading, _, row = capsys.readouterr().out.split("\n")[1:4]
    assert heading == "| seed | run | alone, 1 | all, 1 | alone, 144 | all, 144 |"
    assert row == "| 0 | paper | 50.0 | 50.0 | 50.0 | 50.0 |"


def test_an_image_that_several_seeds_answer_counts_once() -> None:
    values = 100.0 * (np.arange(120) % 3 == 0)[:, None]
    [one_seed, same_images] = [over_images([values] * seeds, ["same"] * seeds) for seeds in (1, 5)]
    assert np.array_equal(same_images, one_seed)
    assert (one_seed[1] - one_seed[0])[0] == pytest.approx(16.9, abs=0.6)  # 3.92 standard errors of 120 values
    # Two seeds of one data set, and one of another with as many images.
    low, high = over_images([values, values, values], ["same", "same", "other"])
    assert (high - low)[0] == pytest.approx(16.9 / 2**0.5, abs=0.6)


@pytest.mark.parametrize(("recipe", "wider"), {"demo": 0.375, "imagenette": 0.75}.items())
def test_the_wide_replica_is_wider_than_the_others(tmp_path: Path, recipe: str, wider: float) -> None:
    wide = recipe_of(["--recipe", recipe, *options_of(Arguments(tmp_path, recipe=recipe), 0)["wide"]])
    assert (wide.width, wide.replica_width(0)) == (pytest.approx(wider / 1.5), wider)
    with pytest.raises(UserError, match=f"--wide-replica-width must be more than {wide.width:g}"):
        options_of(Arguments(tmp_path, recipe=recipe, wide_replica_width=wide.width), 0)


@pytest.mark.apart
def test_views_are_weighed_on_a_finished_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiments.views.main(experiments.views.Arguments(str(finished_run)))
    table = json.loads((finished_run / "report/report.json").read_text())["table"]
    error = next(cell["top1_error"] for cell in table if cell["models"] == 3 and cell["crops"] == 144)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 144 | ")]
    assert f"{error:.1f} (" in lines[1]


def test_a_run_without_probabilities_of_views_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keeps no probabilities .* delete .*predictions and"):
        experiments.views.main(experiments.views.Arguments(str(tmp_path)))


def here(command: list[str], **_: object) -> None:
    """Run a job in this process, which has imported all it needs: as a command it would take ten seconds to start."""
    ended = run_script(*command[1:])
    assert ended.code == 0, ended.stderr


@pytest.mark.usefixtures("predictions_here")
def test_the_missing_ensemble_is_trained_and_all_are_compared(
    finished_run: Path, empty_store: Path, tiny_recipe: Recipe, tmp_path: Path, ray_cluster: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(replace(tiny_recipe, epochs=1).to_dict()))
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs/mlflow.db")
    arguments = Arguments(tmp_path / "runs", seeds=(0,), recipe=str(recipe), replicas=2, wide_replica_width=0.25)
    for name, options in options_of(arguments, 0).items():
        if name != "wide":  # the others are finished, so they are not trained again
            about = Path(shutil.copytree(finished_run, tmp_path / f"runs/{name}0")) / "run.json"
            asked = recipe_of(["--recipe", str(recipe), *options]).to_dict()
            about.write_text(json.dumps({**json.loads(about.read_text()), "recipe": asked}))
    monkeypatch.setattr("experiments.ensembles.subprocess", SimpleNamespace(run=here))
    with training_here():
        main(arguments)
    out = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in out.splitlines() if line.startswith("| 0 | ")] == [
        "paper", "initialisations", "wide", "long",
    ]  # fmt: skip
    wide = json.loads((tmp_path / "runs/wide0/run.json").read_text())["recipe"]
    assert (wide["sampling_seed"], wide["wide_replica_width"], wide["epochs"]) == (1, 0.25, 1)


@pytest.mark.parametrize("script", ["ensembles", "students"])
def test_a_finished_run_of_other_options_is_no_answer_to_these(
    reported_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    name, module = {"ensembles": ("paper", experiments.ensembles), "students": ("teacher", experiments.students)}[
        script
    ]
    shutil.copytree(reported_run, tmp_path / f"runs/{name}0")
    monkeypatch.setattr(
        "experiments.ensembles.subprocess", SimpleNamespace(run=lambda *_, **__: pytest.fail("trained"))
    )
    with pytest.raises(UserError, match=rf"/{name}0 holds a different recipe:(.|\n)*replicas: was 2, is now 7"):
        module.train(module.Arguments(tmp_path / "runs"), 0)
