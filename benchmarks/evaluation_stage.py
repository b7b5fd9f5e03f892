"""Speed of the whole evaluation stage, from encoded images to written predictions, against its bare predictors.

    python -m benchmarks.evaluation_stage --photos PHOTOS

The bare predictors run in the same number of processes, on the same photographs, decoded and scaled in memory.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import tyro

from benchmarks.evaluation_run import make_task, predict_all, untrained_replica
from benchmarks.measure import environment, precisions_to_measure, print_circumstances
from benchmarks.photographs import photographs
from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import Arithmetic, can_compile
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.evaluation.predictors import Predictors
from pipelines.job.ray_session import connected
from pipelines.job.worker_process import KEEP_FREED_MEMORY


@dataclass(frozen=True)
class Arguments:
    """Compare the evaluation stage with its bare predictors."""

    photos: str = ""
    """Folder of photographs; the built-in images otherwise."""
    images: int = 224
    """Photographs in a round of the stage."""
    bare_images: int = 16
    """Photographs that each bare predictor holds in memory."""
    rounds: int = 5
    """Rounds."""
    crop_px: int = 224
    """Side of the crops."""
    width: float = 1.0
    """Width of the network, of the paper's variant."""
    predictors: int = 2
    """Predictors, each on its own core."""


_predictor: Predictor
_images: list[ScaledImage]


def _set_up(images: Sequence[bytes], crop_px: int, width: float, arithmetic: Arithmetic) -> None:
    global _predictor, _images  # noqa: PLW0603  # one per process
    torch.set_num_threads(1)
    replica = Replica(untrained_replica(width, 1000, "paper"), CAFFE_PREPROCESSING)
    _predictor = Predictor([replica], crop_px, arithmetic=arithmetic)
    _predictor.warm_up()
    _images = [ScaledImage.decode(data, scales_px(crop_px)) for data in images]


def _bare() -> float:
    started, before = time.perf_counter(), _predictor.forward_passes
    for image in _images:
        _predictor.predict(image)
    return (_predictor.forward_passes - before) / (time.perf_counter() - started)


def main(arguments: Arguments) -> None:
    """Print forward passes per second of the stage and the bare predictors, in turn, and their ratio."""
    images = photographs(arguments.photos, arguments.images)
    arithmetic = Arithmetic(precisions_to_measure()[-1], can_compile("cpu"))
    network = untrained_replica(arguments.width, 1000, "paper")
    bare_arguments = (images[: arguments.bare_images], arguments.crop_px, arguments.width, arithmetic)
    bare, stage, whole = [], [], []
    processes = [
        ProcessPoolExecutor(1, get_context("spawn"), initializer=_set_up, initargs=bare_arguments)
        for _ in range(arguments.predictors)
    ]
    with environment(KEEP_FREED_MEMORY):
        for process in processes:
            process.submit(int).result()
    with tempfile.TemporaryDirectory() as folder, connected(num_cpus=arguments.predictors):
        task = make_task(Path(folder), images, network, arguments.crop_px, arithmetic)
        for _ in range(arguments.rounds):
            at_once = [process.submit(_bare) for process in processes]
            bare.append(sum(future.result() for future in at_once))
            took = predict_all(task, len(images), Predictors(arguments.predictors, 0.0))
            stage.append(took.forward_passes / took.steady_seconds)
            whole.append(took.forward_passes / took.seconds)
            busy = took.busy_seconds / (arguments.predictors * took.steady_seconds)
            print(
                f"bare {bare[-1]:.1f}, stage {stage[-1]:.1f} (predictors busy {100 * busy:.1f} % of the time), "
                f"with start-up {whole[-1]:.1f} passes/s",
                flush=True,
            )
    for process in processes:
        process.shutdown()
    print(
        f"\n{arguments.images} photographs, {arguments.predictors} predictors, {arithmetic}; passes/s, median (range):"
    )
    for name, rates in (("bare predictors", bare), ("stage", stage), ("stage with start-up and compilation", whole)):
        ratio = statistics.median(rates) / statistics.median(bare)
        print(f"{name}: {statistics.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f}), x {ratio:.3f}")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
