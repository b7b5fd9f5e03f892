"""The choice of the champion of a data set."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from pipelines.errors import UserError
from pipelines.run.dataset import Manifest, Shard, Split
from pipelines.run.storage import Storage
from pipelines.tracking.model_identity import WEIGHTS_TAG
from pipelines.tracking.models import MODEL, registered_name
from pipelines.tracking.publish import ChampionRule, PublishSettings, _percent, choose_champion
from pipelines.tracking.runs import MlflowRuns

pytestmark = pytest.mark.timeout(120)


class Registry:
    """Registered versions with given errors, in their own store."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        from pipelines.run.claims import claim
        from pipelines.run.recipe import Recipe

        run = Storage.at(str(folder / "run"))
        claim(run, "recipe", Recipe(replicas=1).to_dict())
        shutil.copy(empty_store, folder / "mlflow.db")
        self.runs = MlflowRuns(f"sqlite:///{folder}/mlflow.db", run, Recipe(replicas=1))
        self.runs.client.create_registered_model(MODEL)
        self._source = folder.as_uri()

    def version(self, top5_error: float, top1_error: float, classes: int = 1000, **metrics: float) -> str:
        tags = {"top5_error": str(top5_error), "top1_error": str(top1_error), "classes": str(classes)}
        run = self.runs.client.create_run(self.runs.experiment).info.run_id if metrics else None
        for name, value in metrics.items():
            self.runs.client.log_metric(run, name, value)
        return str(self.runs.client.create_model_version(MODEL, self._source, run_id=run, tags=tags).version)

    def choose(self, number: str, rule: ChampionRule = "better", metric: str = "") -> str:
        return choose_champion(self.runs, MODEL, number, rule, metric)

    @property
    def champion(self) -> str:
        return str(self.runs.client.get_model_version_by_alias(MODEL, "champion").version)


def test_a_server_that_fails_is_not_taken_for_one_without_a_champion(tmp_path: Path, empty_store: Path) -> None:
    registry = Registry(tmp_path, empty_store)
    registry.choose(registry.version(1.0, 1.0))
    worse = registry.version(9.0, 9.0)

    class Failing:
        """A client that fails on everything but ``get_model_version``."""

        def __getattr__(self, name: str) -> Any:
            if name == "get_model_version":
                return registry.runs.client.get_model_version
            raise MlflowException("503")

    broken = copy.copy(registry.runs)
    broken.client = Failing()
    with pytest.raises(MlflowException, match="503"):
        choose_champion(broken, MODEL, worse, "better")
    assert registry.champion == "1"


def test_the_champion_is_the_version_that_errs_least(tmp_path: Path, empty_store: Path) -> None:
    registry = Registry(tmp_path, empty_store)
    first = registry.version(7.0, 25.0)
    assert "the first champion" in registry.choose(first)
    worse = registry.version(9.0, 20.0)  # the top-5 error decides, as in the competition
    line = registry.choose(worse)
    assert "version 1 stays champion" in line
    assert "top-5 error / top-1 error 9.00 / 20.00 %, version 1 7.00 / 25.00 %" in line
    # The line ends with the command that makes it champion.
    way_out = f"python pipelines/replay_to_mlflow.py --run-dir {tmp_path}/run --champion always"
    assert line.endswith(f"to make version 2 champion: {way_out}")
    assert registry.champion == first
    better = registry.version(7.0, 24.0)  # with equal top-5 errors, the top-1 error decides
    assert "version 3, the new champion (" in registry.choose(better)
    assert registry.champion == better
    assert "--champion always" in registry.choose(registry.version(0.0, 0.0), "never")
    assert registry.champion == better
    assert "the new champion after version 3" in registry.choose(worse, "always")
    assert registry.champion == worse
    assert registry.choose(worse).endswith("version 2, the champion")


def test_with_ten_classes_the_top1_error_alone_decides(tmp_path: Path, empty_store: Path) -> None:
    registry = Registry(tmp_path, empty_store)
    registry.choose(registry.version(0.0, 25.0, classes=10))
    better = registry.version(5.0, 20.0, classes=10)
    assert "(top-1 error 20.00 %, version 1 25.00 %)" in registry.choose(better)
    assert registry.champion == better


def test_errors_are_shown_as_exactly_as_they_are_compared() -> None:
    assert [_percent((error,)) for error in (6.666, 6.67, 12.5, 0.0)] == ["6.666 %", "6.67 %", "12.50 %", "0.00 %"]


def test_another_metric_decides_if_both_runs_have_it(tmp_path: Path, empty_store: Path) -> None:
    registry, metric = Registry(tmp_path, empty_store), "negative_log_likelihood/7x144/calibrated"
    registry.choose(registry.version(1.0, 1.0, **{metric: 0.5}), metric=metric)
    likelier = registry.version(9.0, 9.0, **{metric: 0.4})
    line = registry.choose(likelier, metric=metric)
    assert line.endswith(f"version 2, the new champion ({metric} 0.4000, version 1 0.5000)")
    assert registry.champion == likelier
    line = registry.choose(registry.version(0.0, 0.0, **{metric: 0.4}), metric=metric)
    assert "version 2 stays champion" in line
    line = registry.choose(registry.version(0.0, 0.0), metric=metric)
    assert f"version 2 stays champion, since the run of version 4 has no metric {metric}" in line
    assert registry.champion == likelier
    # `mlflow gc` has removed the run of the champion.
    gone = registry.runs.client.get_model_version(MODEL, likelier).run_id
    registry.runs.client._tracking_client.store._hard_delete_run(gone)
    line = registry.choose(registry.version(0.0, 0.0, **{metric: 0.1}), metric=metric)
    assert f"version 2 stays champion, since the run of version 2 has no metric {metric}" in line


def test_a_champion_that_a_user_has_registered_without_errors_stays_and_the_line_says_why(
    tmp_path: Path, empty_store: Path
) -> None:
    registry = Registry(tmp_path, empty_store)
    theirs = registry.runs.client.create_model_version(MODEL, tmp_path.as_uri()).version
    registry.runs.client.set_registered_model_alias(MODEL, "champion", theirs)
    line = registry.choose(registry.version(1.0, 1.0))
    assert "version 2; version 1 stays champion, since version 1 has no errors among its tags; to make" in line
    assert registry.champion == "1"


def test_the_same_weights_with_a_newer_calibration_take_over_and_those_of_another_run_do_not(
    tmp_path: Path, empty_store: Path
) -> None:
    registry = Registry(tmp_path, empty_store)
    client, tags = registry.runs.client, {"top1_error": "1.0", "classes": "10", WEIGHTS_TAG: "x"}
    own = client.create_run(registry.runs.experiment).info.run_id
    for run_id, tag, champion in ((own, "x", "1"), (own, "x", "2"), (own, "y", "2"), (None, "x", "2")):
        made = client.create_model_version(MODEL, tmp_path.as_uri(), run_id=run_id, tags={**tags, WEIGHTS_TAG: tag})
        registry.choose(str(made.version))
        assert registry.champion == champion
    assert "stays champion" in registry.choose("1", "never")
    # Its calibration was restored, say: what is champion is not always the earlier of the two.
    line = registry.choose("1")
    assert line.endswith("version 1, the new champion after version 2, another evaluation of the same replicas")


@pytest.mark.parametrize("name", ["nll", "top1_error", "top1_error/7x144/calibrated", "images"])
def test_a_metric_that_no_run_has_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(UserError, match=f"--champion-metric must be a score and a cell .*, got '{name}'"):
        PublishSettings("", champion_metric=name)


def test_each_data_set_has_a_model_of_its_own() -> None:
    def manifest(data: str, digest: str) -> Manifest:
        val = Split((Shard("0.parquet", 1, digest),), {"a": 1})
        return Manifest({"data": data}, ("a",), {"train": Split((), {"a": 0}), "val": val}, "", 0)

    digits, photos = manifest("embedded", "1"), manifest("/my photos/10% off?", "2")
    assert re.fullmatch(r"googlenet-ensemble-embedded-[0-9a-f]{8}", registered_name(digits))
    assert re.fullmatch(r"googlenet-ensemble-10_off_-[0-9a-f]{8}", registered_name(photos))
    # Another folder of the same name, and the same folder with other validation images.
    assert registered_name(manifest("/a/photos", "1")) != registered_name(manifest("/b/photos", "2"))
