"""Crops per second on one core, from encoded photographs to averaged probabilities of all 144 views.

    python -m benchmarks.predictor --photos PHOTOS

Compared with a plain torchvision implementation of the same network: Pillow resizes and crops, all crops stacked in
batches of 144, eager fp32, PyTorch's own local response normalisation; in the default and the channels-last layout.
ONNX Runtime and OpenVINO get the views as our predictor cuts them, in batches of the same size; they are left out where
they are not installed, and bf16 where the processor has no instructions for it, with a line that says so. The limit is
a large matrix product, in bfloat16 or else in fp32, divided by the network's operations per crop. It limits those who
compute each crop by itself; our predictor, where it is not compiled, computes the first layers once for five crops.
"""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image, ImageOps
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from benchmarks import other_runtimes
from benchmarks.measure import Contender, Round, precisions_to_measure, print_circumstances, print_rates, race
from benchmarks.photographs import photographs
from googlenet import GoogLeNet
from googlenet.evaluation.crops import distinct_views, scales_px
from googlenet.evaluation.predictor import Predictor, largest_batch
from googlenet.evaluation.views import cut_views
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


def _other_runtime(data: bytes, crop_px: int, runtime: str, path: Path) -> Round:
    torch.set_num_threads(1)
    network = other_runtimes.load(runtime, path)

    def one_image() -> float:
        image = ScaledImage.decode(data, scales_px(crop_px))
        distinct = distinct_views(image.width, image.height, crop_px, (VIEWS,))
        views = cut_views(image.scaled, distinct.boxes, crop_px)
        batches = [CAFFE_PREPROCESSING(batch).contiguous() for batch in views.split(largest_batch(crop_px))]
        logits = torch.cat([torch.from_numpy(network(batch.numpy())) for batch in batches])
        torch.from_numpy(distinct.weights) @ logits.double().softmax(dim=1)
        return VIEWS

    return one_image


def _matrix_product(flops_per_crop: int, dtype: torch.dtype) -> Round:
    torch.set_num_threads(1)
    matrix = torch.ones(MATRIX, MATRIX, dtype=dtype)

    def one_product() -> float:
        matrix @ matrix
        return 2 * MATRIX**3 / flops_per_crop

    return one_product


def _contenders(arguments: Arguments, onnx: Path) -> list[Contender]:
    data = photographs(arguments.photos, 1)[0]
    network, shared = _network(arguments.width), (data, arguments.crop_px, arguments.width)
    other_runtimes.write_onnx(network, arguments.crop_px, onnx)
    precisions = precisions_to_measure()
    ours = [Arithmetic(precision, compiled) for precision in precisions for compiled in (False, can_compile("cpu"))]
    limit = f"{precisions[-1]} matrix product"
    return [
        Contender("torchvision, eager fp32", _eager, (*shared, False)),
        Contender("the same, channels-last", _eager, (*shared, True)),
        *(
            Contender(name, _other_runtime, (data, arguments.crop_px, name, onnx), KEEP_FREED_MEMORY)
            for name in other_runtimes.installed()
        ),
        *(Contender(f"ours, {a}", _ours, (*shared, a), KEEP_FREED_MEMORY) for a in dict.fromkeys(ours)),
        Contender(limit, _matrix_product, (forward_flops(network, arguments.crop_px), ours[-1].dtype)),
    ]


def main(arguments: Arguments) -> None:
    """Print crops per second and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = _contenders(arguments, Path(folder) / "network.onnx")
        rates = race(contenders, arguments.rounds)
    print_rates(rates, "crops/s of a core", [contenders[0].name, contenders[1].name, contenders[-1].name])
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
