"""Stage 3: every view of every validation image through every replica, sharded over the cluster with Ray Data.

    python pipelines/evaluate_ensemble.py --run-dir RUN

CPU tasks read, decode and scale the images of a shard; actors that hold all replicas cut the views, predict, and
write the shard's file. A shard whose file is there is not done again.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from googlenet.crops import CROP_POLICIES
from pipelines.command_line import parse, run_command
from pipelines.dataset import open_records, read_manifest
from pipelines.errors import UserError
from pipelines.predictions import Ensemble, Predicted, file_name, read_ensemble, write_predictions
from pipelines.progress import EvaluationDisplay
from pipelines.ray_session import connected
from pipelines.recipes import Recipe, recipe_from_dict
from pipelines.run_directory import PREDICTIONS, RUN, ReplicaFiles, finished_replicas, replica_name
from pipelines.storage import Storage

# A shard is what a crash can cost, and what travels at once: at 224 px about 1.5 MB an image.
IMAGES_PER_SHARD = 16
# Each predictor leaves a quarter of its CPU to the tasks that feed it; more would wait for each other on one CPU.
PREDICTOR_CPUS = 0.75
FEEDER_CPUS = 0.25


@dataclass(frozen=True)
class EvaluationJob:
    """What a worker needs to know: the run, the ensemble, and where its weights are, in the ensemble's order."""

    run: Storage
    ensemble: Ensemble
    weights: tuple[str, ...]

    @property
    def predictions(self) -> Storage:
        """Where the prediction files go."""
        return self.run.below(PREDICTIONS)


def evaluate(run: Storage, recipe: Recipe, replicas: Sequence[int]) -> Ensemble:
    """Predict every validation image of ``run`` that is not predicted yet by the given, finished replicas.

    Needs a connection to a Ray cluster.
    """
    manifest = read_manifest(run)
    files = [ReplicaFiles(replica) for replica in replicas]
    ensemble = Ensemble(
        replicas=tuple(replica_name(replica) for replica in replicas),
        weights_digests=tuple(hashlib.sha256(run.read(file.weights)).hexdigest() for file in files),
        policies=CROP_POLICIES,
        crop_px=recipe.crop_px,
        classes=manifest.classes,
        dataset_digest=manifest.digest,
    )
    job = EvaluationJob(run, ensemble, tuple(file.weights for file in files))
    images = manifest.splits["val"].images
    missing = _missing_shards(job, images)
    sizes = [len(_rows_of(shard, images)) for shard in missing]
    if missing:
        display = EvaluationDisplay(images, images - sum(sizes))
        with display.showing():
            _predict_shards(job, missing, images, display)
    return ensemble


def _missing_shards(job: EvaluationJob, images: int) -> list[int]:
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


def _predict_shards(job: EvaluationJob, shards: Sequence[int], images: int, display: EvaluationDisplay) -> None:
    import ray
    import ray.data

    num_predictors = max(1, min(len(shards), int(ray.cluster_resources().get("CPU", 1.0))))

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
        )
    )
    for row in done.iter_rows():
        display.advance(row["images"])


def load_shard(job: EvaluationJob, shard: int, images: int) -> dict[str, Any]:
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

    def __init__(self, job: EvaluationJob) -> None:
        import torch

        from googlenet.predictor import Predictor
        from googlenet.weight_files import read_weights

        torch.set_num_threads(1)
        replicas = [read_weights(job.run.read(name), name).build() for name in job.weights]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._job = job
        self._predictor = Predictor(replicas, job.ensemble.crop_px, job.ensemble.policies, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict the row that :func:`load_shard` made; ``shard``, ``images`` and ``seconds`` come out."""
        started = time.monotonic()
        probabilities = np.stack([self._predictor.predict(image) for image in _unpack(row, self._job.ensemble.crop_px)])
        if not np.isfinite(probabilities).all():
            raise ValueError(f"a replica's probabilities are not finite in shard {row['shard']}")
        views = np.full(probabilities.shape[:2], max(self._job.ensemble.policies), np.int32)
        predicted = Predicted(list(row["image_id"]), np.asarray(row["label"], np.int32), views, probabilities)
        write_predictions(self._job.predictions, file_name(row["shard"]), self._job.ensemble, predicted)
        return {"shard": row["shard"], "images": len(probabilities), "seconds": time.monotonic() - started}


def _unpack(row: dict[str, Any], crop_px: int) -> list[Any]:
    """The images of a row that :func:`load_shard` made."""
    from googlenet.crops import scaled_size, scales_px
    from googlenet.predictor import ScaledImage

    images, scales = [], scales_px(crop_px)
    for index, (width, height) in enumerate(zip(row["width"], row["height"], strict=True)):
        packed = row["scaled"][index * len(scales) : (index + 1) * len(scales)]
        sizes = [scaled_size(int(width), int(height), scale) for scale in scales]
        scaled = [np.frombuffer(data, np.uint8).reshape(h, w, 3) for data, (w, h) in zip(packed, sizes, strict=True)]
        images.append(ScaledImage(int(width), int(height), tuple(scaled)))
    return images


@dataclass(frozen=True)
class Arguments:
    """Evaluate the finished replicas of a run with 1, 10 and 144 crops, and write its report."""

    run_dir: str
    """Run directory of a training run: a path, or a URI of an object store."""


def _main() -> None:
    from pipelines.report import write_report

    run = Storage.at(parse(Arguments).run_dir)
    if not run.exists(RUN):
        raise UserError(f"{run} holds no run; train one with train_ensemble.py --run-dir {run}")
    recipe = recipe_from_dict(run.read_json(RUN)["recipe"])
    replicas = finished_replicas(run, recipe.replicas)
    if not replicas:
        raise UserError(f"no replica of {run} is finished; run train_ensemble.py on it again")
    with connected():
        ensemble = evaluate(run, recipe, replicas)
    print(write_report(run, recipe, ensemble))


if __name__ == "__main__":
    run_command(_main)
