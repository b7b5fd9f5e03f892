"""The ensemble as a model in MLflow: loaded anywhere, it gives the report's answers. The choice of the champion."""

import base64
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.run.storage import Storage
from pipelines.tracking.models import MODEL
from pipelines.tracking.publish import choose_champion
from pipelines.tracking.store import MlflowRuns, tracking_uri_for
from tests.project import ROOT
from tests.servers import free_port, wait_for, with_tools

pytestmark = [pytest.mark.processes, pytest.mark.apart, pytest.mark.timeout(300)]
CHAMPION = f"models:/{MODEL}@champion"
PAGE = (ROOT / "docs/mlflow.md").read_text()
SERVE = f"models serve -m {CHAMPION} --env-manager local"


@pytest.fixture(scope="module")
def store(finished_run: Path) -> str:
    return tracking_uri_for(Storage.at(str(finished_run)))


def photographs(run: Path, number: int) -> list[tuple[str, bytes]]:
    [shard, *_] = sorted((run / "dataset/val").glob("*.parquet"))
    table = pq.read_table(shard, columns=["image_id", "image"]).slice(0, number).to_pydict()
    return list(zip(table["image_id"], table["image"], strict=True))


def reported(run: Path, image_id: str, policy: str) -> np.ndarray:
    """The mean of the replicas' probabilities in the prediction files."""
    table = pq.read_table(run / "predictions", filters=[("image_id", "=", image_id)])
    vectors = [table.column(f"replica_{k}/{policy}_crops").to_pylist()[0] for k in range(3)]
    return np.mean(np.array(vectors, np.float64), axis=0)


def in_a_fresh_process(program: str, store: str, folder: Path) -> Any:
    """What a program prints as JSON; it has MLflow and the store, but not this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**environment, "MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_loaded_in_a_fresh_process_it_gives_the_reports_very_probabilities(
    finished_run: Path, store: str, tmp_path: Path
) -> None:
    images = photographs(finished_run, 3)
    for name, data in images:
        (tmp_path / name.replace("/", "_")).write_bytes(data)
    paths = [str(tmp_path / name.replace("/", "_")) for name, _ in images]
    program = f"""
import json, sys, mlflow, numpy as np, pandas as pd
from PIL import Image
model = mlflow.pyfunc.load_model({CHAMPION!r})
paths = {paths!r}
asked = {{
    "path": pd.DataFrame({{"path": paths}}),
    "image": pd.DataFrame({{"image": [open(path, "rb").read() for path in paths]}}),
    "pixels": pd.DataFrame({{"pixels": [np.asarray(Image.open(path)) for path in paths]}}),
}}
answers = {{name: model.predict(table).to_dict("records") for name, table in asked.items()}}
answers |= {{
    policy: model.predict(asked["image"], params={{"crop_policy": policy}}).to_dict("records")
    for policy in ("1", "10", "144")
}}
print(json.dumps([answers, sys.modules["googlenet"].__file__]))
"""
    answers, code = in_a_fresh_process(program, store, tmp_path)
    assert "mlartifacts" in code  # the code stored with the model, not the installed one
    assert answers["path"] == answers["image"] == answers["pixels"] == answers["144"]
    classes = json.loads((finished_run / "dataset/manifest.json").read_text())["classes"]
    for policy, exactly in (("144", 0.0), ("10", 1e-6), ("1", 1e-6)):
        for (image_id, _), answer in zip(images, answers[policy], strict=True):
            expected = reported(finished_run, image_id, policy)
            order = np.argsort(-expected)
            assert [answer[f"answer_{place}"] for place in (1, 2, 3)] == [classes[label] for label in order]
            found = [answer[f"probability_{place}"] for place in (1, 2, 3)]
            assert found == pytest.approx(expected[order].astype(np.float32), rel=0, abs=exactly)


def test_it_is_kept_as_code_and_safetensors_without_pickle(store: str) -> None:
    client = MlflowClient(store)
    version = client.get_model_version_by_alias(MODEL, "champion")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    assert {f"artifacts/replica_{k}.safetensors" for k in range(3)} <= set(files)
    assert {"ensemble_model.py", "code/googlenet/network/model.py", "input_example.json"} <= set(files)


def test_logging_models_leaves_no_store_behind_for_what_this_process_does_next(store: str) -> None:
    import mlflow

    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys()
    assert not mlflow.is_tracking_uri_set()


def test_each_replica_is_a_model_of_its_child_run_that_needs_no_code_of_ours(
    finished_run: Path, store: str, tmp_path: Path
) -> None:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("googlenet-ensemble")
    children = client.search_runs([experiment.experiment_id], "tags.googlenet_role = 'replica_1'")
    [child] = [run for run in children if run.data.tags["run_directory"] == str(finished_run)]
    [output] = child.outputs.model_outputs
    graph = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://")) / "data/model.pt2"
    with zipfile.ZipFile(graph) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    # A pickle starts with its protocol; torch.save would wrap it in another archive.
    assert kept
    assert not [name for name, data in kept.items() if data.startswith((b"\x80\x02", b"PK"))]
    crops = np.random.default_rng(0).integers(0, 256, (5, 3, 35, 35), dtype=np.uint8)
    np.save(tmp_path / "crops.npy", crops)
    program = f"""
import json, sys, mlflow, numpy as np
sys.modules["googlenet"] = sys.modules["pipelines"] = None  # importing them fails
model = mlflow.pytorch.load_model("models:/{output.model_id}")
import torch
with torch.inference_mode():
    print(json.dumps(model(torch.from_numpy(np.load("crops.npy"))).tolist()))
"""
    import torch

    from googlenet import load_weights

    replica = load_weights(finished_run / "replicas/1/weights.safetensors")
    with torch.inference_mode():
        logits = replica.model(replica.preprocessing(torch.from_numpy(crops))).logits
    expected = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(in_a_fresh_process(program, store, tmp_path), expected, atol=1e-4)


@pytest.fixture(scope="module")
def server(finished_run: Path, store: str) -> Iterator[str]:
    """`mlflow models serve` on the champion, in the current environment."""
    port = free_port()
    options = f"{SERVE} --host 127.0.0.1 --port {port} --workers 1"
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
    record = {"image": base64.b64encode(data).decode()}
    status, answer = post(server, {"dataframe_records": [record], "params": {"crop_policy": "10"}})
    assert status == 200, answer
    [row] = answer["predictions"]
    assert row["probability_1"] == pytest.approx(reported(finished_run, image_id, "10").max(), abs=1e-6)
    assert any(row["agreement"] == pytest.approx(share) for share in (1 / 3, 2 / 3, 1.0))


def test_the_documented_server_is_the_one_that_is_tested() -> None:
    shown = next(line for line in PAGE.splitlines() if line.startswith("mlflow models serve"))
    assert shown == f"mlflow {SERVE} --port 8080"


def test_the_documented_request_is_answered(server: str, finished_run: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    [command] = re.findall(r"^curl .*?\n  .*?$", PAGE, re.MULTILINE)
    (tmp_path / "photo.jpg").write_bytes(photographs(finished_run, 1)[0][1])
    command = command.replace("127.0.0.1:8080/invocations", server).replace("PHOTO", str(tmp_path / "photo.jpg"))
    answer = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=True).stdout
    [row] = json.loads(answer)["predictions"]
    assert {"answer_1", "probability_1", "agreement"} < row.keys()


@pytest.mark.parametrize(
    ("record", "params", "expected"),
    [
        ({"image": base64.b64encode(b"no image").decode()}, {}, "row 0: not an image"),
        ({"path": "/etc/hostname"}, {}, "a server does not read paths"),
        ({"pixels": [[[300, 0, 0]]]}, {}, "whole numbers from 0 to 255"),
        ({"pixels": [[[0, 0, 0]] * 101]}, {}, "is a strip"),
        ({"image": base64.b64encode(b"x").decode()}, {"crop_policy": "12"}, "crop_policy must be one of 1, 10, 144"),
    ],
    ids=["no image", "a path", "no pixels", "a strip", "no policy"],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    server: str, record: dict[str, Any], params: dict[str, str], expected: str
) -> None:
    status, answer = post(server, {"dataframe_records": [record], "params": params})
    assert status == 400
    assert expected in json.dumps(answer)


class Registry:
    """Registered versions with given errors, in their own store."""

    def __init__(self, folder: Path) -> None:
        from pipelines.run.directory import claim
        from pipelines.run.recipe import Recipe

        run = Storage.at(str(folder / "run"))
        claim(run, "recipe", Recipe(replicas=1).to_dict())
        self.runs = MlflowRuns(f"sqlite:///{folder}/mlflow.db", run, Recipe(replicas=1))
        self.runs.client.create_registered_model(MODEL)
        self._source = folder.as_uri()

    def version(self, top5_error: float, top1_error: float, images: str = "these") -> str:
        tags = {"top5_error": str(top5_error), "top1_error": str(top1_error), "val_digest": images}
        return str(self.runs.client.create_model_version(MODEL, self._source, tags=tags).version)

    @property
    def champion(self) -> str:
        return str(self.runs.client.get_model_version_by_alias(MODEL, "champion").version)


def test_a_server_that_fails_is_not_taken_for_one_without_a_champion(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    choose_champion(registry.runs, registry.version(1.0, 1.0), "better")
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
        choose_champion(broken, worse, "better")
    assert registry.champion == "1"


def test_the_champion_is_the_version_that_errs_least_on_the_same_images(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first = registry.version(7.0, 25.0)
    assert "the first champion" in choose_champion(registry.runs, first, "better")
    worse = registry.version(9.0, 20.0)  # the top-5 error decides, as in the competition
    assert "version 1 stays champion" in choose_champion(registry.runs, worse, "better")
    assert registry.champion == first
    better = registry.version(7.0, 24.0)  # with equal top-5 errors, the top-1 error decides
    assert "version 3, the new champion (" in choose_champion(registry.runs, better, "better")
    assert registry.champion == better
    elsewhere = registry.version(1.0, 2.0, images="others")
    assert "evaluated on other images" in choose_champion(registry.runs, elsewhere, "better")
    assert registry.champion == better
    assert "stays champion" in choose_champion(registry.runs, registry.version(0.0, 0.0), "never")
    assert registry.champion == better
    choose_champion(registry.runs, worse, "always")
    assert registry.champion == worse
