"""Crops per second on one core, from encoded photographs to averaged probabilities of all 144 views.

    python -m benchmarks.predictor --photos PHOTOS

Compared with a plain torchvision implementation of the same network: Pillow resizes and crops, all crops stacked in
batches of 144, eager fp32, PyTorch's own local response normalisation; in the default and the channels-last layout. The
limit is a large bfloat16 matrix product, divided by the network's operations per crop.
"""

import io
from dataclasses import dataclass

import torch
import tyro
from PIL import Image, ImageOps
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from benchmarks.measure import Contender, Round, print_circumstances, print_rates, race
from benchmarks.photographs import photographs
from googlenet import GoogLeNet
from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import Arithmetic, can_compile
from googlenet.network.complexity import forward_flops
from googlenet.network.initialisation import initialise
from googlenet.network.layers import LocalResponseNorm
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import Replica
from googlenet.randomness import torch_generator
from pipelines.job.worker_process import KEEP_FREED_MEMORY

VIEWS = 144
MATRIX = 4096
LIMIT = "bf16 matrix product"


@dataclass(frozen=True)
class Arguments:
    """Compare the predictor with eager PyTorch, on one core each."""

    photos: str = ""
    """Folder of photographs; the built-in images otherwise."""
    rounds: int = 7
    """Rounds of one image each."""
    crop_px: int = 224
    """Side of the crops."""
    width: float = 1.0
    """Width of the network."""


def _network(width: float) -> GoogLeNet:
    network = GoogLeNet(1000, "paper", aux_heads=False, width=width)
    initialise(network, "xavier", torch_generator(0, "initial_weights"))
    return network.eval()


def views_by_torchvision(data: bytes, crop_px: int) -> torch.Tensor:
    """Return the paper's views, cut from Pillow images one by one: (144, 3, crop, crop) float."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32), v2.Normalize((123, 117, 104), (1, 1, 1))])
    crops = []
    for scale_px in scales_px(crop_px):
        scaled = functional.resize(image, [scale_px])
        slack_x, slack_y = scaled.width - scale_px, scaled.height - scale_px
        for third in (0, 1, 2):
            square = functional.crop(scaled, third * slack_y // 2, third * slack_x // 2, scale_px, scale_px)
            for view in (*functional.five_crop(square, crop_px), functional.resize(square, [crop_px, crop_px])):
                crops += [to_tensor(view), to_tensor(ImageOps.mirror(view))]
    return torch.stack(crops)


def _eager(data: bytes, crop_px: int, width: float, channels_last: bool) -> Round:
    torch.set_num_threads(1)
    network = _network(width)
    network.lrn = (
        nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0) if isinstance(network.lrn, LocalResponseNorm) else network.lrn
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def one_image() -> float:
        views = views_by_torchvision(data, crop_px).contiguous(memory_format=layout)
        network(views).logits.softmax(dim=1).mean(dim=0)
        return VIEWS

    return one_image


def _ours(data: bytes, crop_px: int, width: float, arithmetic: Arithmetic) -> Round:
    torch.set_num_threads(1)
    replica = Replica(_network(width), CAFFE_PREPROCESSING)
    predictor = Predictor([replica], crop_px, (VIEWS,), arithmetic=arithmetic)

    def one_image() -> float:
        predictor.predict(ScaledImage.decode(data, scales_px(crop_px)))
        return VIEWS

    return one_image


def _matrix_product(flops_per_crop: int) -> Round:
    torch.set_num_threads(1)
    matrix = torch.ones(MATRIX, MATRIX, dtype=torch.bfloat16)

    def one_product() -> float:
        matrix @ matrix
        return 2 * MATRIX**3 / flops_per_crop

    return one_product


def main(arguments: Arguments) -> None:
    """Print crops per second and their ratios."""
    data = photographs(arguments.photos, 1)[0]
    shared = (data, arguments.crop_px, arguments.width)
    compiled = can_compile("cpu")
    contenders = [
        Contender("torchvision, eager fp32", _eager, (*shared, False)),
        Contender("the same, channels-last", _eager, (*shared, True)),
        Contender("ours, fp32", _ours, (*shared, Arithmetic("fp32")), KEEP_FREED_MEMORY),
        Contender("ours, bf16", _ours, (*shared, Arithmetic("bf16")), KEEP_FREED_MEMORY),
        Contender(LIMIT, _matrix_product, (forward_flops(_network(arguments.width), arguments.crop_px),)),
    ]
    if compiled:
        arguments_of_ours = (*shared, Arithmetic("bf16", True))
        contenders.insert(4, Contender("ours, bf16, compiled", _ours, arguments_of_ours, KEEP_FREED_MEMORY))
    rates = race(contenders, arguments.rounds)
    print_rates(rates, "crops/s of a core", [contenders[0].name, contenders[1].name, LIMIT])
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
