"""The comparison of students: options of its runs, its questions on answers made by hand, and its tables."""

from pathlib import Path

import numpy as np
import pytest

from experiments.answers import Answers, print_differences
from experiments.students import ERRORS, QUESTIONS, Arguments, Seed, _soups, epochs_of_labels, options_of
from pipelines.errors import UserError
from pipelines.report.outcomes import soup_cell, write_outcomes
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage


def test_a_network_from_labels_gets_the_time_of_the_teachers_answers_as_well(tmp_path: Path) -> None:
    """Seven replicas with ten views cost 70 passes of an image, 23 1/3 epochs of forward and backward."""
    arguments = Arguments(tmp_path)
    assert epochs_of_labels(arguments) == demo().epochs + 24
    assert epochs_of_labels(Arguments(tmp_path, teacher_policy="64+72")) == demo().epochs + 168
    assert epochs_of_labels(Arguments(tmp_path, teacher_policy="best:3")) == demo().epochs + 7
    labels = options_of(arguments, 100)["labels"]
    assert labels[labels.index("--epochs") + 1] == str(demo().epochs + 24)
    assert labels[labels.index("--replicas") + 1] == "1"


def test_the_student_takes_everything_but_its_loss_from_the_teacher_of_its_seed(tmp_path: Path) -> None:
    options = options_of(Arguments(tmp_path, data="photos", temperature=3.0), 100)
    assert options["teacher"][:8] == ["--recipe", "demo", "--data-seed", "100", "--weights-seed", "100",
                                      "--sampling-seed", "100"]  # fmt: skip
    assert options["teacher"][8:] == ["--data", "photos", "--replicas", "7", "--soup"]
    assert options["student"] == [
        "--recipe", "distil", "--teacher", f"{tmp_path}/teacher100", "--teacher-policy", "10",
        "--teacher-temperature", "3.0", "--label-weight", "0.5",
    ]  # fmt: skip


RIGHT, HALF, NONE = ([[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.6, 0.4]])


def a_seed(dataset_digest: str = "") -> Seed:
    """Two images of two classes, alike for each policy; a teacher of two replicas that errs on neither, one on both."""

    def answers(*replicas: list[list[float]]) -> Answers:
        probabilities = np.array(replicas, np.float32).transpose(1, 0, 2)[:, :, None].repeat(3, axis=2)
        return Answers(probabilities, np.array([0, 1], np.int32), (1, 144, "96+120"), dataset_digest)

    soups = {"uniform": np.full((2, 3), 100.0), "greedy": np.zeros((2, 3))}
    return Seed(answers(RIGHT, NONE), answers(RIGHT), answers(HALF), soups)


def test_the_questions_compare_what_they_say() -> None:
    found = [ask(a_seed()).mean(axis=0).tolist() for ask in QUESTIONS.values()]
    assert found == [[-50.0] * 3, [-50.0] * 3, [0.0] * 3, [50.0] * 3, [-50.0] * 3]
    assert [errors(a_seed()).mean() for errors in ERRORS.values()] == [50.0, 0.0, 0.0, 50.0, 100.0, 0.0]


def test_differences_are_told_over_images_and_over_three_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    print_differences({seed: a_seed(str(seed)) for seed in (0, 100, 200)}, QUESTIONS, lambda seed: seed.teacher)
    out = capsys.readouterr().out
    assert out.count("| | 1 crop | 144 crops | 96+120 crops |") == 2
    assert out.count("| student against its teacher | +0.0 (+0.0 to +0.0) |") == 2
    assert "(95 % interval over the 6 images)" in out
    assert "(95 % interval over the 3 seeds)" in out


def test_the_errors_of_soups_are_those_of_the_runs_own_policies(tmp_path: Path) -> None:
    """Another recipe's policies are neither so many, nor named like the usual ones."""
    run, wrong = Storage.at(str(tmp_path)), np.array([True, False])
    soups = {"uniform": (wrong, ~wrong), "greedy": (wrong & ~wrong, wrong | ~wrong)}
    cells = {kind: [soup_cell(kind, policy) for policy in ("1", "96+120")] for kind in soups}
    columns = {f"top1_wrong/{cell}": w for kind in soups for cell, w in zip(cells[kind], soups[kind], strict=True)}
    write_outcomes(run, ["a", "b"], np.zeros((2, 1, 2, 2)), (1, "96+120"), columns)
    found = {kind: errors.tolist() for kind, errors in _soups(run, (1, "96+120")).items()}
    assert found == {"uniform": [[100.0, 0.0], [0.0, 100.0]], "greedy": [[0.0, 100.0], [0.0, 100.0]]}


def test_a_teacher_without_soups_is_told_how_to_get_them(finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"has no soups: python pipelines/evaluate_ensemble.py --run-dir .* --soup"):
        _soups(Storage.at(str(finished_run)), [1])
