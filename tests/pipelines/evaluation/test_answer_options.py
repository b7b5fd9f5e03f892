"""Tests of options for answers that cannot be kept: they are refused before anything is evaluated."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.evaluation.answer_options import about_no_temperature, check_ood, check_sets
from pipelines.evaluation.options import Arguments, check_options
from pipelines.evaluation.other_images import choose
from pipelines.run.budget import budget_in_use
from pipelines.run.calibration import write_calibration
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import weights_digests
from tests.prepared import some_weights


def test_sets_for_crops_that_the_run_has_not_fitted_are_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    keep_calibration(run, 2)
    check_sets(run, range(2), (144, 1, 10), 0.9)
    check_sets(run, range(2), (10,), None)
    for policies, named in (((1, 10), "10"), ((chosen_policy(range(3)), 1), "best:3")):
        with pytest.raises(
            UserError, match=rf"^--coverage 0\.9 needs sets for the crop policy {named}, .* be one of 1, 144$"
        ):
            check_sets(run, range(2), policies, 0.9)


def test_a_coverage_that_so_few_images_cannot_promise_is_refused_with_the_highest(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    keep_calibration(run, 2)
    check_sets(run, range(2), (144,), 0.97)
    told = r"^--coverage 0\.98 needs 49 validation images or more, .* has 42: at most 0\.9767 can be promised$"
    with pytest.raises(UserError, match=told):
        check_sets(run, range(2), (144,), 0.98)
    check_sets(run, range(2), (144,), 0.9767)


def test_a_calibration_of_other_replicas_is_told_before_anything_is_evaluated(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    keep_calibration(run, 2)
    assert about_no_temperature(run, range(2), (1, 144)) == ""
    assert about_no_temperature(run, range(2), (1, 10)).endswith("the run keeps none for the crop policy 10")
    run.write("replicas/2/weights.safetensors", some_weights(2))  # one more is finished
    first = f"python pipelines/evaluate_ensemble.py --run-dir {run}"
    told = about_no_temperature(run, range(3), (1, 144))
    assert told.endswith(f"none for these 3 replicas together; evaluate the run first: {first}")
    with pytest.raises(UserError, match=rf"^--coverage 0\.9 needs .* these 3 replicas together; .* first: {first}$"):
        check_sets(run, range(3), (1, 144), 0.9)
    run.delete("calibration.json")
    with pytest.raises(
        UserError, match=rf"keeps none yet; evaluate it on at least 40 validation images first: {first}$"
    ):
        check_sets(run, range(3), (1, 144), 0.9)
    assert "will not be calibrated: this needs a temperature, and the run keeps none yet" in about_no_temperature(
        run, range(3), (1, 144)
    )
    assert about_no_temperature(run, range(3), (chosen_policy(range(3)),)) == ""


def test_the_report_of_labelled_images_takes_a_coverage_for_which_the_run_keeps_nothing(tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path)), Recipe(replicas=2, crop_px=35)
    keep_calibration(run, 2)
    asked = Arguments(run.root, "photos", policies=(10,), coverage=0.99)
    for labelled in (
        asked,
        Arguments(run.root, coverage=0.99),
        Arguments(run.root, "photos", ("x.npz",), coverage=0.99),
    ):
        check_options(labelled)
    assert choose(run, recipe, asked).policies == (10,)
    with pytest.raises(UserError, match=r"^--coverage 0\.99 needs sets for the crop policy 10"):
        choose(run, recipe, replace(asked, unlabelled=True))


def keep_calibration(run: Storage, replicas: int) -> None:
    """Write the weights of replicas, and a calibration of them for 1 and 144 crops."""
    for replica in range(replicas):
        run.write(f"replicas/{replica}/weights.safetensors", some_weights(replica))
    temperatures, masses = {"1": 0.9, "144": 0.8}, {"1": [0.5] * 42, "144": [0.5] * 42}
    digests = weights_digests(run, range(replicas))
    write_calibration(run, KeptCalibration(digests, "digest", 42, temperatures, temperatures, masses))


def test_a_runs_own_images_are_not_something_else() -> None:
    for data in ("/photos", "/photos/val", "/"):
        with pytest.raises(UserError, match=f"^--ood {data} has the run's own images"):
            check_ood(data, "/photos")
    for data, own in (("/photos_of_flowers", "/photos"), ("/photos", "embedded"), ("/photos", "")):
        check_ood(data, own)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"set_penalty": 0.1, "unlabelled": True}, r"--set-penalty 0\.1 shortens sets .* it needs --coverage"),
        ({"set_penalty": -1.0}, "--set-penalty must not be negative"),
        ({"budget": "fast"}, "--budget fast is for the answers of a training run: it needs --unlabelled"),
        ({"budget": "fast", "unlabelled": True, "policies": (1,)}, "leave out --policies"),
        ({"budget": "fast", "unlabelled": True, "coverage": 0.9}, "cannot be combined with --coverage"),
        ({"coverage": 95.0, "unlabelled": True}, r"between 0 and 1, such as 0\.95, got 95"),
        ({"coverage": 0.95000001}, r"six digits, such as 0\.95, got 0\.95000001"),
        ({"coverage": 0.9, "unlabelled": True, "calibrated": False}, "leave out --no-calibrated"),
        ({"set_penalty": math.inf}, "--set-penalty must not be negative or infinite, got inf"),
        ({"calibrated": False}, "--no-calibrated only applies to answers: add --unlabelled"),
        ({"coverage": 0.9, "unlabelled": True, "weights": ("x.npz",)}, "needs a training run: leave out --weights"),
        ({"bad_images": "quarantine", "data": ""}, "--bad-images needs --data FOLDER or --ood FOLDER"),
        ({"crop_px": 0, "weights": ("x.npz",)}, "positive multiple of 7"),
    ],
)
def test_options_that_cannot_be_kept_or_do_nothing_are_refused_before_anything_is_evaluated(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_options(Arguments(**{"run_dir": str(tmp_path), "data": "photos", **given}))


def test_the_command_in_a_message_is_quoted_for_the_shell(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "My Drive" / "fine"))
    for replica in range(2):
        run.write(ReplicaFiles(replica).weights, some_weights(replica))
    told = about_no_temperature(run, range(2), (144,))
    assert shlex.split(told[told.index("python ") :])[-1] == run.root
    with pytest.raises(UserError) as refused:
        budget_in_use(run, range(2), "--budget fast")
    assert shlex.split(str(refused.value)[str(refused.value).index("python ") :])[-1] == run.root
