"""Predictions of a whole split, sharded over the cluster with Ray Data.

CPU tasks read, decode and scale the images of a shard; actors that hold all replicas cut the views, predict, and
write the shard's file. A shard whose file is there is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from googlenet.crops import scales_px
from googlenet.weight_files import read_weights
from pipelines.dataset import open_records, read_manifest
from pipelines.predictions import Ensemble, Predicted, file_name, read_ensemble, write_predictions
from pipelines.progress import EvaluationDisplay
from pipelines.run_directory import PREDICTIONS, ReplicaFiles
from pipelines.storage import Storage

# A shard is what a crash can cost, and what travels at once: at 224 px about 1.5 MB an image.
IMAGES_PER_SHARD = 16
# Each predictor leaves a quarter of its CPU to the tasks that feed it; more would wait for each other on one CPU.
PREDICTOR_CPUS = 0.75
FEEDER_CPUS = 0.25


@dataclass(frozen=True)
class PredictionJob:
    """What a worker needs to know.

    Attributes:
        run: holds the data set, and gets the predictions and the report.
        trained: holds the replicas' weights; another run directory where images are evaluated that a run did not have.
        replicas: numbers of the replicas, in the ensemble's order.
        ensemble: what the predictions are of.
    """

    run: Storage
    trained: Storage
    replicas: tuple[int, ...]
    ensemble: Ensemble

    @property
    def predictions(self) -> Storage:
        """Where the prediction files go."""
        return self.run.below(PREDICTIONS)


def predict(job: PredictionJob, images: int) -> None:
    """Predict what is not predicted yet of the ``images`` validation images. Needs a connection to a Ray cluster."""
    missing = _missing_shards(job, images)
    if missing:
        display = EvaluationDisplay(images, images - sum(len(_rows_of(shard, images)) for shard in missing))
        with display.showing():
            _predict_shards(job, missing, images, display)


def _missing_shards(job: PredictionJob, images: int) -> list[int]:
    """Numbers of the shards to predict; files of another ensemble or another division are deleted."""
    job.run.remove_partial_files(PREDICTIONS)
    shards = range(-(-images // IMAGES_PER_SHARD))
    wanted = {file_name(shard): shard for shard in shards}
    present = set()
    for name in job.predictions.files(""):
        if name in wanted and read_ensemble(job.predictions, name) == job.ensemble:
            present.add(wanted[name])
        else:
            job.predictions.delete(name)
    return [shard for shard in shards if shard not in present]


def _rows_of(shard: int, images: int) -> range:
    return range(shard * IMAGES_PER_SHARD, min((shard + 1) * IMAGES_PER_SHARD, images))


def _predict_shards(job: PredictionJob, shards: Sequence[int], images: int, display: EvaluationDisplay) -> None:
    import ray
    import ray.data

    total = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    num_predictors = max(1, min(len(shards), gpus or int(total.get("CPU", 1))))

    def load(row: dict[str, Any]) -> dict[str, Any]:
        return load_shard(job, row["shard"], images)

    # A shard is one row and one block: Ray Data can neither split nor merge what is finished or lost together.
    done = (
        ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        .map(load, num_cpus=FEEDER_CPUS)
        .map(
            ShardPredictor,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=num_predictors),
            num_cpus=PREDICTOR_CPUS,
            num_gpus=1 if gpus else 0,
        )
    )
    for row in done.iter_rows():
        display.advance(row["images"])


def load_shard(job: PredictionJob, shard: int, images: int) -> dict[str, Any]:
    """Read, decode and scale the images of a shard.

    Returns:
        One row: ``shard``; for each image ``image_id``, ``label``, ``width``, ``height``; and ``scaled``, the pixels
        of all images at all scales as bytes, four to an image.
    """
    from googlenet.predictor import ScaledImage

    records = open_records(job.run, read_manifest(job.run).splits["val"])
    rows: dict[str, list[Any]] = {name: [] for name in ("image_id", "label", "width", "height", "scaled")}
    for index in _rows_of(shard, images):
        record = records[index]
        image = ScaledImage.decode(record.image, job.ensemble.crop_px)
        rows["image_id"].append(record.image_id)
        rows["label"].append(record.label)
        rows["width"].append(image.width)
        rows["height"].append(image.height)
        rows["scaled"] += [pixels.tobytes() for pixels in image.scaled]
    return {"shard": shard, **rows}


class ShardPredictor:
    """Holds all replicas; predicts the shards it is given and writes their files."""

    def __init__(self, job: PredictionJob) -> None:
        import torch

        from googlenet.predictor import Predictor

        torch.set_num_threads(1)
        names = [ReplicaFiles(replica).weights for replica in job.replicas]
        replicas = [read_weights(job.trained.read(name), name).build() for name in names]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._job = job
        self._predictor = Predictor(replicas, job.ensemble.crop_px, job.ensemble.policies, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict the row that :func:`load_shard` made; ``shard`` and ``images`` come out."""
        predictions = [self._predictor.predict(image) for image in _unpack(row, self._job.ensemble.crop_px)]
        probabilities = np.stack([prediction.probabilities for prediction in predictions])
        views = np.stack([prediction.num_views for prediction in predictions])
        predicted = Predicted(list(row["image_id"]), np.asarray(row["label"], np.int32), views, probabilities)
        write_predictions(self._job.predictions, file_name(row["shard"]), self._job.ensemble, predicted)
        return {"shard": row["shard"], "images": len(probabilities)}


def _unpack(row: dict[str, Any], crop_px: int) -> list[Any]:
    """The images of a row that :func:`load_shard` made."""
    from googlenet.crops import scaled_size
    from googlenet.predictor import ScaledImage

    images, scales = [], scales_px(crop_px)
    for index, (width, height) in enumerate(zip(row["width"], row["height"], strict=True)):
        packed = row["scaled"][index * len(scales) : (index + 1) * len(scales)]
        sizes = [scaled_size(int(width), int(height), scale) for scale in scales]
        scaled = [np.frombuffer(data, np.uint8).reshape(h, w, 3) for data, (w, h) in zip(packed, sizes, strict=True)]
        images.append(ScaledImage(int(width), int(height), tuple(scaled)))
    return images
