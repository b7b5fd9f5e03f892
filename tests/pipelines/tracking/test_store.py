"""URIs of stores in folders with any name, and parameters that keep their value but not their spelling."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException

from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.named_recipes import RECIPES
from pipelines.run.recipe import Recipe
from pipelines.run.recipe_json import recipe_from_dict
from pipelines.run.storage import Storage
from pipelines.tracking.commands import how_to_open, how_to_use, replay_command
from pipelines.tracking.fetch import differences_from
from pipelines.tracking.runs import Experiment, MlflowRuns
from pipelines.tracking.store import (
    ID_TAG,
    check_that_it_can_be_written,
    checked,
    database_of,
    find_parent,
    tracking_uri_for,
    trained_run_of,
)
from tests.others_files import somebody_elses
from tests.pipelines.tracking.followed_runs import follow, runs_of

pytestmark = pytest.mark.timeout(120)


def claimed(folder: Path, recipe: Recipe) -> Storage:
    run = Storage.at(str(folder))
    claim(run, "recipe", recipe.to_dict())
    return run


def test_a_user_without_a_home_folder_is_asked_for_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="no home folder for an MLflow store; name one with --tracking-uri"):
        tracking_uri_for(Storage.at("memory://bucket/run"))


@pytest.mark.parametrize("name", ["what?", "100%41", "with space", "a#b&c=d", "wörter"])
def test_a_store_in_a_folder_of_any_name_is_found_again_with_its_artifacts(
    tmp_path: Path, empty_store: Path, name: str
) -> None:
    recipe, folder = Recipe(replicas=1), tmp_path / name
    run = claimed(folder / "run", recipe)
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = tracking_uri_for(run)
    runs = MlflowRuns(uri, run, recipe)
    runs.client.log_text(runs.parent, "text", "file.txt")
    again = MlflowClient(checked(uri))
    found = find_parent(again, run)
    assert (found.info.run_id, found.info.run_name) == (runs.parent, "run")
    assert Path(again.download_artifacts(runs.parent, "file.txt")).read_text() == "text"
    assert database_of(uri) == folder / "mlflow.db"
    # MLflow creates a folder of the quoted name, and leaves it empty.
    assert not [path for path in tmp_path.rglob("*") if not path.is_relative_to(folder) and not path.is_dir()]
    assert {path.name for path in folder.iterdir()} == {"run", "mlflow.db", "mlflow.db.lock", "mlartifacts"}


def test_a_question_mark_in_a_path_has_to_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write it as %3F"):
        checked(f"sqlite:///{tmp_path}/what?/mlflow.db")
    quoted = f"sqlite:///{tmp_path}/what%3F/mlflow.db?timeout=5"
    assert checked(quoted) == quoted


@pytest.mark.parametrize("path", ["runs/mlflow.db", "/runs/my store.db", "runs", "mlflow.db"])
def test_a_path_is_refused_with_the_uri_of_the_store_there(path: str) -> None:
    with pytest.raises(UserError, match="has no scheme") as refused:
        tracking_uri_for(Storage.at("runs/any"), path)
    uri = str(refused.value).partition("write ")[2]
    database = Path(path).absolute()
    assert database_of(checked(uri)) == (database if database.suffix else database / "mlflow.db")


@pytest.mark.parametrize(
    "uri",
    ["http://server:5000", "https://server/mlflow", "databricks", "databricks-uc", "databricks://profile",
     "postgresql://server/mlflow", "uc:https://server", "arn:aws:sagemaker:eu:1:server/x"],
)  # fmt: skip
def test_every_uri_that_mlflow_knows_is_accepted_as_it_is(uri: str) -> None:
    assert checked(uri) == uri


def test_a_store_that_ray_would_remove_with_a_submitted_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "working_dir_files/_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match=r"lies in Ray's copy of the project, .*name a server, or .* sqlite:////PATH"):
        checked("sqlite:///runs/mlflow.db")
    assert checked(f"sqlite:///{tmp_path}/mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_folder_of_earlier_stores_is_refused_unless_mlflow_is_told_to_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"^MLflow no longer keeps runs in folders .* write sqlite:///"):
        checked("file:///runs/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert checked("file:///runs/mlruns") == "file:///runs/mlruns"


def test_half_an_address_is_told_without_its_password() -> None:
    with pytest.raises(UserError, match=r"^the MLflow URI \[::1:5000 cannot be used: Invalid IPv6 URL$"):
        checked("http://me:secret@[::1:5000")


def test_a_password_of_a_database_is_not_told_to_be_one_of_a_server() -> None:
    for uri in ("postgresql://me:secret@db/mlflow", "postgresql://me@db/mlflow?password=secret"):
        with pytest.raises(UserError, match="PGPASSWORD") as refused:
            checked(uri)
        assert not re.search("secret|MLFLOW_TRACKING_PASSWORD", str(refused.value))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked("sqlite:///~/runs/mlflow.db") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    with pytest.raises(UserError, match=rf"write sqlite:///{tmp_path}/mlflow\.db$"):
        checked("~/mlflow.db")


@pytest.mark.parametrize("server", ["10.0.0.3:5000", "head:5000", "my-head.example.org:80/mlflow", "localhost:5000/"])
def test_a_server_without_a_scheme_is_told_with_one(server: str) -> None:
    with pytest.raises(UserError, match=f"has no scheme; for the server there, write http://{server}$"):
        checked(server)
    assert checked(f"http://{server}") == f"http://{server}"


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:"])
def test_a_store_in_memory_whose_runs_would_be_lost_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"names no file, so its runs would be lost; write sqlite:///PATH/mlflow\.db$"):
        checked(uri)


def test_a_scheme_that_mlflow_does_not_know_is_refused_with_those_that_it_knows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"htp://x has a scheme that MLflow does not know \(did you mean http\?\);"):
        checked("htp://x")
    with pytest.raises(UserError, match=r"did you mean postgresql\?"):
        checked("postgres://db/x")
    for known in ("https://x", "postgresql+psycopg2://db/x", "databricks", "databricks://profile", "uc:profile"):
        assert checked(known) == known
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder; write sqlite:///{tmp_path}/mlflow\.db$"):
        checked(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "mk.py").write_text("print()")
    with pytest.raises(UserError, match=r"mk\.py is not an SQLite database; name another file"):
        check_that_it_can_be_written(f"sqlite:///{tmp_path}/mk.py")
    (tmp_path / "empty.db").touch()  # SQLite takes it for a new one
    check_that_it_can_be_written(f"sqlite:///{tmp_path}/empty.db")


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_sent(empty_store: Path) -> None:
    check_that_it_can_be_written(f"sqlite:///{empty_store}")
    check_that_it_can_be_written(f"sqlite:///{empty_store}_not_yet_made")
    with somebody_elses(empty_store.parent) as folder:
        for name in ("mlflow.db", "not_yet_made.db", "no_folder_yet/mlflow.db"):
            with pytest.raises(UserError, match=rf"cannot write .*/{name}; .* --tracking-uri sqlite:///"):
                check_that_it_can_be_written(f"sqlite:///{folder}/{name}")


def test_printed_commands_are_quoted_for_the_shell(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "it's my run"))
    other = "sqlite:////my stores/$HOME/x.db"
    words = shlex.split(replay_command(run, other, "--champion", "always"))
    assert words[1:4] == ["pipelines/replay_to_mlflow.py", "--run-dir", run.root]
    assert words[4:] == ["--tracking-uri", other, "--champion", "always"]
    opened, served, asked = how_to_use(run, tracking_uri_for(run), "", "models:/a/1").splitlines()
    assert shlex.split(opened)[-2:] == ["--run-dir", run.root]
    assert shlex.split(served)[1] == f"MLFLOW_TRACKING_URI={tracking_uri_for(run)}"
    assert shlex.split(served)[2:7] == ["mlflow", "models", "serve", "-m", "models:/a/1"]
    assert shlex.split(served)[-2:] == ["--timeout", "600"]  # a request of many images takes more than MLflow's minute
    assert "curl" in asked


def test_printed_commands_name_the_store_of_a_variable_that_another_shell_need_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = Storage.at(str(tmp_path / "run")), f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert shlex.split(replay_command(run, tracking_uri_for(run)))[-2:] == ["--tracking-uri", store]
    assert shlex.split(how_to_open(run, tracking_uri_for(run)))[-2:] == ["--tracking-uri", store]


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_is_logged_from_code_and_from_json_alike(tmp_path: Path, empty_store: Path, name: str) -> None:
    recipe = RECIPES[name]()
    run = claimed(tmp_path / "run", recipe)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    logged = MlflowRuns(tracking_uri_for(run), run, recipe)
    again = MlflowRuns(tracking_uri_for(run), run, recipe_from_dict(run.read_json("run.json")["recipe"]))
    assert again.parent == logged.parent


def test_a_store_with_the_spelling_of_earlier_versions_is_continued(tmp_path: Path, empty_store: Path) -> None:
    recipe = Recipe(replicas=1, warmup_epochs=1, areas=((0.5, 1),))
    run = claimed(tmp_path / "run", recipe)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    first = MlflowRuns(tracking_uri_for(run), run, recipe)
    old = first.client.create_run(first.experiment).info.run_id
    first.client.log_batch(old, params=[Param("warmup_epochs", "1"), Param("areas", "[[0.5, 1]]"), Param("data", "x")])
    first.log_params(old, {"warmup_epochs": 1.0, "areas": [[0.5, 1.0]], "data": "x", "epochs": 3})
    assert first.client.get_run(old).data.params == {
        "warmup_epochs": "1",
        "areas": "[[0.5, 1]]",
        "data": "x",
        "epochs": "3",
    }
    with pytest.raises(MlflowException, match="Changing param values"):
        first.log_params(old, {"warmup_epochs": 2.0})


@pytest.mark.processes  # git, for what this code is
@pytest.mark.parametrize("kind", ["params", "tags"])
def test_the_data_set_of_a_run_of_this_and_of_earlier_versions_is_compared(
    tmp_path: Path, empty_store: Path, kind: str
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    known = Experiment(uri)
    old = known.client.create_run(known.experiment, tags={ID_TAG: "1"}).info.run_id
    digest = Param("dataset_digest", "x") if kind == "params" else RunTag("dataset_digest", "x")
    known.client.log_batch(old, **{kind: [digest]})
    same, other = (differences_from(uri, old, now) for now in ("x", "y"))
    assert set(other) - set(same) == {"dataset_digest: was 'x', is now 'y'"}


def test_a_bucket_named_like_the_folder_of_evaluations_has_the_store_of_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = Storage.at("memory://evaluations/run1")
    assert tracking_uri_for(run) == f"sqlite:///{tmp_path}/.googlenet-ensemble/mlflow.db"
    assert trained_run_of(run) is None


def test_uris_are_made_absolute_and_those_with_passwords_refused(
    tmp_path: Path, run: Storage, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri_for(run, "sqlite:///other.db") == f"sqlite:///{tmp_path}/other.db"
    assert tracking_uri_for(run) == f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copy(empty_store, tmp_path / "other.db")
    assert follow(run, tracking_uri_for(run, "sqlite:///other.db"), {0: "done", 1: "done"}, succeeded=False).in_step
    assert "ensemble" in runs_of(f"sqlite:///{tmp_path}/other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri_for(run) == "http://server:5000"
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        tracking_uri_for(run, "https://me:secret@server")
    assert "secret" not in str(refused.value)
