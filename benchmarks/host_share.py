"""Images a second that one core can feed to a GPU: everything that a predictor does but the device's own work.

    python -m benchmarks.host_share

The networks do nothing. Two contenders, each for one core:

- *the host of a GPU*: shards are unpacked, images go to a device that keeps no data (PyTorch's "meta"), on which all
  operations are started as on a GPU but not computed; results come home as zeros, and the shards' files are written.
  What a driver adds to each of a GPU's operations is missing.
- *all on one core*: the same with a CPU as the device, which also cuts, converts, resizes and averages the views.

The rates are per CPU second, so that other work on the machine matters less.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs
from googlenet.evaluation import averages
from googlenet.evaluation.crops import CROP_POLICIES, scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32
from googlenet.network.model import Outputs
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.evaluation.predictors import IMAGES_PER_SHARD
from pipelines.evaluation.sharded_prediction import images_in, rows_of
from pipelines.run.predictions import Cost, EvaluatedEnsemble, write_predictions
from pipelines.run.storage import Storage

CONTENDERS = {"the host of a GPU": "meta", "all on one core": "cpu"}


@dataclass(frozen=True)
class Arguments:
    """Measure the share of the host."""

    photos: str = ""
    """Folder of photographs; the built-in images otherwise."""
    replicas: int = 7
    """Networks."""
    classes: int = 1000
    """Classes."""
    crop_px: int = 224
    """Side of the crops."""
    rounds: int = 7
    """Rounds of a shard each."""


class Nothing(nn.Module):
    """A network that returns zeros."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(1, classes)

    def forward(self, images: Tensor) -> Outputs:
        """Return zeros for each image."""
        return Outputs(self.classifier.bias.detach().expand(len(images), -1))


def shard_of(images: list[bytes], crop_px: int) -> dict[str, Any]:
    """Return a row as the tasks that feed predictors make it."""
    rows = [ScaledImage.decode(image, scales_px(crop_px)).to_row() for image in images]
    names = {"image_id": [str(number) for number in range(len(rows))], "label": [0] * len(rows)}
    return {**names, **{name: [row[name] for row in rows] for name in rows[0]}}


def _zeros_at_home(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor


def main(arguments: Arguments) -> None:
    """Print images per CPU second."""
    torch.set_num_threads(1)
    averages._copied_home = _zeros_at_home
    shard = shard_of(photographs(arguments.photos, IMAGES_PER_SHARD), arguments.crop_px)
    replicas: Any = [Replica(Nothing(arguments.classes), CAFFE_PREPROCESSING) for _ in range(arguments.replicas)]  # type: ignore[arg-type]
    predictors = {name: Predictor(replicas, arguments.crop_px, device=device) for name, device in CONTENDERS.items()}
    for predictor in predictors.values():
        predictor.shares_stem = False  # there is none
    names = tuple(str(number) for number in range(arguments.replicas))
    classes = tuple(str(label) for label in range(arguments.classes))
    ensemble = EvaluatedEnsemble(names, names, CROP_POLICIES, arguments.crop_px, classes, "", FP32)
    rates: dict[str, list[float]] = {name: [] for name in predictors}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            for name, predictor in predictors.items():
                started = time.process_time()
                predictions = list(predictor.predict_each(images_in(shard)))
                rows = rows_of(shard, predictions)
                write_predictions(Storage.at(folder), "shard.parquet", ensemble, rows, Cost(0.0, 0))
                if number:  # the first warms up
                    rates[name].append(len(predictions) / (time.process_time() - started))
    print("| contender | images/s of a core, median | lowest - highest |\n| --- | ---: | ---: |")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} - {max(values):.1f} |")
    print(f"\n{arguments.replicas} networks, {arguments.crop_px} px, policies {CROP_POLICIES}")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
