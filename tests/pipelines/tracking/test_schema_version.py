"""Stores of another version of MLflow: an older one is migrated with a word and a copy, a newer one is refused."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base

from pipelines.errors import UserError
from pipelines.tracking.failures import reason_of
from pipelines.tracking.store import connect
from tests.commands import run_python
from tests.others_files import somebody_elses, unchanged

# The newest change of the schema in MLflow 2.0.
MLFLOW_2_0 = "cc1f77228345"


def revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as store:
        return str(store.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def store_of_mlflow_2(database: Path) -> str:
    """Make a store with the schema of MLflow 2.0, and an experiment in it."""
    uri = f"sqlite:///{database}"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, MLFLOW_2_0)
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')"
            )
        )
    engine.dispose()
    return uri


def test_an_older_store_is_migrated_with_a_word_and_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = store_of_mlflow_2(tmp_path / "mlflow.db")
    assert connect(uri).get_experiment_by_name("mine").experiment_id == "7"
    copy = tmp_path / f"mlflow.db.{MLFLOW_2_0}"
    told = f"the MLflow store {tmp_path}/mlflow.db has the schema of an older MLflow; migrating it (copy: {copy})\n"
    assert told in capsys.readouterr().err
    assert (revision(copy), revision(tmp_path / "mlflow.db") != MLFLOW_2_0) == (MLFLOW_2_0, True)
    connect(uri)
    assert "older" not in capsys.readouterr().err
    shutil.copy(copy, tmp_path / "mlflow.db")  # restored, for the older MLflow to go on
    connect(uri)
    assert f"(copy: {copy}-2)\n" in capsys.readouterr().err
    (tmp_path / f"{copy.name}-2").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", copy.name, "mlflow.db.lock"]


def test_a_newer_store_is_called_newer_and_left_as_it_is(tmp_path: Path, empty_store: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(empty_store.read_bytes())
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'f00000000000'")
    before = database.read_bytes()
    with pytest.raises(UserError) as refused:
        connect(f"sqlite:///{database}")
    assert f"{database} was written by a newer MLflow than the {mlflow.__version__} here" in reason_of(refused.value)
    assert database.read_bytes() == before


def test_a_store_that_may_only_be_read_is_read_or_refused_with_a_way_out(tmp_path: Path, empty_store: Path) -> None:
    ours = tmp_path / "ours/mlflow.db"
    ours.parent.mkdir()
    ours.write_bytes(empty_store.read_bytes())
    (tmp_path / "older").mkdir()
    store_of_mlflow_2(tmp_path / "older/mlflow.db")
    (tmp_path / "newer").mkdir()
    newer = tmp_path / "newer/mlflow.db"
    newer.write_bytes(empty_store.read_bytes())
    with closing(sqlite3.connect(newer)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'f00000000000'")
    with somebody_elses(tmp_path) as theirs, unchanged(theirs):
        assert connect(f"sqlite:///{theirs}/ours/mlflow.db").get_experiment("0").name == "Default"
        with pytest.raises(UserError, match="older MLflow, and you cannot write it: copy its folder, with mlartifacts"):
            connect(f"sqlite:///{theirs}/older/mlflow.db")
        with pytest.raises(UserError, match="was written by a newer MLflow"):
            connect(f"sqlite:///{theirs}/newer/mlflow.db")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, and long enough to be one" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db cannot be used as an MLflow store: file is not a database"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_the_reason_of_a_failing_database_comes_first() -> None:
    full = sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    assert reason_of(full) == "it cannot be used: database or disk is full"


@pytest.mark.processes
def test_a_failing_database_prints_no_traceback(tmp_path: Path, empty_store: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(empty_store.read_bytes())
    program = f"""
import sqlite3
from pipelines.tracking.failures import reason_of
from pipelines.tracking.store import connect
from tests.commands import run_python
client = connect("sqlite:///{database}")
sqlite3.connect("{database}").execute("DROP TABLE runs")
try:
    client.search_runs(["0"])
except Exception as error:
    print(reason_of(error))
"""
    ended = run_python("-c", program)
    assert (ended.stdout, ended.stderr) == ("it cannot be used: no such table: runs\n", "")
