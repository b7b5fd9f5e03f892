"""Training images per second of one replica, from Parquet shards to updated weights, on this machine's cores.

    python -m benchmarks.training --photos PHOTOS

Compared with the same step on a batch already in memory, and with a loop like torchvision's reference: its GoogLeNet,
Pillow images in a DataLoader with worker processes, fp32.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pyarrow.fs as pafs
import torch
import torchvision
import tyro
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.gpu_torchvision import PillowImages
from benchmarks.measure import Contender, Round, precisions_to_measure, print_circumstances, print_rates, race
from benchmarks.photographs import photographs_of_size
from googlenet import GoogLeNet
from googlenet.images.records import SCHEMA, Records, write_records
from googlenet.network.arithmetic import Arithmetic, compile_network
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.augment import Sampling
from googlenet.training.batches import TrainingSamples, training_batches
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch, forkserver
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.micro_batch import micro_batch_images
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.job.node_limits import node_limits
from pipelines.job.worker_process import KEEP_FREED_MEMORY

CLASSES = 1000
REFERENCE = "torchvision's reference loop"


@dataclass(frozen=True)
class Arguments:
    """Measure the training of one replica."""

    photos: str = ""
    """Folder of photographs; scikit-learn's two otherwise."""
    rounds: int = 5
    """Rounds."""
    steps: int = 6
    """Steps in a round."""
    images: int = 512
    """Different photographs."""
    batch_size: int = 32
    """Images in a step."""
    crop_px: int = 224
    """Side of the crops."""
    width: float = 1.0
    """Width of the network."""
    variant: Literal["paper", "bn"] = "bn"
    """Variant of the network; torchvision's is 'bn'."""
    threads: int = 2
    """Threads of each contender."""
    compiled: bool = True
    """Also measure our step compiled."""


def _ours(folder: str, arguments: Arguments, arithmetic: Arithmetic, in_memory: bool) -> Round:
    torch.set_num_threads(arguments.threads)
    model = GoogLeNet(CLASSES, arguments.variant, width=arguments.width)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_sgd(model, momentum=0.9, weight_decay=2e-4, decay_biases=False)
    network = compile_network(model) if arithmetic.compiled else model
    state = TrainState(model, optimizer, PolyakAverage(model, 1000), network_for=lambda _: network)
    settings = LoopSettings(
        LearningRate(0.001, "paper", 0, 1),
        10**9,
        SCRATCH_PREPROCESSING,
        0,
        precision=arithmetic.precision,
        micro_batch=micro_batch_images(model, arguments.crop_px, 1, on_gpu=False),
    )
    batches = _batches(folder, arguments)
    kept = next(batches)

    def one_round() -> float:
        for _ in range(arguments.steps):
            train_step(state, kept if in_memory else next(batches), settings)
        return arguments.steps * arguments.batch_size

    return one_round


def _batches(folder: str, arguments: Arguments) -> Iterator[Batch]:
    """Return full batches without end."""
    records = Records(pafs.LocalFileSystem(), [f"{folder}/shard.parquet"], [arguments.images])
    samples = TrainingSamples(records, arguments.crop_px, Sampling(), 0)
    batches = training_batches(samples, arguments.batch_size, count())
    return (batch for batch in batches if batch.num_images == arguments.batch_size)


def _reference(encoded: Sequence[bytes], arguments: Arguments) -> Round:
    torch.set_num_threads(arguments.threads)
    model = torchvision.models.googlenet(num_classes=CLASSES, aux_logits=True, init_weights=False)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    images_in_memory = PillowImages(encoded, CLASSES, arguments.crop_px)
    # An epoch is a round: its processes load nothing before it, and nothing while the others are timed.
    num_images = arguments.steps * arguments.batch_size
    loader = DataLoader(
        images_in_memory,
        arguments.batch_size,
        sampler=RandomSampler(images_in_memory, replacement=True, num_samples=num_images),
        num_workers=arguments.threads,
        persistent_workers=True,
        multiprocessing_context=forkserver(),
    )
    loss_of = torch.nn.CrossEntropyLoss()

    def one_round() -> float:
        for images, labels in loader:
            outputs = model(images)
            loss = loss_of(outputs.logits, labels)
            loss = loss + 0.3 * (loss_of(outputs.aux_logits1, labels) + loss_of(outputs.aux_logits2, labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return num_images

    return one_round


def shard_columns(encoded: Sequence[bytes]) -> dict[str, list[Any]]:
    """Return the columns of a shard of these images."""
    rows = [(f"{number}.jpg", data, number % CLASSES, 0, 0) for number, data in enumerate(encoded)]
    return dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))


def write_shard(folder: str, encoded: Sequence[bytes]) -> None:
    """Write a Parquet shard in the project's format."""
    with (Path(folder) / "shard.parquet").open("wb") as stream:
        write_records(stream, zip(*shard_columns(encoded).values(), strict=True), {})


def main(arguments: Arguments) -> None:
    """Print images per second and their ratios."""
    encoded = photographs_of_size(arguments.photos, arguments.images, 500, 375)
    with tempfile.TemporaryDirectory() as folder:
        write_shard(folder, encoded)
        contenders = [Contender(REFERENCE, _reference, (encoded, arguments))] if arguments.variant == "bn" else []
        against = [contender.name for contender in contenders]
        variable = {**KEEP_FREED_MEMORY, "OMP_NUM_THREADS": str(arguments.threads)}
        for arithmetic in _arithmetics(arguments.compiled):
            bare = f"bare step, {arithmetic}"
            for name, in_memory in ((bare, True), (f"ours, {arithmetic}", False)):
                contenders.append(Contender(name, _ours, (folder, arguments, arithmetic, in_memory), variable))
            against.append(bare)
        rates = race(contenders, arguments.rounds)
    print(f"{node_limits().cpus} cores, {arguments.threads} threads, batches of {arguments.batch_size}\n")
    print_rates(rates, "images/s", against)
    print_circumstances(arguments.rounds)


def _arithmetics(compiled: bool) -> list[Arithmetic]:
    precisions = precisions_to_measure()
    return [*map(Arithmetic, precisions), *([Arithmetic(precisions[-1], compiled=True)] if compiled else [])]


if __name__ == "__main__":
    main(tyro.cli(Arguments))
