"""Speed of the predictor against ttach and torchvision's TenCrop, on ten crops, the policy that all three support.

    pip install -c constraints.txt -e '.[bench]'
    python -m benchmarks.test_time_augmentation --photos PHOTOS

All use the same square of 256 px and the same network in fp32 on one core; the probabilities are compared as well.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import ttach
import tyro
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.evaluation_run import untrained_replica
from benchmarks.measure import Contender, Round, precisions_to_measure, print_circumstances, print_rates, race
from benchmarks.photographs import photographs
from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import Arithmetic, can_compile
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.job.worker_process import KEEP_FREED_MEMORY

VIEWS = 10
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Arguments:
    """Compare the predictor with ttach and TenCrop."""

    photos: str = ""
    """Folder of photographs; the built-in images otherwise."""
    images: int = 8
    """Photographs in a round."""
    rounds: int = 7
    """Rounds."""
    crop_px: int = 224
    """Side of the crops."""


class _Classifier(nn.Module):
    """Pixels 0..255 to probabilities; the module that the two libraries wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.network = untrained_replica(1.0, 1000, "paper").eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        prepared = CAFFE_PREPROCESSING(images).contiguous(memory_format=torch.channels_last)
        probabilities: Tensor = self.network(prepared).logits.softmax(dim=1)
        return probabilities


def _square(data: bytes, crop_px: int) -> Image.Image:
    scale_px = scales_px(crop_px)[0]
    image = Image.open(io.BytesIO(data)).convert("RGB")
    square: Image.Image = v2.Compose([v2.Resize(scale_px), v2.CenterCrop(scale_px)])(image)
    return square


def _by_tencrop(crop_px: int) -> Callable[[bytes], Tensor]:
    classifier, cut = _Classifier(), v2.TenCrop(crop_px)
    to_tensor = v2.PILToTensor()

    def predict(data: bytes) -> Tensor:
        views = torch.stack([to_tensor(view) for view in cut(_square(data, crop_px))])
        return classifier(views).mean(dim=0)

    return predict


def _by_ttach(crop_px: int) -> Callable[[bytes], Tensor]:
    views = ttach.Compose([ttach.HorizontalFlip(), ttach.FiveCrops(crop_px, crop_px)])
    classifier = ttach.ClassificationTTAWrapper(_Classifier(), views, merge_mode="mean")

    def predict(data: bytes) -> Tensor:
        probabilities: Tensor = classifier(v2.PILToTensor()(_square(data, crop_px))[None])[0]
        return probabilities

    return predict


def _ours(crop_px: int, arithmetic: Arithmetic) -> Callable[[bytes], Tensor]:
    replica = Replica(untrained_replica(1.0, 1000, "paper"), CAFFE_PREPROCESSING)
    predictor = Predictor([replica], crop_px, (VIEWS,), arithmetic=arithmetic)

    def predict(data: bytes) -> Tensor:
        return torch.from_numpy(predictor.predict(ScaledImage.decode(data, scales_px(crop_px)[:1])).probabilities[0, 0])

    return predict


def _round(make: Callable[..., Callable[[bytes], Tensor]], images: list[bytes], *arguments: object) -> Round:
    torch.set_num_threads(1)
    predict = make(*arguments)

    @torch.inference_mode()
    def all_images() -> float:
        for data in images:
            predict(data)
        return VIEWS * len(images)

    return all_images


def largest_difference(images: list[bytes], crop_px: int) -> dict[str, float]:
    """Return the largest difference of a probability from ours in fp32, by library."""
    with torch.inference_mode():
        ours = torch.stack([_ours(crop_px, Arithmetic())(data) for data in images])
        peers = {"ttach": _by_ttach(crop_px), "TenCrop": _by_tencrop(crop_px)}
        return {
            name: float((torch.stack([predict(data) for data in images]) - ours).abs().max())
            for name, predict in peers.items()
        }


def main(arguments: Arguments) -> None:
    """Print views per second, ratios, and the largest difference of the probabilities."""
    images = photographs(arguments.photos, arguments.images)
    crop_px = arguments.crop_px
    contenders = [
        Contender("ttach", _round, (_by_ttach, images, crop_px)),
        Contender("TenCrop", _round, (_by_tencrop, images, crop_px)),
        Contender("ours, fp32", _round, (_ours, images, crop_px, Arithmetic()), KEEP_FREED_MEMORY),
    ]
    if can_compile("cpu"):
        fastest = Arithmetic(precisions_to_measure()[-1], compiled=True)
        contenders.append(Contender(f"ours, {fastest}", _round, (_ours, images, crop_px, fastest), KEEP_FREED_MEMORY))
    print_rates(race(contenders, arguments.rounds), "views/s of a core", ["ttach", "TenCrop"])
    differences = largest_difference(images, crop_px)
    print("\nlargest difference of a probability from ours in fp32: " + str(differences))
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
