"""Claims: a model is logged and registered once for each set of answers, whatever users delete and whenever a job ends.

The models are made by hand: no weights are uploaded.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import LoggedModelOutput

from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.run.calibration import write_calibration
from pipelines.run.dataset import read_manifest
from pipelines.run.storage import Storage
from pipelines.tracking.model_identity import (
    ANSWERS_TAG,
    digest_tags,
    logged_ensemble,
    logged_model,
    registered_version,
)
from pipelines.tracking.model_pages import VERSIONS_TAG, name_on_its_page
from pipelines.tracking.models import PACKAGES, _requirements, log_ensemble, registered_name
from pipelines.tracking.runs import NOTE, MlflowRuns
from tests.pipelines.report.made_runs import ENSEMBLE
from tests.pipelines.tracking.followed_runs import RECIPE, copy_result, store_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def runs(run: Storage, reported_run: Path) -> MlflowRuns:
    """The MLflow runs of a finished run, without models."""
    copy_result(reported_run, run)
    return MlflowRuns(store_of(run), run, RECIPE)


def add_model(runs: MlflowRuns, tags: dict[str, str]) -> str:
    made = runs.client.create_logged_model(runs.experiment, "ensemble", runs.parent, tags=tags)
    runs.client.finalize_logged_model(made.model_id, "READY")
    runs.client.log_outputs(runs.parent, [LoggedModelOutput(made.model_id, 0)])
    return str(made.model_id)


def add_version(runs: MlflowRuns, tags: dict[str, str]) -> Any:
    name = registered_name(read_manifest(runs.run))
    if not runs.client.search_registered_models(f"name = '{name}'"):
        runs.client.create_registered_model(name)
    return runs.client.create_model_version(name, Path(runs.run.root).as_uri(), run_id=runs.parent, tags=tags)


def keep_calibration(run: Storage, temperature: float) -> None:
    kept = {"1": temperature, "10": 1.0, "144": 1.0}
    write_calibration(run, KeptCalibration(ENSEMBLE.weights_digests, "digest", 50, kept, kept))


def test_a_model_that_a_user_deleted_is_passed_over(runs: MlflowRuns) -> None:
    tags = digest_tags(runs.run, ENSEMBLE)
    first, second = add_model(runs, tags), add_model(runs, tags)
    for deleted, left in ((first, second), (second, None)):
        runs.client.delete_logged_model(deleted)
        assert logged_ensemble(runs, runs.run, ENSEMBLE) == left


def test_another_calibration_makes_another_model_of_the_same_weights(runs: MlflowRuns) -> None:
    keep_calibration(runs.run, 0.9)
    before, name = digest_tags(runs.run, ENSEMBLE), registered_name(read_manifest(runs.run))
    model, version = add_model(runs, before), add_version(runs, before)
    keep_calibration(runs.run, 0.9 + 1e-12)  # as fitted by another processor
    again = digest_tags(runs.run, ENSEMBLE)
    assert logged_ensemble(runs, runs.run, ENSEMBLE) == model
    assert registered_version(runs, name, again).version == version.version
    keep_calibration(runs.run, 0.8)
    after = digest_tags(runs.run, ENSEMBLE)
    assert logged_ensemble(runs, runs.run, ENSEMBLE) is None
    assert registered_version(runs, name, after) is None
    newer = add_model(runs, after)
    weights, _ = after.values()
    assert logged_model(runs, runs.parent, weights) == newer  # that evaluations of other images are sent to


def test_a_version_of_an_earlier_release_is_not_uploaded_again(runs: MlflowRuns) -> None:
    digests = digest_tags(runs.run, ENSEMBLE)
    old = {name: digest for name, digest in digests.items() if name != ANSWERS_TAG}
    model, version = add_model(runs, old), add_version(runs, old)
    keep_calibration(runs.run, 0.9)
    assert logged_ensemble(runs, runs.run, ENSEMBLE) == model
    digests = digest_tags(runs.run, ENSEMBLE)
    assert registered_version(runs, version.name, digests).version == version.version
    log_ensemble(runs, runs.run, RECIPE, read_manifest(runs.run))
    assert logged_ensemble(runs, runs.run, ENSEMBLE) == model
    # From then on it is that of these answers alone.
    keep_calibration(runs.run, 0.8)
    assert logged_ensemble(runs, runs.run, ENSEMBLE) is None
    assert registered_version(runs, version.name, digest_tags(runs.run, ENSEMBLE)) is None


def test_what_a_killed_job_left_undone_on_the_pages_of_its_model_is_done_by_the_next(runs: MlflowRuns) -> None:
    digests = digest_tags(runs.run, ENSEMBLE)
    model, version = add_model(runs, digests), add_version(runs, {**digests, "top1_error": "99.0"})
    for _ in range(2):
        assert log_ensemble(runs, runs.run, RECIPE, read_manifest(runs.run)) == (version.name, str(version.version))
    [named] = json.loads(runs.client.get_logged_model(model).tags[VERSIONS_TAG])
    assert (named["name"], str(named["version"])) == (version.name, str(version.version))
    assert runs.client.get_model_version(version.name, version.version).tags["top1_error"] == "16.667"


def test_the_page_of_a_model_describes_its_newest_version_until_a_user_writes_there(runs: MlflowRuns) -> None:
    model = add_model(runs, digest_tags(runs.run, ENSEMBLE))

    def note_of(name: str) -> str:
        name_on_its_page(runs, model, name, "1", f"{name} described")
        return str(runs.client.get_logged_model(model).tags[NOTE])

    assert [note_of(name) for name in ("first", "second")] == ["first described", "second described"]
    runs.client.set_logged_model_tags(model, {NOTE: "second described; used in the paper"})
    assert note_of("third") == "second described; used in the paper"
    named = json.loads(runs.client.get_logged_model(model).tags[VERSIONS_TAG])
    assert [version["name"] for version in named] == ["first", "second", "third"]


@pytest.mark.usefixtures("opencv_of_another_package")
def test_opencv_of_another_package_stops_no_model() -> None:
    found = _requirements(*PACKAGES)
    assert "opencv-python-headless" in found
    assert f"numpy=={version('numpy')}" in found
