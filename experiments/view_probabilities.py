"""Probabilities from every replica of a finished run for every view of every image, computed in parallel processes."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import environment
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from pipelines.evaluation.sharded_prediction import load_replicas
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.directory import PREDICTIONS, ReplicaFiles, replica_number
from pipelines.run.predictions import EvaluatedEnsemble, file_name, read_ensemble, read_predictions
from pipelines.run.storage import Storage

# Two images of 144 views at 224 px take seconds per replica on a core; small enough that no process idles long.
IMAGES_AT_ONCE = 2
# Probabilities of views are stored as float32, and averaged in a different order than in the predictions.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class ViewProbabilities:
    """Probabilities of N images, K replicas, V views and C classes.

    Attributes:
        probabilities: (N, K, V, C) float32.
        labels: (N,).
        ensemble: the ensemble that was evaluated.
    """

    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ensemble: EvaluatedEnsemble


_predictor: Predictor


def view_probabilities(trained: Storage, images: Storage, processes: int, keep: Path | None) -> ViewProbabilities:
    """Compute the probabilities for the validation images in ``images``, or read them from ``keep`` if it exists.

    Args:
        trained: run directory of the replicas.
        images: finished run directory with the images: the same, or one of its evaluations.
        processes: number of parallel processes, each on its own core.
        keep: file (.npz) to store the probabilities in.

    Raises:
        ValueError: the images were not evaluated, or the averages differ from the stored predictions.
    """
    predictions = images.below(PREDICTIONS)
    ensemble = read_ensemble(predictions, file_name(0))
    if ensemble is None:
        raise ValueError(f"{images} has no predictions; finish its evaluation first")
    if keep is None or not keep.exists():
        found = _compute(trained, images, ensemble, processes)
        if keep is not None:
            np.savez(keep, probabilities=found[0], labels=found[1])
    else:
        with np.load(keep) as kept:
            found = kept["probabilities"], kept["labels"]
    result = ViewProbabilities(*found, ensemble)
    _check(result, predictions)
    return result


def _compute(
    trained: Storage, images: Storage, ensemble: EvaluatedEnsemble, processes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    number = read_manifest(images).splits["val"].images
    parts = [range(first, min(first + IMAGES_AT_ONCE, number)) for first in range(0, number, IMAGES_AT_ONCE)]
    spawn = get_context("spawn")
    with (
        environment({**KEEP_FREED_MEMORY, "OMP_NUM_THREADS": "1"}),
        ProcessPoolExecutor(processes, spawn, initializer=_set_up, initargs=(trained, ensemble)) as pool,
    ):
        done = list(pool.map(_predict, [images] * len(parts), [ensemble] * len(parts), parts))
    return np.concatenate([p for p, _ in done]), np.concatenate([labels for _, labels in done])


def _set_up(trained: Storage, ensemble: EvaluatedEnsemble) -> None:
    global _predictor  # noqa: PLW0603  # one per process
    torch.set_num_threads(1)
    weights = [ReplicaFiles(replica_number(name)).weights for name in ensemble.replicas]
    replicas = load_replicas(trained, weights)
    _predictor = Predictor(replicas, ensemble.crop_px, ensemble.policies, arithmetic=ensemble.arithmetic)
    _predictor.warm_up()


def _predict(
    images: Storage, ensemble: EvaluatedEnsemble, indices: range
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    records = open_records(images, read_manifest(images).splits["val"])
    scales = sorted({view.scale_px for view in ensemble.views})
    chosen = [records[index] for index in indices]
    found = [_predictor.predict_views(ScaledImage.decode(record.image, scales)) for record in chosen]
    return np.stack(found).astype(np.float32), np.array([record.label for record in chosen])


def _check(views: ViewProbabilities, predictions: Storage) -> None:
    """Check that the averages over all views equal the stored predictions."""
    names = sorted(predictions.files(""))
    written = np.concatenate([p.probabilities[:, :, -1] for p in read_predictions(predictions, names, views.ensemble)])
    difference = float(np.abs(views.probabilities.mean(axis=2) - written).max())
    if difference > TOLERANCE:
        raise ValueError(f"averages differ from the predictions in {predictions} by {difference:.2g}")
    print(f"averages over the views differ from the evaluation's by {difference:.1g} at most", flush=True)
