"""Predictions for a complete split, sharded over the cluster with Ray Data.

CPU tasks read, decode and scale the images of a shard; actors that hold all replicas cut the views, predict, and
write the shard's file, on a GPU while they already predict the next. A shard whose file exists is skipped.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from googlenet.evaluation.kept_budget import EarlyStop
from googlenet.images.records import Records
from googlenet.network.arithmetic import can_compile, first_line
from pipelines.evaluation.predictors import FEEDER_CPUS, PREDICTOR_CPUS, Predictors, device_of
from pipelines.job.console import say, some
from pipelines.job.progress import EvaluationDisplay
from pipelines.job.unplaced import told_while_unplaced
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.concurrency import concurrently
from pipelines.run.damaged_files import set_aside
from pipelines.run.dataset import Split, open_records
from pipelines.run.directory import PREDICTIONS, VIEW_PROBABILITIES
from pipelines.run.predictions import (
    IMAGES_PER_SHARD,
    PREDICTION_FILE,
    Cost,
    EvaluatedEnsemble,
    Predicted,
    ensemble_in,
    file_name,
    write_predictions,
)
from pipelines.run.storage import Storage
from pipelines.run.tables import read_schema
from pipelines.run.view_probabilities import ViewProbabilities, keeps_views, write_views
from pipelines.run.weights import read_replica

# What needs PyTorch is imported in the tasks and actors: the process that starts them does without.
if TYPE_CHECKING:
    from googlenet.evaluation.averages import Prediction
    from googlenet.evaluation.early_predictor import EarlyPredictor
    from googlenet.evaluation.predictor import Predictor
    from googlenet.images.scaled_image import ScaledImage
    from googlenet.network.weights import Replica

# A GPU computes one, while another is received or its file is written. A CPU would have to do both itself.
SHARDS_AT_ONCE = {"cpu": 1, "gpu": 2}


@dataclass(frozen=True)
class PredictionTask:
    """Parameters of predictors and of the tasks that feed them.

    Attributes:
        run: run directory of the predictions and the report.
        trained: run directory of the replicas' weights; another one than ``run`` if a run is evaluated on new images.
        weights: names of the replicas' weight files, in the ensemble's order.
        ensemble: the ensemble that predicts.
        split: images to predict.
        keep_views: whether to keep the probabilities of each view alone, for a share of the images.
        early_stop: when to stop adding views and replicas; None for never.
        images: run directory of the data set; None for ``run``.
    """

    run: Storage
    trained: Storage
    weights: tuple[str, ...]
    ensemble: EvaluatedEnsemble
    split: Split
    keep_views: bool = False
    early_stop: EarlyStop | None = None
    images: Storage | None = None

    def open_records(self) -> Records:
        """Return random access to the records of the split."""
        return open_records(self.images or self.run, self.split)

    @property
    def predictions(self) -> Storage:
        """Storage of the prediction files."""
        return self.run.below(PREDICTIONS)


def missing_shards(task: PredictionTask, images: int) -> list[int]:
    """Return the numbers of the shards to predict; files of another ensemble or division into shards are deleted.

    Files that are no Parquet are renamed instead, and a line says so: the storage may have returned wrong bytes.
    """
    for folder in (PREDICTIONS, VIEW_PROBABILITIES):
        task.run.remove_partial_files(folder)
    shards = range(-(-images // IMAGES_PER_SHARD))
    wanted = {file_name(shard): shard for shard in shards}
    damaged: list[str] = []

    def number_if_present(name: str) -> int | None:
        if name in wanted:
            schema = read_schema(task.predictions, name)
            if schema is None:
                damaged.append(set_aside(task.predictions, name))
                return None
            if ensemble_in(schema) == task.ensemble:
                return wanted[name]
        if PREDICTION_FILE.fullmatch(name):
            task.predictions.delete(name)
        else:  # nobody here has written it
            set_aside(task.predictions, name)
        return None

    present = set(concurrently(number_if_present, task.predictions.files("")))
    if damaged:
        files = "damaged predictions were renamed, and are computed again"
        say(f"{files}: {some(sorted(damaged))} in {task.predictions}")
    return [shard for shard in shards if shard not in present]


def images_of(shards: Sequence[int], images: int) -> int:
    """Return how many of ``images`` images are in ``shards``."""
    return sum(len(_rows_of(shard, images)) for shard in shards)


def _rows_of(shard: int, images: int) -> range:
    return range(shard * IMAGES_PER_SHARD, min((shard + 1) * IMAGES_PER_SHARD, images))


def predict(task: PredictionTask, shards: Sequence[int], images: int, predictors: Predictors) -> None:
    """Predict ``shards`` of the ``images`` validation images. Needs a connection to a Ray cluster."""
    if not shards:
        return
    display = EvaluationDisplay(images, images - images_of(shards, images))
    with display.showing(), told_while_unplaced("the evaluation", predictors.needs, display.message):
        for row in _predicted_shards(task, shards, images, predictors).iter_rows():
            display.advance(row["images"])


def _predicted_shards(task: PredictionTask, shards: Sequence[int], images: int, predictors: Predictors) -> Any:
    """Return a data set with a row for each shard that is predicted, computed while it is read."""
    import ray.data

    # Ray's dashboard shows the names of functions and of the data set.
    def read_images(row: dict[str, Any]) -> dict[str, Any]:
        return load_shard(task, row["shard"], images)

    least, most = predictors.pool(len(shards))
    at_once = SHARDS_AT_ONCE["gpu" if predictors.num_gpus else "cpu"]
    # A shard is one row and one block, so that Ray Data neither splits nor merges what is finished or lost together.
    done = (
        ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        .map(
            read_images,
            num_cpus=FEEDER_CPUS,
            # Else Ray Data reserves the size of their output: where predictors reserve all memory, none would start.
            memory=0,
            compute=ray.data.TaskPoolStrategy(size=min(predictors.feeders, len(shards))),
        )
        .map(
            ShardPredictor,
            fn_constructor_args=(task, predictors.num_gpus),
            # Those that find no room yet make a cluster that grows on demand grow; without a shard left they end.
            compute=ray.data.ActorPoolStrategy(
                min_size=least,
                max_size=most,
                max_concurrent_calls_per_actor=at_once,
                enable_true_multi_threading=at_once > 1,
            ),
            num_cpus=PREDICTOR_CPUS,
            num_gpus=predictors.num_gpus,
            memory=predictors.memory_bytes or None,
            runtime_env={"env_vars": KEEP_FREED_MEMORY},
        )
    )
    done.set_name("evaluation")
    return done


def load_shard(task: PredictionTask, shard: int, images: int) -> dict[str, Any]:
    """Read, decode and scale the images of a shard.

    Returns:
        One row: ``shard``, and lists with a value for each image: ``image_id``, ``label``, and the fields of
        :meth:`googlenet.images.scaled_image.ScaledImage.to_row`.
    """
    from googlenet.images.scaled_image import ScaledImage

    records = task.open_records()
    scales = sorted({view.scale_px for view in task.ensemble.views})
    rows = []
    for index in _rows_of(shard, images):
        record = records[index]
        image = ScaledImage.decode(record.image, scales)
        rows.append({"image_id": record.image_id, "label": record.label, **image.to_row()})
    return {"shard": shard, **{name: [row[name] for row in rows] for name in rows[0]}}


def load_replicas(trained: Storage, weights: Sequence[str]) -> "list[Replica]":
    """Return the networks in files below ``trained``, ready for a :class:`googlenet.evaluation.predictor.Predictor`."""
    return [read_replica(trained, name)[1].build() for name in weights]


def ready_predictor(task: PredictionTask, device: str) -> "Predictor | EarlyPredictor":
    """Return a predictor that has warmed up; compiled if that was chosen and this node has a working compiler."""
    from googlenet.evaluation.early_predictor import EarlyPredictor
    from googlenet.evaluation.predictor import Predictor

    ensemble, replicas = task.ensemble, load_replicas(task.trained, task.weights)
    plain = replace(ensemble.arithmetic, compiled=False)
    is_compiled = ensemble.arithmetic.compiled and can_compile(device)
    for arithmetic in (ensemble.arithmetic, plain) if is_compiled else (plain,):
        predictor = Predictor(replicas, ensemble.crop_px, ensemble.policies, device, arithmetic)
        try:
            predictor.warm_up()
        except Exception as error:  # a compiler and its tools may raise anything
            if not arithmetic.compiled:
                raise
            logging.getLogger(__name__).warning("not compiled because the compiler failed: %s", first_line(error))
        else:
            break
    return EarlyPredictor(predictor, task.early_stop) if task.early_stop else predictor


class ShardPredictor:
    """Actor that holds all replicas, predicts the shards it gets and writes their files.

    On a GPU, its calls come from several threads: one at a time predicts.

    Args:
        task: what it predicts.
        num_gpus: GPUs that it reserves; it predicts on a CPU if it reserves none.
    """

    def __init__(self, task: PredictionTask, num_gpus: float = 0.0) -> None:
        import torch

        torch.set_num_threads(1)  # there is one predictor per CPU
        self._task = task
        self._predictor = ready_predictor(task, device_of(num_gpus))
        self._predicting = threading.Lock()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict the row that :func:`load_shard` made; return its ``shard`` and number of ``images``."""
        with self._predicting:
            started, passes = time.monotonic(), self._predictor.forward_passes
            every = self._predictor.all_passes
            predictions = list(self._predictor.predict_each(images_in(row), self._keeps_views(row)))
            seconds, passes = time.monotonic() - started, self._predictor.forward_passes - passes
            all_passes = self._predictor.all_passes - every
        cost = Cost(seconds, passes, socket.gethostname(), all_passes)
        predicted = rows_of(row, predictions)
        # The file of predictions, by which a shard counts as done, is written last.
        self._write_views(row, predictions)
        write_predictions(self._task.predictions, file_name(row["shard"]), self._task.ensemble, predicted, cost)
        return {"shard": row["shard"], "images": len(predictions)}

    def _keeps_views(self, row: dict[str, Any]) -> list[bool]:
        """Return for each image whether the probabilities of its views are kept."""
        ids, task = list(row["image_id"]), self._task
        return keeps_views(task.ensemble, task.split.images, ids).tolist() if task.keep_views else [False] * len(ids)

    def _write_views(self, row: dict[str, Any], predictions: "Sequence[Prediction]") -> None:
        kept = [place for place, prediction in enumerate(predictions) if prediction.by_view is not None]
        if kept:
            ids, labels = [row["image_id"][place] for place in kept], np.asarray(row["label"], np.int32)[kept]
            by_view = np.stack([one.by_view for one in predictions if one.by_view is not None])
            views = ViewProbabilities(ids, labels, by_view)
            write_views(self._task.run, file_name(row["shard"]), self._task.ensemble, views)


def rows_of(row: dict[str, Any], predictions: "Sequence[Prediction]") -> Predicted:
    """Return the predictions of a row that :func:`load_shard` made as rows of a prediction file."""
    return Predicted(
        list(row["image_id"]),
        np.asarray(row["label"], np.int32),
        np.stack([prediction.num_views for prediction in predictions]),
        np.stack([prediction.probabilities for prediction in predictions]),
        np.stack([prediction.max_pooled for prediction in predictions]),
        np.stack([prediction.view_top1 for prediction in predictions]),
        np.stack([prediction.group_top1 for prediction in predictions]),
    )


def images_in(row: dict[str, Any]) -> "Iterator[ScaledImage]":
    """Yield the images of a row that :func:`load_shard` made."""
    from googlenet.images.scaled_image import ScaledImage

    for place in range(len(row["image_id"])):
        yield ScaledImage.from_row({name: values[place] for name, values in row.items() if name != "shard"})
