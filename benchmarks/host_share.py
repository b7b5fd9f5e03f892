"""Images a second that one core can feed to a GPU: everything that a predictor does but the device's own work.

    python -m benchmarks.host_share

The networks do nothing. Measured in turn, per image of all 144 views, in CPU time, so that other work on the machine
matters less:

- *receive and send*: a shard is unpacked, and the pixels of all scales are copied to where a GPU fetches them;
- *start operations*: views are cut, resized, predicted and averaged as on a GPU, on crops of 14 px and two classes, so
  that what remains is the time to start the operations. What a GPU's driver adds to each is missing;
- *write*: predictions of all classes become rows, and the shard's file is written.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs
from googlenet.evaluation import views
from googlenet.evaluation.crops import CROP_POLICIES, scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.evaluation.resizing import resized_by_products
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32
from googlenet.network.layers import NO_MASKS, DropoutMasks
from googlenet.network.model import GoogLeNet, Outputs
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.evaluation.predictors import IMAGES_PER_SHARD
from pipelines.evaluation.sharded_prediction import images_in, rows_of
from pipelines.run.predictions import Cost, EvaluatedEnsemble, write_predictions
from pipelines.run.storage import Storage

SMALL_CROP_PX, FEW_CLASSES = 14, 2


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


class Nothing(GoogLeNet):
    """A network that computes nothing."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, aux_heads=False, width=0.125)

    def forward(self, images: Tensor, masks: DropoutMasks = NO_MASKS) -> Outputs:
        """Return the same logits for each image."""
        del masks
        return Outputs(self.classifier.bias.detach().expand(len(images), -1))


def shard_of(images: list[bytes], crop_px: int) -> dict[str, Any]:
    """Return a row as the tasks that feed predictors make it."""
    rows = [ScaledImage.decode(image, scales_px(crop_px)).to_row() for image in images]
    names = {"image_id": [str(number) for number in range(len(rows))], "label": [0] * len(rows)}
    return {**names, **{name: [row[name] for row in rows] for name in rows[0]}}


def _predictor(replicas: int, classes: int, crop_px: int) -> Predictor:
    predictor = Predictor([Replica(Nothing(classes), CAFFE_PREPROCESSING) for _ in range(replicas)], crop_px)
    predictor.shares_stem = False  # there is none
    return predictor


def _parts(arguments: Arguments, folder: str) -> dict[str, Callable[[], object]]:
    """Return the parts of the host's work on a shard."""
    encoded = photographs(arguments.photos, IMAGES_PER_SHARD)
    shard, small_shard = shard_of(encoded, arguments.crop_px), shard_of(encoded, SMALL_CROP_PX)
    full = _predictor(arguments.replicas, arguments.classes, arguments.crop_px)
    small = _predictor(arguments.replicas, FEW_CLASSES, SMALL_CROP_PX)
    sent = [small._sent([(image, False)]) for image in images_in(small_shard)]
    names = tuple(str(number) for number in range(arguments.replicas))
    classes = tuple(str(label) for label in range(arguments.classes))
    ensemble = EvaluatedEnsemble(names, names, CROP_POLICIES, arguments.crop_px, classes, "", FP32)
    noise = np.random.default_rng(0).dirichlet(np.ones(arguments.classes), (arguments.replicas, len(CROP_POLICIES)))
    predicted = replace(full.predict(next(images_in(shard))), probabilities=noise.astype(np.float32))

    def write() -> None:
        rows = rows_of(shard, [predicted] * IMAGES_PER_SHARD)
        write_predictions(Storage.at(folder), "shard.parquet", ensemble, rows, Cost(0.0, 0))

    return {
        "receive and send": lambda: [full._sent([(image, False)]) for image in images_in(shard)],
        "start operations": lambda: [small._predicted(group).wait() for group in sent],
        "write": write,
    }


def main(arguments: Arguments) -> None:
    """Print CPU time per image of each part, and images per CPU second of all."""
    torch.set_num_threads(1)
    views.resized = resized_by_products  # as on a GPU
    with tempfile.TemporaryDirectory() as folder:
        parts = _parts(arguments, folder)
        per_image_ms: dict[str, list[float]] = {name: [] for name in parts}
        for number in range(arguments.rounds + 1):
            for name, part in parts.items():
                started = time.process_time()
                part()
                if number:  # the first warms up
                    per_image_ms[name].append(1000 * (time.process_time() - started) / IMAGES_PER_SHARD)
    print("| part | ms an image, median | lowest - highest |\n| --- | ---: | ---: |")
    per_image_ms["all"] = [sum(values) for values in zip(*per_image_ms.values(), strict=True)]
    for name, values in per_image_ms.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} - {max(values):.2f} |")
    rate = 1000 / statistics.median(per_image_ms["all"])
    print(f"\n{rate:.0f} images/s of a core; {arguments.replicas} networks, {arguments.crop_px} px, {CROP_POLICIES}")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
