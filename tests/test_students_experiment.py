"""The comparison of students: options of its runs, its questions on answers made by hand, and its tables."""

from pathlib import Path

import numpy as np
import pytest

from experiments.ensembles import Answers
from experiments.students import ERRORS, QUESTIONS, Arguments, Seed, epochs_of_labels, options_of, print_differences
from pipelines.run.named_recipes import demo


def test_a_network_from_labels_gets_the_time_of_the_teachers_answers_as_well(tmp_path: Path) -> None:
    """Seven replicas with ten views cost 70 passes of an image, 23 1/3 epochs of forward and backward."""
    arguments = Arguments(tmp_path)
    assert epochs_of_labels(arguments) == demo().epochs + 24
    assert epochs_of_labels(Arguments(tmp_path, teacher_policy="64+72")) == demo().epochs + 168
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


def a_seed() -> Seed:
    """Two images of two classes and one policy; a teacher of two replicas that errs on neither image, one on both."""

    def answers(*replicas: list[list[float]]) -> Answers:
        probabilities = np.array(replicas, np.float32).transpose(1, 0, 2)[:, :, None].repeat(3, axis=2)
        return Answers(probabilities, np.array([0, 1], np.int32))

    soups = {"uniform": np.full((2, 3), 100.0), "greedy": np.zeros((2, 3))}
    return Seed(answers(RIGHT, NONE), answers(RIGHT), answers(HALF), soups)


def test_the_questions_compare_what_they_say() -> None:
    found = [ask(a_seed()).mean(axis=0).tolist() for ask in QUESTIONS.values()]
    assert found == [[-50.0] * 3, [-50.0] * 3, [0.0] * 3, [50.0] * 3, [-50.0] * 3]
    assert [errors(a_seed()).mean() for errors in ERRORS.values()] == [50.0, 0.0, 0.0, 50.0, 100.0, 0.0]


def test_differences_are_told_over_images_and_over_three_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    print_differences({seed: a_seed() for seed in (0, 100, 200)})
    out = capsys.readouterr().out
    assert out.count("| student against its teacher | +0.0 (+0.0 to +0.0) |") == 2
    assert "(95 % interval over the 6 images)" in out
    assert "(95 % interval over the 3 seeds)" in out
