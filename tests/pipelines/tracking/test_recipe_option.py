"""The recipe of a run in MLflow, for a job that must go on without MLflow."""

import shutil
from pathlib import Path

import pytest

from pipelines.errors import TryAgainError, UserError
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.recipe_option import recipe_of_options, tell_differences

NOBODY = "http://127.0.0.1:9"
ID = f"runs:/{'0' * 32}"


def asked(uri: str, run_dir: Path) -> list[str]:
    return ["--recipe", ID, "--tracking-uri", uri, "--run-dir", str(run_dir)]


def test_a_run_goes_on_with_its_own_recipe_if_mlflow_is_away_or_lacks_it(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(replicas=2, epochs=3)
    claim(Storage.at(str(tmp_path / "run")), "recipe", recipe.to_dict())
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for uri in (NOBODY, f"sqlite:///{tmp_path}/mlflow.db"):
        assert recipe_of_options(asked(uri, tmp_path / "run"), "paper") == recipe
        warning = capsys.readouterr().err.splitlines()[-1]
        assert warning.startswith(f"warning: no run {ID} in MLflow at {uri}: ")
        assert warning.endswith(f"; resuming with the recipe of {tmp_path}/run")


def test_a_new_run_is_refused_for_good_only_if_mlflow_says_that_there_is_no_such_recipe(
    tmp_path: Path, empty_store: Path
) -> None:
    with pytest.raises(TryAgainError, match="it does not answer"):
        recipe_of_options(asked(NOBODY, tmp_path / "run"), "paper")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with pytest.raises(UserError, match=r"; name another store with --tracking-uri$") as refused:
        recipe_of_options(asked(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run"), "paper")
    assert not isinstance(refused.value, TryAgainError)


def test_a_prepared_run_goes_on_if_what_differs_cannot_be_known(
    run: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_differences(ID, NOBODY, read_manifest(run))
    assert capsys.readouterr().out.startswith(f"warning: what differs from {ID} is not known: no run {ID} in MLflow")
