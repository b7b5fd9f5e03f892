"""MLflow behind a password, as on the clusters' heads: who gets in, and what a job is told whose password is wrong."""

import base64
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.exceptions import MlflowException

from pipelines.run.storage import Storage
from pipelines.tracking.failures import reason_of
from tests.pipelines.tracking.followed_runs import errors, follow, write_epochs
from tests.servers import CLUSTER, mlflow_with_password, with_tools

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the server's user."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path, empty_store: Path) -> Iterator[tuple[str, str]]:
    """The address and the password of a server; one for all, since it takes many seconds to start."""
    with mlflow_with_password(home, empty_store) as started:
        yield started


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_mlflow_asks_for_its_password_and_refuses_other_hosts(
    server: tuple[str, str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (url, password), folder = server, home / "mlflow"
    assert oct((folder / "password").stat().st_mode & 0o777) == "0o600"
    assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
    known = {"Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}
    assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", **known) == 200
    assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", Host="evil.example", **known) == 403
    with pytest.raises(MlflowException) as refused:  # the same address in another spelling
        mlflow.MlflowClient(url.replace("127.0.0.1", "127.1")).get_experiment("0")
    assert "--allowed-hosts" in reason_of(refused.value)
    process = (folder / "pid").read_text()
    command = ["bash", str(CLUSTER / "mlflow_server.sh"), "127.0.0.1", url.rpartition(":")[2], str(folder)]
    subprocess.run(command, env=with_tools({"HOME": str(home)}), check=True, timeout=60)
    assert (folder / "pid").read_text() == process  # it was still running
    other = subprocess.run(
        [*command[:3], "1", command[4]],
        env=with_tools({"HOME": str(home)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 1
    assert "MLflow already runs with other options" in other.stderr
    assert f"kill {process}" in other.stderr
    assert not any(password in " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = me\n")
    subprocess.run(command, env=with_tools({"HOME": str(tmp_path)}), check=True, timeout=60)
    assert "username = me" in (tmp_path / ".mlflow/credentials").read_text()
    # As for a job on the head: through the credentials file alone.
    monkeypatch.setenv("HOME", str(home))
    assert mlflow.MlflowClient(url).get_experiment("0").name == "Default"


def test_refused_credentials_are_told_with_what_to_do(
    server: tuple[str, str], run: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, password = server
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    write_epochs(run, 0, 2)
    tracker = follow(run, uri, {0: "done", 1: "done"}, succeeded=False)
    assert not tracker.in_step
    assert "refuses the credentials" in tracker.outcome
    assert "MLFLOW_TRACKING_PASSWORD" in tracker.outcome
    assert password not in tracker.outcome + capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert follow(run, uri, {0: "done", 1: "done"}, succeeded=False).in_step
    assert errors(uri, 0) == [(1, 49.0), (2, 48.0)]
