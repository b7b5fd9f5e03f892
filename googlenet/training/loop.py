"""Training steps of one replica on batches from any source: state in, state out, no global state."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from googlenet.network.arithmetic import Arithmetic, Precision
from googlenet.network.model import GoogLeNet, Outputs
from googlenet.network.own_operations import own_operations
from googlenet.randomness import torch_generator
from googlenet.shapes import Float, Float32, Int64, UInt8
from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.distillation import Distillation
from googlenet.training.graphs import StepFigures, StepGraph, StepInputs
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.micro_batch import parts_of
from googlenet.training.optim import MomentumSGD, PolyakAverage, set_learning_rate

AUX_LOSS_WEIGHT = 0.3  # section 5


@dataclass(frozen=True)
class LoopSettings:
    """Settings of a training step, besides the state and the batch.

    Attributes:
        learning_rate: rate by epoch.
        steps_per_epoch: batches of an epoch, including the smaller last one.
        preprocessing: pixels to network input; a ``Preprocessing``, best with its constants on the model's device.
        seed: seed of the dropout masks (the replica's sampling seed).
        label_smoothing: share of the target spread over all classes; 0 in the paper.
        max_gradient_norm: gradients are scaled down to this norm; None leaves them unchanged, as in the paper.
        precision: of the network's arithmetic; weights, gradients, losses and updates are always fp32.
        share: this worker's part of every batch.
        distillation: how the batches' targets enter the loss; None for labels alone.
        micro_batch: images whose gradients are computed together; None for all of the batch, as batch normalisation
            needs it.
    """

    learning_rate: LearningRate
    steps_per_epoch: int
    preprocessing: Callable[[UInt8[Tensor, "n 3 h w"]], Float32[Tensor, "n 3 h w"]]
    seed: int
    label_smoothing: float = 0.0
    max_gradient_norm: float | None = None
    precision: Precision = "fp32"
    share: Share = ALONE
    distillation: Distillation | None = None
    micro_batch: int | None = None


@dataclass
class TrainState:
    """Everything that changes during training.

    Attributes:
        model: the network.
        optimizer: optimiser of the network's parameters.
        average: average of its weights.
        step: finished steps since the beginning.
        network_for: returns, for a number of images in the batch, a callable that computes like ``model``, faster or
            together with other workers; None uses ``model`` itself.
        graph: takes steps as a CUDA graph; None takes them one kernel at a time.
    """

    model: GoogLeNet
    optimizer: MomentumSGD
    average: PolyakAverage
    step: int = 0
    network_for: Callable[[int], Callable[..., Outputs]] | None = None
    graph: StepGraph | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors; together with ``step`` it suffices for an exact resume."""
        weights = {f"weights/{name}": value for name, value in self.model.state_dict().items()}
        average = {f"average/{name}": value for name, value in self.average.weights.items()}
        momentum = {
            f"momentum/{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if "momentum_buffer" in self.optimizer.state[parameter]
        }
        return {**weights, **average, **momentum}

    def load_tensors(self, tensors: dict[str, Tensor], step: int) -> None:
        """Inverse of :meth:`tensors`."""
        self.model.load_state_dict(_below("weights", tensors))
        self.average.load(_below("average", tensors))
        momentum = _below("momentum", tensors)
        for name, parameter in self.model.named_parameters():
            if name in momentum:
                buffer = torch.empty_like(parameter).copy_(momentum[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.step = step


@dataclass(frozen=True)
class StepResult:
    """Result of a step: mean losses of the batch by classifier, the learning rate and the gradient norm.

    In a distillation, ``losses`` has each classifier's loss on the labels and its divergence from the teacher.
    """

    step: int
    num_images: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class TakenStep:
    """A step whose figures are still on the device: reading them waits until the device has computed them.

    Attributes:
        step: finished steps, including this one.
        num_images: images in the batch.
        heads: names of the losses.
        learning_rate: rate of the step.
        figures: mean of each loss, then the gradient norm.
    """

    step: int
    num_images: int
    heads: tuple[str, ...]
    learning_rate: float
    figures: Float[Tensor, " figures"]

    def result(self) -> StepResult:
        """Return the result, waiting for it."""
        return results_of([self])[0]


def results_of(steps: Sequence[TakenStep]) -> list[StepResult]:
    """Return the results of ``steps``, read from the device at once."""
    if not steps:
        return []
    rows: list[list[float]] = torch.stack([step.figures for step in steps]).tolist()
    return [
        StepResult(step.step, step.num_images, dict(zip(step.heads, losses, strict=True)), step.learning_rate, norm)
        for step, (*losses, norm) in zip(steps, rows, strict=True)
    ]


def head_losses(
    outputs: Outputs, labels: Int64[Tensor, " n"], label_smoothing: float = 0.0, num_images: int | None = None
) -> dict[str, Float[Tensor, ""]]:
    """Return the cross-entropy of each classifier that has an output, keyed by its name in :class:`Outputs`.

    It is summed over ``labels`` and divided by ``num_images``, the batch size; by default the mean over ``labels``.
    """
    divisor = len(labels) if num_images is None else num_images
    return {
        name: functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)
        / divisor
        for name, logits in outputs._asdict().items()
        if logits is not None
    }


def total_loss(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Return the main loss plus 0.3 times each auxiliary one (section 5)."""
    return torch.stack([loss * (1.0 if name == "logits" else AUX_LOSS_WEIGHT) for name, loss in losses.items()]).sum()


def train_step(state: TrainState, batch: Batch, settings: LoopSettings) -> TakenStep:
    """Take one step of SGD on this worker's share of a batch; updates ``state`` in place.

    On a GPU the step may still be running when this returns, so that the next one can be prepared.
    """
    rate = settings.learning_rate.at(state.step / settings.steps_per_epoch)
    set_learning_rate(state.optimizer, rate)
    state.model.train()
    inputs = _inputs(state, batch, settings)

    def compute(inputs: StepInputs) -> StepFigures:
        return _computed(state, inputs, batch.num_images, settings)

    heads, losses, norm = compute(inputs) if state.graph is None else state.graph(inputs, compute)
    state.step += 1
    state.average.update(state.step)
    summed = settings.share.all_reduce_sum(losses)
    return TakenStep(state.step, batch.num_images, heads, rate, torch.cat([summed, norm[None]]))


def _inputs(state: TrainState, batch: Batch, settings: LoopSettings) -> StepInputs:
    """Return this worker's share of a batch and of its masks, on the model's device."""
    device = next(state.model.parameters()).device
    # Masks are keyed by the step, so a repeated step draws the same ones; they are drawn for the whole batch.
    dropout = torch_generator(settings.seed, "dropout", state.step, device=str(device))
    masks = settings.share.of_masks(state.model.draw_masks(batch.num_images, dropout))
    images, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.images, batch.labels))
    targets = None if batch.targets is None else batch.targets.to(device, non_blocking=True)
    return StepInputs(images, labels, masks, targets)


def _computed(state: TrainState, inputs: StepInputs, num_images: int, settings: LoopSettings) -> StepFigures:
    """Update the weights on ``inputs``; return this worker's summands of the losses, and the gradient's norm.

    A CUDA graph repeats these operations: what differs between steps is in ``inputs`` and in the optimiser's rate.
    """
    state.optimizer.zero_grad()
    parts = [_backward(state, part, num_images, settings) for part in parts_of(inputs, settings.micro_batch)]
    norm = torch.nn.utils.get_total_norm([p.grad for p in state.model.parameters() if p.grad is not None])
    if settings.max_gradient_norm:
        torch.nn.utils.clip_grads_with_norm_(state.model.parameters(), settings.max_gradient_norm, norm)
    state.optimizer.step()
    losses = torch.stack([torch.stack(list(losses.values())) for losses in parts])
    return StepFigures(tuple(parts[0]), losses.sum(dim=0), norm)


def _backward(state: TrainState, inputs: StepInputs, num_images: int, settings: LoopSettings) -> dict[str, Tensor]:
    """Add the gradients of ``inputs`` to those that are there; return their summands of the losses."""
    losses = _losses(state, inputs, num_images, settings)
    # The workers' gradients are averaged, but their shares of the loss have to be added.
    mixed = settings.distillation.mixed(losses) if settings.distillation else losses
    (settings.share.workers * total_loss(mixed)).backward()  # type: ignore[no-untyped-call]
    return {name: loss.detach() for name, loss in losses.items()}


def _losses(state: TrainState, inputs: StepInputs, num_images: int, settings: LoopSettings) -> dict[str, Tensor]:
    """Return this worker's summands of the batch's mean losses."""
    images = settings.preprocessing(inputs.images)
    network = state.model if state.network_for is None else state.network_for(num_images)
    # With autocast on, a worker without images would send statistics of the wrong dtype to the others.
    precision: Precision = settings.precision if num_images >= settings.share.workers else "fp32"
    with _operations(images.device, precision):
        outputs = network(images, inputs.masks)
    losses = head_losses(outputs, inputs.labels, settings.label_smoothing, num_images)
    if not settings.distillation:
        return losses
    if inputs.targets is None:
        raise ValueError("a distillation needs batches with targets")
    return losses | settings.distillation.divergences(outputs, inputs.targets, num_images)


# Not in inference mode: a loader may read ahead in here, and what it reads is trained on.
@torch.no_grad()
def count_errors(
    model: GoogLeNet, candidates: Sequence[dict[str, Tensor]], batches: Iterable[Batch], settings: LoopSettings
) -> Int64[Tensor, " {len(candidates)+1}"]:
    """Count wrong top-1 answers of ``model`` with each candidate's weights in place of its own, and the images seen.

    The counts, in this order, are on the model's device: the next batch does not wait for them.
    """
    model.eval()
    device = next(model.parameters()).device
    counts = torch.zeros(len(candidates) + 1, dtype=torch.int64, device=device)
    for batch in batches:
        images = settings.preprocessing(batch.images.to(device, non_blocking=True))
        labels = batch.labels.to(device, non_blocking=True)
        for number, weights in enumerate(candidates):
            with _operations(device, settings.precision):
                outputs = torch.func.functional_call(model, weights, (images,))
            counts[number] += (outputs.logits.argmax(dim=1) != labels).sum()
        counts[-1] += len(labels)
    return counts


def class_probabilities(
    model: GoogLeNet, weights: dict[str, Tensor], batch: Batch, settings: LoopSettings
) -> Float32[Tensor, "n classes"]:
    """Return the probabilities that ``model`` answers for a batch with ``weights`` in place of its own."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad(), _operations(device, settings.precision):
        outputs = torch.func.functional_call(model, weights, (settings.preprocessing(batch.images.to(device)),))
    probabilities: Tensor = outputs.logits.float().softmax(dim=1)
    return probabilities


@contextmanager
def _operations(device: torch.device, precision: Precision) -> Iterator[None]:
    """Let networks use this project's own operations during the block, in this precision."""
    with own_operations(), torch.autocast(device.type, Arithmetic(precision).dtype, enabled=precision == "bf16"):
        yield


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
