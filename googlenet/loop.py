"""The training loop of one replica over any iterable of batches: state in, state out, nothing global."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from googlenet.model import GoogLeNet, Outputs
from googlenet.optim import LearningRate, PolyakAverage, set_learning_rate
from googlenet.preprocessing import Preprocessing
from googlenet.randomness import torch_generator
from googlenet.records import Batch

AUX_LOSS_WEIGHT = 0.3  # section 5


@dataclass(frozen=True)
class LoopSettings:
    """What a training step needs to know besides the state and the batch.

    Attributes:
        learning_rate: rate by epoch.
        steps_per_epoch: batches of an epoch, its last and smaller one included.
        preprocessing: pixels to network input.
        seed: of the dropout masks (the replica's sampling seed).
        label_smoothing: share of the target spread over all classes; 0 in the paper.
        max_gradient_norm: gradients are scaled down to this norm; None leaves them alone, as the paper does.
    """

    learning_rate: LearningRate
    steps_per_epoch: int
    preprocessing: Preprocessing
    seed: int
    label_smoothing: float = 0.0
    max_gradient_norm: float | None = None


@dataclass
class TrainState:
    """Everything that changes during training. ``step`` counts finished steps since the beginning."""

    model: GoogLeNet
    optimizer: torch.optim.Optimizer
    average: PolyakAverage
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors; with ``step`` it is all that an exact continuation needs."""
        weights = {f"weights/{name}": value for name, value in self.model.state_dict().items()}
        average = {f"average/{name}": value for name, value in self.average.weights.items()}
        momentum = {
            f"momentum/{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if self.optimizer.state[parameter].get("momentum_buffer") is not None
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
    """What happened in a step: mean losses of the batch by classifier, and the sizes that tell how it goes."""

    step: int
    num_images: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float


def head_losses(outputs: Outputs, labels: Tensor, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """Mean cross-entropy of each classifier that gave an output, keyed by its name in :class:`Outputs`."""
    return {
        name: functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        for name, logits in outputs._asdict().items()
        if logits is not None
    }


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The main loss plus 0.3 times each auxiliary one (section 5)."""
    return torch.stack([loss * (1.0 if name == "logits" else AUX_LOSS_WEIGHT) for name, loss in losses.items()]).sum()


def train_step(state: TrainState, batch: Batch, settings: LoopSettings) -> StepResult:
    """One step of SGD; updates ``state`` in place."""
    rate = settings.learning_rate.at(state.step / settings.steps_per_epoch)
    set_learning_rate(state.optimizer, rate)
    state.model.train()
    device = next(state.model.parameters()).device
    # Masks are keyed by the step: a resumed step draws what the lost one drew.
    dropout = torch_generator(settings.seed, "dropout", state.step, device=device.type)
    images, labels = batch.images.to(device), batch.labels.to(device)
    outputs = state.model(settings.preprocessing(images), generator=dropout)
    losses = head_losses(outputs, labels, settings.label_smoothing)
    state.optimizer.zero_grad()
    total_loss(losses).backward()  # type: ignore[no-untyped-call]
    limit = settings.max_gradient_norm or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    state.optimizer.step()
    state.step += 1
    state.average.update(state.model, state.step)
    return StepResult(state.step, len(labels), {k: v.item() for k, v in losses.items()}, rate, norm.item())


def train_epoch(
    state: TrainState, batches: Iterable[Batch], settings: LoopSettings, on_step: Callable[[StepResult], None]
) -> None:
    """Take a step for every batch, telling ``on_step`` about each."""
    for batch in batches:
        on_step(train_step(state, batch, settings))


@torch.inference_mode()
def count_errors(
    model: GoogLeNet, weights: dict[str, Tensor], batches: Iterable[Batch], preprocessing: Preprocessing
) -> tuple[int, int]:
    """Wrong top-1 answers of ``model`` with ``weights`` in place of its own, and images seen."""
    model.eval()
    device = next(model.parameters()).device
    wrong = seen = 0
    for batch in batches:
        outputs = torch.func.functional_call(model, weights, (preprocessing(batch.images.to(device)),))
        wrong += int((outputs.logits.argmax(dim=1).cpu() != batch.labels).sum())
        seen += len(batch.labels)
    return wrong, seen


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
