"""The data set of a run in MLflow: its name, MLflow's inputs, and tags for the list of runs."""

import json

from pipelines.run.dataset import SPLITS, Manifest
from pipelines.run.storage import short_name
from pipelines.tracking.runs import Experiment

DATASET_TAG, IMAGES_TAG, CLASSES_TAG, DIGEST_TAG = "dataset", "val_images", "classes", "dataset_digest"
CONTEXTS = {"train": "training", "val": "evaluation"}
DIGEST_CHARACTERS = 36


def data_of(manifest: Manifest) -> str:
    """Return where the images came from, as --data named it."""
    return str(manifest.prepared_from.get("data", ""))


def name_of_data(manifest: Manifest) -> str:
    """Return the data set's short name: its folder's, or that of a built-in one."""
    return short_name(data_of(manifest)) or data_of(manifest)


def dataset_tags(manifest: Manifest) -> dict[str, str]:
    """Return the tags by which runs are told apart in MLflow's list."""
    return {
        DATASET_TAG: name_of_data(manifest),
        IMAGES_TAG: str(manifest.splits["val"].images),
        CLASSES_TAG: str(len(manifest.classes)),
        DIGEST_TAG: manifest.digest,
    }


def validation_images(manifest: Manifest) -> tuple[str, str]:
    """Return the name and the digest under which MLflow knows the validation images."""
    return _name_and_digest(manifest, "val")


def _name_and_digest(manifest: Manifest, split: str) -> tuple[str, str]:
    return f"{name_of_data(manifest)} ({split})", manifest.splits[split].digest[:DIGEST_CHARACTERS]


def send_dataset(runs: Experiment, mlflow_run: str, manifest: Manifest) -> None:
    """Log the data set as tags and as MLflow's inputs: a training and an evaluation split, if they hold images."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    runs.set_tags(mlflow_run, dataset_tags(manifest))
    if runs.client.get_run(mlflow_run).inputs.dataset_inputs:
        return
    data, inputs = data_of(manifest), []
    for split in SPLITS:
        chosen = manifest.splits[split]
        if not chosen.images:
            continue
        profile = {"images": chosen.images, "classes": len(manifest.classes), "shards": len(chosen.shards)}
        name, digest = _name_and_digest(manifest, split)
        dataset = Dataset(
            name=name,
            digest=digest,
            source_type="local" if "://" not in data else data.partition("://")[0],
            source=json.dumps({"uri": data, "dataset_digest": manifest.digest}),
            profile=json.dumps(profile),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS[split])]))
    runs.client.log_inputs(mlflow_run, inputs)
