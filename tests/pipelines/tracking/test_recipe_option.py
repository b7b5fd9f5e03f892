"""The recipe of a run in MLflow, for a job that must go on without MLflow."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from pipelines.errors import TryAgainError, UserError
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.recipe_option import recipe_of_options, tell_differences
from tests.pipelines.tracking.followed_runs import follow, runs_of, store_of

NOBODY = "http://127.0.0.1:9"
ID = f"runs:/{'0' * 32}"


@pytest.fixture(params=[True, False])
def server_without_files(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that knows a run, but whose store of files is away; at once, or once it has listed them."""
    info = {"run_id": ID.removeprefix("runs:/"), "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1/files"}
    tags = [{"key": "googlenet_run_id", "value": "a"}]
    answers: dict[str, object] = {"/api/2.0/mlflow/runs/get": {"run": {"info": info, "data": {"tags": tags}}}}
    if request.param:
        answers["/api/2.0/mlflow-artifacts/artifacts"] = {"files": [{"path": "recipe.json", "is_dir": False}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            if answer is None:
                self.send_error(502)
            else:
                self.reply(answer)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({})

        def reply(self, answer: object) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def asked(uri: str, run_dir: Path) -> list[str]:
    return ["--recipe", ID, "--tracking-uri", uri, "--run-dir", str(run_dir)]


def test_a_run_goes_on_with_its_own_recipe_if_mlflow_is_away_or_lacks_it(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(replicas=2, epochs=3)
    claim(Storage.at(str(tmp_path / "run")), "recipe", recipe.to_dict(), given_recipe=ID)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for uri in (NOBODY, f"sqlite:///{tmp_path}/mlflow.db"):
        assert recipe_of_options(asked(uri, tmp_path / "run"), "paper") == recipe
        warning = capsys.readouterr().err.splitlines()[-1]
        assert warning.startswith(f"warning: no run {ID} in MLflow at {uri}: ")
        assert warning.endswith(f"; resuming with the recipe of {tmp_path}/run")


@pytest.mark.parametrize(
    ("origin", "away", "lacking"),
    [
        ({"given_recipe": f"runs:/{'1' * 32}"}, TryAgainError, UserError),
        ({"given_recipe": "paper"}, TryAgainError, UserError),
        ({}, None, UserError),  # claimed by an earlier version
    ],
)
def test_the_recipe_of_a_run_is_not_taken_for_that_of_a_wrong_id(
    tmp_path: Path, empty_store: Path, origin: dict[str, str], away: type[UserError] | None, lacking: type[UserError]
) -> None:
    run, recipe = Storage.at(str(tmp_path / "run")), Recipe(replicas=2, epochs=3)
    claim(run, "recipe", recipe.to_dict(), **origin)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for uri, refusal in ((NOBODY, away), (f"sqlite:///{tmp_path}/mlflow.db", lacking)):
        if refusal is None:
            assert recipe_of_options(asked(uri, tmp_path / "run"), "paper") == recipe
        else:
            with pytest.raises(UserError, match=f"^no run {ID}") as refused:
                recipe_of_options(asked(uri, tmp_path / "run"), "paper")
            assert type(refused.value) is refusal


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
    assert capsys.readouterr().out.startswith(f"warning: differences from {ID} are unknown: no run {ID} in MLflow")


def test_a_store_of_files_that_is_away_is_not_one_that_lacks_the_recipe(
    tmp_path: Path, server_without_files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TryAgainError, match=r"cannot be listed: |has recipe.json, but it cannot be downloaded: "):
        recipe_of_options(asked(server_without_files, tmp_path / "run"), "paper")


def test_a_run_without_a_recipe_is_refused_for_good(run: Storage, tmp_path: Path) -> None:
    follow(run, store_of(run), {0: "training", 1: "waiting"})
    given = asked(store_of(run), tmp_path / "new")
    given[1] = f"runs:/{runs_of(store_of(run))['ensemble'].info.run_id}"
    with pytest.raises(UserError, match=r"has no recipe\.json$") as refused:
        recipe_of_options(given, "paper")
    assert not isinstance(refused.value, TryAgainError)


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ("connection to server at 127.0.0.1, port 9 failed: Connection refused", TryAgainError),
        ("FATAL: password authentication failed for user me", UserError),
        ('FATAL: database "mlflow" does not exist', UserError),
    ],
)
def test_a_database_that_is_down_is_not_one_that_refuses_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, refusal: type[UserError]
) -> None:
    def connect(_: str) -> None:  # as with the driver of a database, which is not among the packages
        raise OperationalError("", {}, Exception(said))

    monkeypatch.setattr("pipelines.tracking.fetch.connect", connect)
    with pytest.raises(UserError, match=said) as refused:
        recipe_of_options(asked("postgresql://127.0.0.1:9/mlflow", tmp_path / "run"), "paper")
    assert type(refused.value) is refusal


def test_a_database_without_its_driver_is_refused_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)  # importing it fails
    with pytest.raises(UserError, match=r"psycopg2.*; name another store with --tracking-uri$") as refused:
        recipe_of_options(asked("postgresql+psycopg2://127.0.0.1:9/mlflow", tmp_path / "run"), "paper")
    assert not isinstance(refused.value, TryAgainError)
