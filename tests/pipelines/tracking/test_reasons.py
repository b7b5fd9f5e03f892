"""Reasons for a failed connection to MLflow, in one line that a user can act on."""

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError, JSONDecodeError, Response
from sqlalchemy.exc import OperationalError

from pipelines.errors import UserError
from pipelines.run.dataset import Manifest
from pipelines.tracking.failures import reason_of, repeatedly


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def dead_address() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def server_answering(status: int, text: str) -> Iterator[str]:
    """The address of a server whose every answer is this status and this text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def reason(address: str, call: Callable[[MlflowClient], Any] = lambda client: client.get_logged_model("m-1")) -> str:
    with pytest.raises(Exception) as failed:  # of MLflow's or of its libraries
        call(MlflowClient(address))
    assert isinstance(failed.value, Exception)
    return reason_of(failed.value)


def test_a_server_that_is_down_is_told_without_the_names_of_libraries(dead_address: str) -> None:
    assert reason(dead_address) == "it does not answer (Connection refused)"


def test_a_dead_proxy_is_told_as_that(dead_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", dead_address)
    assert reason("http://mlflow.example:5000") == (
        "the proxy in the environment does not answer; correct it, or add the host of the server to NO_PROXY"
    )


def test_a_server_that_is_too_old_for_models_is_told_with_the_way_out() -> None:
    """It knows no address, like one of MLflow 2 if it is asked for a logged model."""
    with server_answering(404, "Not Found") as server:
        assert reason(server).endswith("update it, or choose --models none")
        experiments = reason(server, lambda client: client.get_experiment("1"))
    assert experiments.startswith("it does not know /api/2.0/mlflow/experiments/get")
    assert experiments.endswith(": the server is too old or is not an MLflow server; update it")


def test_a_server_that_refuses_the_name_of_its_host_is_not_told_to_refuse_credentials() -> None:
    """As MLflow's server answers under a name that is not among its --allowed-hosts."""
    with server_answering(403, "Invalid Host header - possible DNS rebinding attack detected") as server:
        told = reason(server)
    assert told.startswith("it refuses the host name in the address")
    assert "--allowed-hosts" in told
    with server_answering(403, "Permission denied") as server:
        assert reason(server).startswith("it refuses the credentials")


@pytest.mark.parametrize("content", [{}, [], {"classes": [], "splits": 3}])
def test_a_file_of_the_run_that_was_edited_is_not_told_as_a_fault_of_mlflow(content: Any) -> None:
    with pytest.raises((KeyError, TypeError, AttributeError)) as raised:
        Manifest.from_dict(content)
    told = f"a file of the run was changed or is damaged ({raised.value!r}): restore it from a copy"
    assert reason_of(raised.value) == told


def test_a_fault_of_a_library_is_not_told_as_that_of_a_file_of_the_run() -> None:
    with pytest.raises(TypeError) as raised:
        json.dumps(object())
    assert reason_of(raised.value) == "it cannot be used: Object of type object is not JSON serializable"


def test_a_run_that_the_store_has_with_another_recipe_is_told_with_the_way_out() -> None:
    told = reason_of(MlflowException("Changing param values is not allowed. Param 'epochs' was already logged"))
    assert told.startswith("it has this run with other parameters")
    assert told.endswith("name another store with --tracking-uri")


def test_a_bucket_that_refuses_is_not_told_as_mlflows_credentials() -> None:
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    told = reason_of(ClientError(answer, "ListObjectsV2"))
    assert told.startswith("its artifact store refuses the credentials")
    assert "MLFLOW_TRACKING_USERNAME" not in told


def test_a_file_that_is_missing_here_is_not_told_as_a_fault_of_mlflow() -> None:
    missing = FileNotFoundError(2, "No such file or directory", "report/cost.json")
    assert reason_of(missing) == f"a file cannot be read or written: {missing}"


def refused_upload(status: int) -> HTTPError:
    response = Response()
    response.status_code = status
    return HTTPError(response=response)


@pytest.mark.parametrize(
    ("failure", "is_repeated"),
    [
        (MlflowException("502"), True),
        (ConnectionResetError(), True),
        (refused_upload(503), True),
        (refused_upload(429), True),
        (refused_upload(413), False),
        (EndpointConnectionError(endpoint_url="https://s3.example"), True),
        (S3UploadFailedError("Failed to upload report.json to a/b"), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject"), False),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), False),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}), False),
        (UserError("damaged"), False),
        (JSONDecodeError("a page of a proxy", "<html>", 0), True),
        (OSError("the disk is full"), False),
        (FileNotFoundError(2, "No such file", "report/cost.json"), False),
        (ModuleNotFoundError("psycopg2"), False),
        (PermissionError(), False),
        (KeyError("artifact_uri"), False),
        (RuntimeError("of torch.export"), False),
        (MemoryError(), False),
        # MLflow asks a database ten times before it raises this.
        (OperationalError("", {}, Exception("FATAL: password authentication failed")), False),
        (OperationalError("", {}, sqlite3.OperationalError("database is locked")), True),
        (sqlite3.OperationalError("database is locked"), True),
        (TimeoutError("the file lock could not be acquired"), True),
    ],
)
def test_what_may_pass_is_tried_again_and_what_is_refused_is_not(failure: Exception, is_repeated: bool) -> None:
    failures, told, pauses = iter([failure] * 2), [], []

    def attempt() -> str:
        if error := next(failures, None):
            raise error
        return "done"

    if is_repeated:
        assert repeatedly(attempt, told.append, pauses.append) == "done"
        assert len(told) == len(pauses) == 2
        assert sorted(pauses) == pauses
    else:
        with pytest.raises(type(failure)):
            repeatedly(attempt, told.append, pauses.append)
        assert told == pauses == []


def test_nothing_is_tried_again_once_there_is_no_time() -> None:
    def fail() -> None:
        raise ConnectionResetError

    told: list[str] = []
    with pytest.raises(ConnectionResetError):
        repeatedly(fail, told.append, lambda _: True)
    assert len(told) == 1
