"""The ensemble behind `mlflow models serve`, and its checks of parameters in a program."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from googlenet import Ensemble
from pipelines.tracking.commands import ASK
from tests.pipelines.tracking.followed_runs import calibrated, photographs, reported
from tests.project import ROOT
from tests.servers import free_port, wait_for, with_tools

pytestmark = [pytest.mark.processes, pytest.mark.apart, pytest.mark.timeout(300)]
PAGE = (ROOT / "docs/mlflow.md").read_text()
HAVING_ONE = "a run has one for each policy that it was evaluated with on 40 validation images or more"
SERVE = "models serve -m models:/MODEL@champion --env-manager local --timeout 600"


@pytest.fixture(scope="module")
def server(finished_run: Path, store: str, name: str) -> Iterator[str]:
    """`mlflow models serve` on the champion, in the current environment."""
    port = free_port()
    options = f"{SERVE.replace('MODEL', name)} --host 127.0.0.1 --port {port} --workers 1"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *options.split()],
        env=with_tools({"MLFLOW_TRACKING_URI": store}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def post(server: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        server, json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_served_it_answers_a_request_with_a_jpeg_in_it(server: str, finished_run: Path) -> None:
    image_id, data = photographs(finished_run, 1)[0]
    record = {"image": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}  # as browsers have it
    status, answer = post(server, {"dataframe_records": [record], "params": {"crop_policy": "10"}})
    assert status == 200, answer
    [row] = answer["predictions"]
    assert row["probability_1"] == pytest.approx(calibrated(finished_run, image_id, "10").max(), abs=1e-6)
    assert "set" not in row
    assert any(row["agreement"] == pytest.approx(share) for share in (1 / 3, 2 / 3, 1.0))


def test_it_answers_without_the_temperature_and_with_sets_of_classes(server: str, finished_run: Path) -> None:
    image_id, data = photographs(finished_run, 1)[0]
    record = {"image": base64.b64encode(data).decode()}
    plain, sets = {"crop_policy": 1, "calibrated": False}, {"crop_policy": 1, "coverage": 0.9}
    _, averaged = post(server, {"dataframe_records": [record], "params": plain})
    [row] = averaged["predictions"]
    assert row["probability_1"] == pytest.approx(reported(finished_run, image_id, "1").max(), abs=1e-6)
    status, answer = post(server, {"dataframe_records": [record], "params": sets})
    assert status == 200, answer
    [row] = answer["predictions"]
    classes = row["set"].split(" | ")
    assert classes == [row[f"answer_{place}"] for place in range(1, len(classes) + 1)]
    assert row["abstain"] == (len(classes) > 1)


def test_it_answers_with_chosen_views_and_stops_early_within_a_budget(server: str, finished_run: Path) -> None:
    record = {"image": base64.b64encode(photographs(finished_run, 1)[0][1]).decode()}
    _, chosen = post(server, {"dataframe_records": [record], "params": {"crop_policy": "best:2"}})
    _, early = post(server, {"dataframe_records": [record], "params": {"budget": "fast"}})
    ensemble = Ensemble.load(sorted(finished_run.glob("replicas/*/weights.safetensors")))
    expected = ensemble.answers(photographs(finished_run, 1)[0][1], "best:2")
    assert chosen["predictions"][0]["probability_1"] == pytest.approx(expected["probability_1"], abs=1e-6)
    expected = ensemble.answers(photographs(finished_run, 1)[0][1], budget="fast")
    assert early["predictions"][0]["passes"] == expected["passes"]
    assert early["predictions"][0]["answer_1"] == expected["answer_1"]


def test_the_documented_server_is_the_one_that_is_tested() -> None:
    shown = next(line for line in PAGE.splitlines() if line.startswith("mlflow models serve"))
    assert sorted(shown.split()) == sorted(f"mlflow {SERVE} --port 8080".split())


def test_the_documented_request_is_answered(server: str, finished_run: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    [command] = re.findall(r"^base64 .*?\n  .*?$", PAGE, re.MULTILINE)
    # Longer than an argument of a command may be, as photographs are.
    (tmp_path / "photo.jpg").write_bytes(photographs(finished_run, 1)[0][1] + bytes(200_000))
    # The page's, and the one that a job prints.
    for asked in (command, ASK):
        here = asked.replace("127.0.0.1:8080/invocations", server).replace("PHOTO", str(tmp_path / "photo.jpg"))
        answer = subprocess.run(["bash", "-c", here], capture_output=True, timeout=60, check=True).stdout
        [row] = json.loads(answer)["predictions"]
        assert {"answer_1", "probability_1", "agreement"} < row.keys()
        assert row["error"] is None


@pytest.mark.parametrize("key", ["dataframe_records", "instances", "inputs"])
def test_one_bad_image_answers_for_itself_alone(server: str, finished_run: Path, key: str) -> None:
    image_id, data = photographs(finished_run, 1)[0]
    good = {"image": base64.b64encode(data).decode()}
    bad = [
        ({"image": base64.b64encode(b"no image").decode()}, "not an image"),
        ({"image": "no base64!"}, "image is not base64"),
        ({"path": "/etc/hostname"}, "a server does not read paths"),
        ({"pixels": [[[300, 0, 0]]]}, "whole numbers from 0 to 255"),
        ({"pixels": [[[0, 0, 0]] * 101]}, "is a strip"),
        ({"pixels": [[[0, 0, 0]] * 8, [[0, 0, 0]] * 7]}, "rows of one length"),
        ({"pixels": [[[0, 0, 0], [0, 0]]] * 2}, "the same number of channels"),
        ({"imgae": "x"}, "a row must fill one of the columns image, path, pixels, got 0"),
    ]
    records = [good, *(record for record, _ in bad), good]
    status, answer = post(server, {key: records, "params": {"crop_policy": "1"}})
    assert status == 200, answer
    first, *failed, last = answer["predictions"]
    assert first == last
    assert first["error"] is None
    assert first["probability_1"] == pytest.approx(calibrated(finished_run, image_id, "1").max(), abs=1e-6)
    if key == "inputs":  # in columns as well
        columns = {key: {"image": [good["image"], "no base64!", good["image"]]}, "params": {"crop_policy": "1"}}
        assert post(server, columns)[1]["predictions"] == [first, failed[1], last]
    for row, (_, expected) in zip(failed, bad, strict=True):
        assert expected in row["error"]
        assert row["answer_1"] is row["probability_1"] is row["agreement"] is None


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"crop_policy": "12"}, "crop_policy must be one of 1, 10, 144 or best:24, got '12'"),
        ({"crop_policy": 12}, "crop_policy must be one of 1, 10, 144 or best:24, got '12'"),
        ({"croppolicy": "10"}, "unknown parameter croppolicy; there are crop_policy, calibrated, coverage, budget"),
        ({"calibrated": "maybe"}, "calibrated must be true or false, got 'maybe'"),
        ({"crop_policy": "best:200"}, "the crop policy best:200 must have 1 to 144 views"),
        ({"budget": "cheap"}, "budget must be one of fast, balanced, best, got 'cheap'"),
        (
            {"budget": "fast", "coverage": 0.9},
            "budget fast cannot be combined with coverage: sets were fitted on all views",
        ),
        (
            {"budget": "fast", "crop_policy": 1},
            "budget fast decides how many of the 144 views are computed: leave out crop_policy",
        ),
        ({"coverage": 95}, "coverage must be a number between 0 and 1, such as 0.95, got 95"),
        (
            {"coverage": 0.9, "calibrated": False},
            f"coverage needs calibrated probabilities and a calibration for crop_policy 144; {HAVING_ONE}",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_the_reason_first(
    server: str, params: dict[str, Any], expected: str
) -> None:
    status, answer = post(server, {"dataframe_records": [{"image": "eA=="}], "params": params})
    assert (status, answer["message"]) == (400, expected)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"dataframe_records": [{"image": "eA=="}], "parms": {"crop_policy": 10}}, "unknown key parms; a request has"),
        ({"dataframe_records": [{"image": "eA=="}], "crop_policy": 10}, "unknown key crop_policy; a request has rows"),
        (
            {"dataframe_records": [{"image": "eA==", "crop_policy": 10}]},
            "in the rows: crop_policy; give parameters once",
        ),
        ({"instances": [{"image": "eA=="}, {"image": "eA==", "budget": "fast"}]}, "in the rows: budget; give"),
        ({"inputs": {"image": ["eA=="], "coverage": [0.9]}}, "in the rows: coverage; give"),
        ({"dataframe_split": {"columns": ["image", "calibrated"], "data": [["eA==", 0]]}}, "in the rows: calibrated;"),
        (
            {"dataframe_records": [{"image": "eA=="}], "params": [["budget", "fast"]]},
            "params must be an object",
        ),
        (
            {"dataframe_records": [{"image": "eA=="}], "instances": [{"image": "eA=="}]},
            "a request has its rows under",
        ),
        (
            {"inputs": {"image": ["a", "b"], "path": ["c"]}},
            "the columns of inputs must be of one length, got image",
        ),
        # MLflow's own refusals, of requests in which no column can be looked for.
        ({"instances": 5}, ""),
        ({"inputs": True}, ""),
        ({"dataframe_split": {"columns": 3, "data": [["eA=="]]}}, "Invalid input. Provided dataframe_split"),
        ({"dataframe_split": {"columns": [["a"]], "data": [["eA=="]]}}, ""),
    ],
)
def test_a_parameter_where_mlflow_does_not_look_is_refused(
    server: str, request_: dict[str, Any], expected: str
) -> None:
    status, answer = post(server, request_)
    assert (status, answer["message"][: len(expected)]) == (400, expected)


@pytest.mark.parametrize("policy", [10, 10.0, "10"])
def test_a_crop_policy_is_a_number_or_text(server: str, finished_run: Path, policy: object) -> None:
    image_id, data = photographs(finished_run, 1)[0]
    record = {"image": base64.b64encode(data).decode()}
    status, answer = post(server, {"instances": [record], "params": {"crop_policy": policy}})
    assert status == 200, answer
    expected = calibrated(finished_run, image_id, "10").max()
    assert answer["predictions"][0]["probability_1"] == pytest.approx(expected, abs=1e-6)


def test_a_request_that_fills_only_other_columns_is_told_which_there_are(server: str) -> None:
    status, answer = post(server, {"dataframe_records": [{"imgae": "x"}]})
    assert (status, answer["message"]) == (400, "no row fills one of the columns image, path, pixels")


def test_in_a_program_parameters_are_checked_as_in_a_server(finished_run: Path, champion: str, store: str) -> None:
    import mlflow
    import pandas as pd

    before = mlflow.pyfunc.PyFuncModel.predict
    mlflow.set_tracking_uri(store)
    try:
        model = mlflow.pyfunc.load_model(champion)
        table = pd.DataFrame({"image": [data for _, data in photographs(finished_run, 2)]})
        by_number, by_text = (model.predict(table, params={"crop_policy": policy}) for policy in (10, "10"))
        assert by_number.equals(by_text)
        assert by_number["probability_1"].dtype == float
        with pytest.raises(MlflowException, match=r"^unknown parameter croppolicy; there are crop_policy, "):
            model.predict(table, params={"croppolicy": "10"})
        mixed = model.predict(pd.concat([table, pd.DataFrame({"image": [b"no image"]})]), params={"crop_policy": 10})
        assert mixed["probability_1"].tolist() == [*by_number["probability_1"], None]
        assert mixed["error"].tolist()[:2] == [None, None]
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.pyfunc.PyFuncModel.predict = before
