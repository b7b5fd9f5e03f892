"""The ensemble and its replicas as models in MLflow."""

import hashlib
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.job.circumstances import UNKNOWN, package_version
from pipelines.job.interpreter import ROOT
from pipelines.report.schema import Report
from pipelines.run.dataset import Manifest, open_records
from pipelines.run.directory import ReplicaFiles, read_report, replica_name, replica_number
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name
from pipelines.run.storage_failures import STORE_FAILURES
from pipelines.run.weights import read_replica
from pipelines.tracking.dataset import dataset_tags, name_of_data
from pipelines.tracking.graph_flavor import GraphFlavor
from pipelines.tracking.model_identity import (
    WEIGHTS_TAG,
    description_of,
    digest_tags,
    keep_digests,
    logged_ensemble,
    logged_model,
    registered_version,
)
from pipelines.tracking.model_pages import name_on_its_page
from pipelines.tracking.notes import Origin, version_note
from pipelines.tracking.result import PERCENT_DECIMALS
from pipelines.tracking.runs import MlflowRuns
from pipelines.tracking.store import STORE_VARIABLE

MODEL = "googlenet-ensemble"
VAL_DIGEST_TAG = "val_digest"
DIGEST_CHARACTERS = 8
DESCRIPTION_JSON = "ensemble.json"
# A server may have to store an uploaded file in a bucket before it answers: MLflow's default, not that of calls.
TIMEOUT, UPLOAD_SECONDS = "MLFLOW_HTTP_REQUEST_TIMEOUT", 120
CHANGED = (STORE_VARIABLE, "MLFLOW_EXPERIMENT_ID", TIMEOUT)
# Packages imported by the code that is kept with the model.
PACKAGES = (
    "jaxtyping", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "safetensors", "simplejpeg", "torch",
)  # fmt: skip
CODE = ROOT / "googlenet"
MODEL_CODE = Path(__file__).parent / "ensemble_model.py"


def log_ensemble(runs: MlflowRuns, run: Storage, recipe: Recipe, manifest: Manifest) -> tuple[str, str]:
    """Log the ensemble as a generic model and register it, unless already done; return model name and version.

    A run that was evaluated again, with another calibration or budget, gets a new version.
    """
    report = read_report(run)
    ensemble = EvaluatedEnsemble.from_dict(report["ensemble"])
    name, digests = registered_name(manifest), digest_tags(run, ensemble)
    note, errors = version_note(origin_of(runs, run, recipe, manifest)), _errors(report)
    model_id = logged_ensemble(runs, run, ensemble)
    known = registered_version(runs, name, digests)
    keep_digests(runs, digests, known, model_id)
    if known:
        number = str(known.version)
        for tag in errors.items() - known.tags.items():
            runs.client.set_model_version_tag(name, number, *tag)
        if model_id:
            name_on_its_page(runs, model_id, name, number, note)
        return name, number
    with _speaking_to(runs):
        model_id = model_id or _log(runs, run, manifest, ensemble)
        tags = {**errors, **dataset_tags(manifest), **digests, VAL_DIGEST_TAG: manifest.splits["val"].digest}
        return name, _register(runs, name, model_id, tags, note)


def origin_of(runs: MlflowRuns, run: Storage, recipe: Recipe, manifest: Manifest) -> Origin:
    """Return what the pages of a run's model say."""
    report = read_report(run)
    return Origin(report, manifest, recipe.to_dict(), runs.experiment, runs.parent, short_name(run.root))


def registered_name(manifest: Manifest) -> str:
    """Return the name of the registered model of a data set.

    The validation images decide it: versions of one model can be compared, and its champion is that of these images.
    """
    readable = re.sub(r"[^\w.-]+", "_", name_of_data(manifest), flags=re.ASCII)
    return f"{MODEL}-{readable}-{manifest.splits['val'].digest[:DIGEST_CHARACTERS]}"


def _log(runs: MlflowRuns, run: Storage, manifest: Manifest, ensemble: EvaluatedEnsemble) -> str:
    from mlflow import pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        info = Model.log(
            artifact_path=None,
            flavor=pyfunc,
            name=MODEL,
            run_id=runs.parent,
            tags=digest_tags(run, ensemble),
            python_model=str(MODEL_CODE),
            artifacts=_files(run, ensemble, Path(folder)),
            code_paths=[str(CODE)],
            signature=_signature(ensemble),
            input_example=_example(run, manifest, ensemble),
            pip_requirements=_requirements(*PACKAGES),
        )
    return str(info.model_id)


def _files(run: Storage, ensemble: EvaluatedEnsemble, folder: Path) -> dict[str, str]:
    """Write and return the files of a model: each replica's weights, and a description of the ensemble."""
    files = {}
    for name in ensemble.replicas:
        files[name] = str(folder / f"{name}.safetensors")
        content, _ = read_replica(run, ReplicaFiles(replica_number(name)).weights)
        Path(files[name]).write_bytes(content)
    files["ensemble"] = str(folder / DESCRIPTION_JSON)
    about = json.dumps(description_of(run, ensemble), indent=2, ensure_ascii=False)
    Path(files["ensemble"]).write_text(about, encoding="utf-8")
    return files


def _signature(ensemble: EvaluatedEnsemble) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    from googlenet.evaluation.ensemble import ABSTAIN, PASSES, SET, answer_columns

    # MLflow would refuse a whole request because of one value of another type; the model answers for each row.
    inputs = ("image", "path", "pixels")
    outputs = [
        ColSpec(DataType.string if name.startswith("answer") else DataType.double, name, required=False)
        for name in answer_columns(len(ensemble.classes))
    ]
    # With a coverage: the classes in one text, as in answers/top5.csv.
    sets = [ColSpec(DataType.string, SET, required=False), ColSpec(DataType.boolean, ABSTAIN, required=False)]
    sets.append(ColSpec(DataType.long, PASSES, required=False))  # with a budget
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name, required=False) for name in inputs]),
        outputs=Schema([*outputs, *sets, ColSpec(DataType.string, "error", required=False)]),
        params=ParamSchema(
            [
                ParamSpec("crop_policy", DataType.string, str(ensemble.largest)),
                ParamSpec("calibrated", DataType.boolean, True),
                ParamSpec("coverage", DataType.double, 0.0),
                ParamSpec("budget", DataType.string, "best"),
            ]
        ),
    )


def _example(run: Storage, manifest: Manifest, ensemble: EvaluatedEnsemble) -> Any:
    """Return a validation image, with the fewest crops: MLflow runs the example before it stores the model.

    The images of a run may have been deleted, or left behind where it was copied from: any other image will do.
    """
    import pandas as pd

    try:
        image = open_records(run, manifest.splits["val"])[0].image
    except STORE_FAILURES:
        file = io.BytesIO()
        Image.new("RGB", (ensemble.crop_px, ensemble.crop_px), "grey").save(file, "PNG")
        image = file.getvalue()
    return pd.DataFrame({"image": [image]}), {"crop_policy": str(ensemble.policies[0])}


def _requirements(*packages: str) -> list[str]:
    versions = {name: package_version(name) for name in packages}
    # Without the build (+cpu): whoever installs the package chooses it. One that is not installed here, since another
    # has its modules, may have any version.
    return [name if number == UNKNOWN else f"{name}=={number.partition('+')[0]}" for name, number in versions.items()]


def _errors(report: Report) -> dict[str, str]:
    """Return the errors of all models with the most crops, by which champions are chosen."""
    best = report["table"][-1]
    errors = {"top1_error": best["top1_error"], "top5_error": best["top5_error"]}
    return {name: str(round(error, PERCENT_DECIMALS)) for name, error in errors.items()}


def _register(runs: MlflowRuns, name: str, model_id: str, tags: dict[str, str], note: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        runs.client.create_registered_model(name)
    except MlflowException:  # it exists; if that was not the reason, the next call raises the real one
        runs.client.get_registered_model(name)
    made = runs.client.create_model_version(
        name, f"models:/{model_id}", run_id=runs.parent, tags=tags, description=note, model_id=model_id
    )
    name_on_its_page(runs, model_id, name, made.version, note)
    return str(made.version)


def log_replica(runs: MlflowRuns, replica: int, flavor: GraphFlavor) -> str:
    """Log one replica as a PyTorch model of its child run, unless already done: crops in, probabilities out.

    Returns the model's id.

    It is stored as a graph of operations (torch.export), which needs no code of this project and no pickle. A
    ``flavor`` given for several replicas traces the first alone.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from googlenet.evaluation.ensemble import PixelClassifier

    child = runs.child(replica)
    weights, stored = read_replica(runs.run, ReplicaFiles(replica).weights)
    digest = hashlib.sha256(weights).hexdigest()
    if known := logged_model(runs, child, digest):
        return known
    crop_px = stored.extra["crop_px"]
    architecture = (stored.variant, stored.width, stored.lrn, stored.num_classes, stored.preprocessing, crop_px)
    with _speaking_to(runs):
        info = Model.log(
            artifact_path=None,
            flavor=flavor,
            flavor_name="mlflow.pytorch",
            name=replica_name(replica),
            run_id=child,
            tags={WEIGHTS_TAG: digest},
            pytorch_model=PixelClassifier([stored.build()]),
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 3, crop_px, crop_px))]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, stored.num_classes))]),
            ),
            # Two crops: a graph exported with one crop would accept only one.
            input_example=np.zeros((2, 3, crop_px, crop_px), np.uint8),
            pip_requirements=_requirements("mlflow", "torch"),
            architecture=architecture,
            validate_serving_input=False,  # MLflow would read each graph back, and ask it once
        )
    return str(info.model_id)


@contextmanager
def _speaking_to(runs: MlflowRuns) -> Iterator[None]:
    """Set store, experiment and time-out of MLflow's model functions, which are global; restore them afterwards."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    environment = {name: os.environ.get(name) for name in CHANGED}
    mlflow.set_tracking_uri(runs.tracking_uri)
    mlflow.set_experiment(experiment_id=runs.experiment)
    os.environ[TIMEOUT] = str(max(UPLOAD_SECONDS, int(os.environ.get(TIMEOUT, "0"))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about MLflow's own use of its libraries
            yield
    finally:
        mlflow.set_tracking_uri(before)
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
