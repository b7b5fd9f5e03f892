"""Highest memory of a process that predicts or trains with one replica at full width, on a CPU in fp32, by step.

    python -m benchmarks.memory

Each process has one thread and the allocator's settings of Ray's workers, without Ray, whose packages add about
170 MB, and without records.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

import torch
import tyro

from benchmarks.measure import environment, peak_mb, print_circumstances
from googlenet.evaluation.predictor import Predictor
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.micro_batch import micro_batch_images
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.job.worker_process import KEEP_FREED_MEMORY

CLASSES = 1000
Variant = Literal["paper", "bn"]
Kind = Literal["predictor", "training"]


@dataclass(frozen=True)
class Arguments:
    """Measure the memory of predictors and training workers."""

    crop_px: int = 224
    """Side of the crops."""
    batch_size: int = 32
    """Images in a training step."""
    steps: int = 5
    """Steps, or batches of views."""
    width: float = 1.0
    """Width of the network."""
    in_parts: bool = True
    """Take training steps in parts, as a worker does where it can."""
    kinds: tuple[Kind, ...] = ("predictor", "training")
    """What to measure."""
    variants: tuple[Variant, ...] = ("bn", "paper")
    """Variants of the network."""


def _predicting(variant: Variant, arguments: Arguments) -> Callable[[], object]:
    replica = Replica(GoogLeNet(CLASSES, variant, False, arguments.width).eval(), SCRATCH_PREPROCESSING)
    return Predictor([replica], arguments.crop_px).warm_up


def _training(variant: Variant, arguments: Arguments) -> Callable[[], object]:
    model = GoogLeNet(CLASSES, variant, width=arguments.width)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_sgd(model, momentum=0.9, weight_decay=2e-4, decay_biases=True)
    state = TrainState(model, optimizer, PolyakAverage(model, 1000))
    micro_batch = micro_batch_images(model, arguments.crop_px, 1, on_gpu=False) if arguments.in_parts else None
    rate = LearningRate(0.001, "paper", 0, 1)
    settings = LoopSettings(rate, 1000, SCRATCH_PREPROCESSING, 0, micro_batch=micro_batch)
    pixels = torch.zeros(arguments.batch_size, 3, arguments.crop_px, arguments.crop_px, dtype=torch.uint8)
    labels = torch.zeros(arguments.batch_size, dtype=torch.int64)
    batch = Batch.whole(pixels.contiguous(memory_format=torch.channels_last), labels)
    return lambda: train_step(state, batch, settings)


WORK = {"predictor": _predicting, "training": _training}


def _megabytes(kind: Kind, variant: Variant, arguments: Arguments) -> list[float]:
    """Return the highest memory of this process so far, after each step."""
    torch.set_num_threads(1)
    step, found = WORK[kind](variant, arguments), []
    for _ in range(arguments.steps):
        step()
        found.append(peak_mb())
    return found


def main(arguments: Arguments) -> None:
    """Print a table."""
    print(f"| process | {' | '.join(f'MB after {number}' for number in range(1, arguments.steps + 1))} |")
    print("| --- |" + " ---: |" * arguments.steps)
    with environment({**KEEP_FREED_MEMORY, "OMP_NUM_THREADS": "1"}):
        for kind in arguments.kinds:
            for variant in arguments.variants:
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    found = process.submit(_megabytes, kind, variant, arguments).result()
                print(f"| {kind}, `{variant}` | {' | '.join(f'{value:,.0f}' for value in found)} |", flush=True)
    print_circumstances(1)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
