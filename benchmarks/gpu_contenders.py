"""Contenders of `benchmarks.gpu`: this project's steps and predictors, a plain loop, and torchvision's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import count, repeat
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu_pictures import MemoryRecords, decoded, pictures, samples_of
from benchmarks.gpu_turns import Contender, Size, Turn, Work, training_turn
from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage, scale_image
from googlenet.network.arithmetic import Arithmetic, Precision, can_compile, compile_network, profits_from
from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from googlenet.randomness import torch_generator
from googlenet.training.batches import SAMPLES, requests_of_epoch
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.graphs import CudaRecorder, StepGraph
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch, load_batches
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd

VIEWS = 144
AUX_LOSS_WEIGHT = 0.3
FASTER: tuple[Precision, ...] = ("tf32", "bf16")
PLAIN, TORCHVISION = "plain PyTorch", "torchvision's loop"


def fast_precisions(device: str) -> list[Precision]:
    """Return fp32, and those in which the device computes faster, the fastest last: what it emulates takes minutes."""
    return ["fp32", *(precision for precision in FASTER if profits_from(precision, device))]


def by_default(name: str, device: str) -> str:
    """Return a name with the precision of PyTorch's convolutions by default: TF32 where the device has it."""
    return f"{name}, {'TF32' if 'tf32' in fast_precisions(device) else 'fp32'}"


def training(size: Size, device: str) -> list[Contender]:
    """Return the contenders of training on a batch in memory."""
    on_gpu = device == "cuda"
    compiles = can_compile(device) and on_gpu
    ours = [Arithmetic(precision) for precision in fast_precisions(device)]
    fastest = ours[-1]
    contenders = [Contender(by_default(PLAIN, device), partial(_plain_training, size, device))]
    if find_spec("torchvision"):
        make = partial(_torchvision_training, size, device, loads=False)
        contenders.append(Contender(by_default(TORCHVISION, device), make))
    contenders += [Contender(f"step, {a}", partial(_step, size, device, a)) for a in ours]
    if on_gpu:
        make = partial(_step, size, device, fastest, graph=True)
        contenders.append(Contender(f"step, {fastest.precision}, CUDA graph", make))
    if compiles:
        fast = replace(fastest, compiled=True)
        contenders += [
            Contender(f"step, {fast}", partial(_step, size, device, fast)),
            Contender(f"step, {fast}, CUDA graph", partial(_step, size, device, fast, graph=True)),
        ]
    return contenders


def training_with_processes(size: Size, device: str) -> list[Contender]:
    """Return the contenders of training that start processes: with loading, and two replicas at once."""
    contenders = []
    if find_spec("torchvision"):
        make = partial(_torchvision_training, size, device, loads=True)
        contenders.append(Contender(f"{by_default(TORCHVISION, device)}, loading", make))
    fastest = Arithmetic(fast_precisions(device)[-1])
    arithmetics = [fastest]
    if can_compile(device) and device == "cuda":
        arithmetics.append(replace(fastest, compiled=True))
    contenders += [Contender(f"ours, {a}, loading", partial(_step, size, device, a, loads=True)) for a in arithmetics]
    make = partial(_two_replicas, size, device, fastest)
    return [*contenders, Contender(f"two replicas at once, {fastest.precision}", make)]


def predicting(size: Size, device: str) -> list[Contender]:
    """Return the contenders of prediction: the network alone, then from encoded images."""
    arithmetics = [Arithmetic(precision) for precision in fast_precisions(device)]
    if can_compile(device) and device == "cuda":
        arithmetics.append(replace(arithmetics[-1], compiled=True))
    contenders = [Contender(by_default(PLAIN, device), partial(_plain_prediction, size, device))]
    for arithmetic in arithmetics:
        contenders += [
            Contender(f"scaled image to answer, {arithmetic}", partial(_prediction, size, device, arithmetic, False)),
            Contender(f"JPEG to answer, {arithmetic}", partial(_prediction, size, device, arithmetic, True)),
        ]
    return contenders


def _network(size: Size, device: str, variant: Any) -> GoogLeNet:
    model = GoogLeNet(size.classes, variant, width=size.width)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    return model.to(device)


def _batch(size: Size, device: str) -> Batch:
    shape = size.batch_size, 3, size.crop_px, size.crop_px
    images = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return Batch.whole(images.to(device), torch.arange(size.batch_size, device=device) % size.classes)


def _step(size: Size, device: str, arithmetic: Arithmetic, *, graph: bool = False, loads: bool = False) -> Turn:
    """Steps of this project."""
    model = _network(size, device, "bn").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_sgd(model, momentum=0.9, weight_decay=2e-4, decay_biases=False)
    network = compile_network(model) if arithmetic.compiled else model
    state = TrainState(model, optimizer, PolyakAverage(model, 10_000), network_for=lambda _: network)
    if graph:
        state.graph = StepGraph(optimizer, size.batch_size, torch.device(device), CudaRecorder(), _refuse)
    settings = LoopSettings(
        LearningRate(0.001, "paper", 0, 1),
        10**9,
        SCRATCH_PREPROCESSING.on(torch.device(device)),
        0,
        precision=arithmetic.precision,
    )
    batches = _loaded(size, device) if loads else repeat(_batch(size, device))

    def take(batch: Batch) -> Callable[[], object]:
        with arithmetic.in_force(device):
            return train_step(state, batch, settings).result

    return training_turn(take, batches, size, loads=loads)


def _refuse(reason: str) -> None:
    raise RuntimeError(f"the capture failed: {reason}")


def _loaded(size: Size, device: str) -> Iterator[Batch]:
    """Return full batches without end, loaded by processes from JPEGs in memory."""
    samples = samples_of(MemoryRecords(pictures(size.pictures), size.classes), size.crop_px)
    requests = (
        request
        for epoch in count()
        for request in requests_of_epoch(EpochOrder(size.pictures, 0, epoch), size.batch_size, epoch)
        if request.num_images == size.batch_size
    )
    return load_batches({SAMPLES: samples}, requests, loader_processes=size.processes, pin_memory=device == "cuda")


def _plain_training(size: Size, device: str) -> Turn:
    """The network in a loop as tutorials write it: default layout, PyTorch's default precision, a batch in memory."""
    model = _network(size, device, "bn").train()
    generator = torch.Generator(device)

    def outputs_of(images: torch.Tensor) -> list[torch.Tensor]:
        return list(model(images, model.draw_masks(size.batch_size, generator)))

    return training_turn(_loop(model, outputs_of), _floats_without_end(size, device), size, loads=False)


def _torchvision_training(size: Size, device: str, *, loads: bool) -> Turn:
    """Torchvision's GoogLeNet in a loop like that of its reference scripts."""
    import torchvision

    model = torchvision.models.googlenet(num_classes=size.classes, aux_logits=True, init_weights=False)
    model.to(device).train()
    batches = _loaded_by_torchvision(size, device) if loads else _floats_without_end(size, device)
    return training_turn(_loop(model, lambda images: list(model(images))), batches, size, loads=loads)


def _loop(model: nn.Module, outputs_of: Callable[..., list[torch.Tensor]]) -> Callable[[Any], Callable[[], object]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)

    def take(batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], object]:
        images, labels = batch
        main, *auxiliary = (functional.cross_entropy(logits, labels) for logits in outputs_of(images))
        loss = main + AUX_LOSS_WEIGHT * sum(auxiliary)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item

    return take


def _floats_without_end(size: Size, device: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    batch = _batch(size, device)
    images = SCRATCH_PREPROCESSING(batch.images).contiguous()
    while True:
        yield images, batch.labels


def _loaded_by_torchvision(size: Size, device: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from benchmarks.gpu_torchvision import loader

    batches = loader(pictures(size.pictures), size.classes, size.crop_px, size.batch_size, size.processes)
    for images, labels in batches:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _two_replicas(size: Size, device: str, arithmetic: Arithmetic) -> Turn:
    """Two replicas that share the device, each in a process of its own."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    spawn = get_context("spawn")
    start = partial(ProcessPoolExecutor, 1, spawn, _become_replica, (size, device, arithmetic))
    both = [start() for _ in range(2)]

    def one_round() -> int:
        return sum(future.result() for future in [process.submit(_round_of_this_process) for process in both])

    return Turn(one_round, run_up=one_round)  # beside it, the loader processes of the contender before load ahead


_of_this_process: list[Work] = []


def _become_replica(size: Size, device: str, arithmetic: Arithmetic) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    _of_this_process[:] = [_step(size, device, arithmetic).work]


def _round_of_this_process() -> int:
    return _of_this_process[0]()


def _plain_prediction(size: Size, device: str) -> Turn:
    """The network on all views in one batch: default layout, PyTorch's default precision, views in memory."""
    model = _network(size, device, "paper").eval()
    views = torch.randn(VIEWS, 3, size.crop_px, size.crop_px, device=device)

    @torch.inference_mode()
    def one_round() -> int:
        for _ in range(size.predicted):
            model(views).logits.softmax(dim=1).mean(dim=0).cpu()
        return size.predicted * VIEWS

    return Turn(one_round)


def _prediction(size: Size, device: str, arithmetic: Arithmetic, decodes: bool) -> Turn:
    replica = Replica(_network(size, "cpu", "paper").eval(), SCRATCH_PREPROCESSING)
    predictor = Predictor([replica], size.crop_px, (VIEWS,), device, arithmetic)
    encoded = pictures(size.predicted)

    def scaled(data: bytes) -> ScaledImage:
        pixels = decoded(data)
        return ScaledImage(pixels.shape[1], pixels.shape[0], tuple(scale_image(pixels, scales_px(size.crop_px))))

    kept = [scaled(data) for data in encoded]

    def one_round() -> int:
        before = predictor.forward_passes
        for data, image in zip(encoded, kept, strict=True):
            predictor.predict(scaled(data) if decodes else image)
        return predictor.forward_passes - before

    return Turn(one_round)
