"""144 views with the first layers shared between the five crops of a square, against each crop on its own.

    python -m benchmarks.shared_stem --photos PHOTOS

One process with one thread; the two take turns, and the ratio is of CPU seconds, so that other work on the machine
matters less. Prints the largest difference of a probability, too.
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import tyro

from benchmarks.evaluation_run import untrained_replica
from benchmarks.measure import environment, print_circumstances
from benchmarks.photographs import photographs
from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import Arithmetic, Precision
from googlenet.network.choices import Variant
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.job.worker_process import KEEP_FREED_MEMORY

VIEWS = 144


@dataclass(frozen=True)
class Arguments:
    """Compare the predictor with and without sharing."""

    photos: str = ""
    """Folder of photographs; the built-in images otherwise."""
    variant: Variant = "paper"
    """Variant of the network."""
    precision: Precision = "fp32"
    """Precision of the network."""
    rounds: int = 5
    """Rounds of one image each."""
    crop_px: int = 224
    """Side of the crops."""
    width: float = 1.0
    """Width of the network."""


def _measure(arguments: Arguments) -> tuple[list[float], list[float], float]:
    """Return CPU seconds of each round without and with sharing, and the largest difference of a probability."""
    torch.set_num_threads(1)
    replica = Replica(untrained_replica(arguments.width, 1000, arguments.variant), CAFFE_PREPROCESSING)
    predictor = Predictor([replica], arguments.crop_px, (VIEWS,), arithmetic=Arithmetic(arguments.precision))
    image = ScaledImage.decode(photographs(arguments.photos, 1)[0], scales_px(arguments.crop_px))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    answers = {}
    for number in range(arguments.rounds + 1):
        for shares in (False, True) if number % 2 else (True, False):
            predictor.shares_stem = shares
            started = time.process_time()
            answers[shares] = predictor.predict(image).probabilities
            if number:  # the first warms up
                seconds[shares].append(time.process_time() - started)
    return seconds[False], seconds[True], float(np.abs(answers[True] - answers[False]).max())


def main(arguments: Arguments) -> None:
    """Print CPU seconds of both, and their ratio."""
    with environment(KEEP_FREED_MEMORY), ProcessPoolExecutor(1, get_context("spawn")) as process:
        alone, shared, difference = process.submit(_measure, arguments).result()
    ratios = [a / s for a, s in zip(alone, shared, strict=True)]
    medians = f"{statistics.median(alone):.2f} | {statistics.median(shared):.2f} | {statistics.median(ratios):.3f}"
    print("| variant, precision | CPU s, each crop | CPU s, shared stem | x, median | lowest - highest |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| {arguments.variant}, {arguments.precision} | {medians} | {min(ratios):.3f} - {max(ratios):.3f} |")
    print(f"\nlargest difference of a probability: {difference:.1e}")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
