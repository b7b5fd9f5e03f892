"""The ensemble as a model in MLflow: loaded anywhere, it gives the report's answers. Its pages."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mlflow import MlflowClient

from pipelines.run.storage import Storage
from pipelines.tracking.models import MODEL
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from tests.pages import example
from tests.pipelines.tracking.followed_runs import photographs, reported

pytestmark = [pytest.mark.processes, pytest.mark.apart, pytest.mark.timeout(300)]


# Prints what models that MLflow loads answer, as JSON: that of a replica, then the ensemble's in all its ways.
ASK = """
import json, sys, mlflow, numpy as np, pandas as pd
from PIL import Image
replica, ensemble, page, *paths = sys.argv[1:]
blocked = {name: None for name in ("googlenet", "pipelines")}  # importing them fails
sys.modules.update(blocked)
model = mlflow.pytorch.load_model(replica)
import torch
with torch.inference_mode():
    of_crops = model(torch.from_numpy(np.load("crops.npy"))).tolist()
for name in blocked:
    del sys.modules[name]
model = mlflow.pyfunc.load_model(ensemble)
asked = {
    "path": pd.DataFrame({"path": paths}),
    "image": pd.DataFrame({"image": [open(path, "rb").read() for path in paths]}),
    "pixels": pd.DataFrame({"pixels": [np.asarray(Image.open(path)) for path in paths]}),
}
plain = {"calibrated": False}
answers = {name: model.predict(table, params=plain).to_dict("records") for name, table in asked.items()}
answers |= {
    policy: model.predict(asked["image"], params={"crop_policy": policy, **plain}).to_dict("records")
    for policy in ("1", "10", "144")
}
answers["page"] = eval(page, {"mlflow": mlflow, "table": asked["image"]}).to_dict("records")
print(json.dumps([of_crops, answers, sys.modules["googlenet"].__file__]))
"""


@dataclass(frozen=True)
class Loaded:
    """Answers of models that were loaded in a process that has MLflow and the store, but not this project.

    Attributes:
        of_crops: those of replica 1 to ``crops``.
        of_photographs: those of the ensemble to the first three validation images, by the way to ask.
        code: the file of the package that the ensemble was computed with.
        graph: the file of replica 1.
        crops: random pixels.
    """

    of_crops: list[list[float]]
    of_photographs: dict[str, list[dict[str, Any]]]
    code: str
    graph: Path
    crops: npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def loaded(finished_run: Path, store: str, champion: str, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("loaded")
    paths = [folder / name.replace("/", "_") for name, _ in photographs(finished_run, 3)]
    for path, (_, data) in zip(paths, photographs(finished_run, 3), strict=True):
        path.write_bytes(data)
    crops = np.random.default_rng(0).integers(0, 256, (5, 3, 35, 35), dtype=np.uint8)
    np.save(folder / "crops.npy", crops)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("googlenet-ensemble")
    children = client.search_runs([experiment.experiment_id], "tags.googlenet_role = 'replica_1'")
    [child] = [run for run in children if run.data.tags["run_directory"] == str(finished_run)]
    [output] = child.outputs.model_outputs
    graph = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://")) / "data/model.pt2"
    page = example("docs/mlflow.md", "mlflow.pyfunc.load_model(").replace("models:/MODEL@champion", champion)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", ASK, f"models:/{output.model_id}", champion, page, *map(str, paths)],
        cwd=folder,
        env={**environment, "MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return Loaded(*json.loads(ended.stdout.splitlines()[-1]), graph, crops)


def test_loaded_in_a_fresh_process_it_gives_the_reports_very_probabilities(finished_run: Path, loaded: Loaded) -> None:
    assert "mlartifacts" in loaded.code  # the code stored with the model, not the installed one
    answers = loaded.of_photographs
    assert answers["path"] == answers["image"] == answers["pixels"] == answers["144"]
    assert [row["answer_1"] for row in answers["page"]] == [row["answer_1"] for row in answers["144"]]
    classes = json.loads((finished_run / "dataset/manifest.json").read_text())["classes"]
    for policy, exactly in (("144", 0.0), ("10", 1e-6), ("1", 1e-6)):
        for (image_id, _), answer in zip(photographs(finished_run, 3), answers[policy], strict=True):
            expected = reported(finished_run, image_id, policy)
            order = np.argsort(-expected)
            assert [answer[f"answer_{place}"] for place in (1, 2, 3)] == [classes[label] for label in order]
            found = [answer[f"probability_{place}"] for place in (1, 2, 3)]
            assert found == pytest.approx(expected[order].astype(np.float32), rel=0, abs=exactly)


def test_it_is_kept_as_code_and_safetensors_without_pickle(store: str, name: str) -> None:
    client = MlflowClient(store)
    version = client.get_model_version_by_alias(name, "champion")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    assert {f"artifacts/replica_{k}.safetensors" for k in range(3)} <= set(files)
    assert {"ensemble_model.py", "code/googlenet/network/model.py", "input_example.json"} <= set(files)


def test_each_replica_is_a_model_of_its_child_run_that_needs_no_code_of_ours(
    finished_run: Path, loaded: Loaded
) -> None:
    with zipfile.ZipFile(loaded.graph) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    # A pickle starts with its protocol; torch.save would wrap it in another archive.
    assert kept
    assert not [name for name, data in kept.items() if data.startswith((b"\x80\x02", b"PK"))]
    import torch

    from googlenet import load_weights

    replica = load_weights(finished_run / "replicas/1/weights.safetensors")
    with torch.inference_mode():
        logits = replica.model(replica.preprocessing(torch.from_numpy(loaded.crops))).logits
    np.testing.assert_allclose(loaded.of_crops, logits.softmax(dim=1).numpy(), atol=1e-4)


def test_replicas_and_ensemble_have_their_errors_on_the_validation_images_by_the_same_names(
    finished_run: Path, store: str, name: str
) -> None:
    report = json.loads((finished_run / "report/report.json").read_text())
    expected = {known["replica"]: known["rows"][-1]["top1_error"] for known in report["replicas"]}
    expected[MODEL] = report["table"][-1]["top1_error"]
    client = MlflowClient(store)
    parent = client.get_model_version(name, "1").run_id
    run = client.get_run(parent)
    own = parent, *children(client, run)
    found = [m for m in client.search_logged_models([run.info.experiment_id]) if m.source_run_id in own]
    assert all(f"/runs/{parent}?" in model.tags["mlflow.note.content"] for model in found)
    errors = [next(metric.value for metric in m.metrics if metric.key == "top1_error/144") for m in found]
    assert {m.name: e for m, e in zip(found, errors, strict=True)} == pytest.approx(expected, abs=1e-3)
    [validation] = [i.dataset for i in run.inputs.dataset_inputs if "(val)" in i.dataset.name]
    for model in found:
        ours = [metric for metric in model.metrics if metric.key in ("top1_error/1", "top1_error/10", "top1_error/144")]
        assert {(metric.dataset_name, metric.dataset_digest) for metric in ours} == {
            (validation.name, validation.digest)
        }


def children(client: MlflowClient, parent: Any) -> list[str]:
    mine = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return [run.info.run_id for run in client.search_runs([parent.info.experiment_id], mine)]


def test_pages_of_the_model_and_its_version_have_results_and_links(finished_run: Path, store: str, name: str) -> None:
    client = MlflowClient(store)
    version = client.get_model_version_by_alias(name, "champion")
    run = client.get_run(version.run_id)
    for text in (version.description, client.get_registered_model(name).description):
        assert "3 models with 144 crops err on" in text
        assert "| top-1 error" in text
        assert "42 validation images of 3 classes: class_0, class_1, class_2" in text
        assert "| batch_size" in text
        assert f"/runs/{version.run_id}?" in text
    assert f"#/models/{name}/versions/{version.version}" in run.data.tags["mlflow.note.content"]
    # Without this tag the page of the logged model says "Not registered".
    logged = client.get_logged_model(version.source.removeprefix("models:/")).tags
    assert json.loads(logged["mlflow.modelVersions"]) == [{"name": name, "version": version.version}]
    assert run.data.tags["dataset"] == version.tags["dataset"]


def test_a_store_of_an_earlier_version_keeps_its_model_and_gets_the_new_one_without_an_upload(
    finished_run: Path, store: str, name: str, tmp_path: Path
) -> None:
    shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    [new] = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags["dataset"]]
    client.create_registered_model(MODEL)
    logged = client.get_logged_model(new.source.removeprefix("models:/"))
    client.create_model_version(MODEL, logged.artifact_location, run_id=new.run_id, tags=new.tags)
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.delete_registered_model(name)
    replay(Storage.at(str(finished_run)), PublishSettings(uri, models="ensemble"))
    assert str(client.get_model_version_by_alias(MODEL, "champion").version) == "1"
    assert client.get_model_version_by_alias(name, "champion").source == new.source  # the logged model is the same one
