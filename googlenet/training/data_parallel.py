"""Data parallelism: several workers take a step together, each with its share of the batch.

Apart from rounding, a step does not depend on their number: the batch, its samples, its dropout masks and the mean over
it are those of one worker, also for the remainder of an epoch, even with fewer images than workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from googlenet.network.layers import DropoutMasks
from googlenet.network.model import GoogLeNet

Items = TypeVar("Items", Tensor, Sequence[int], list[int], range)


@dataclass(frozen=True)
class Share:
    """Part of a batch for worker ``rank`` of ``workers``: every ``workers``-th image, starting with image ``rank``.

    Attributes:
        rank: number of the worker, from 0.
        workers: number of data-parallel workers of the replica.
    """

    rank: int = 0
    workers: int = 1

    def of(self, items: Items) -> Items:
        """Return this worker's part of ``items``, in order."""
        return items if self.workers == 1 else items[self.rank :: self.workers]

    def of_masks(self, masks: DropoutMasks) -> DropoutMasks:
        """Return this worker's part of the masks of a whole batch."""
        return DropoutMasks(*(None if mask is None else self.of(mask) for mask in masks))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over the workers, on each of them."""
        if self.workers > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any_has(self, value: bool) -> bool:
        """Return whether ``value`` is true on any of the workers."""
        if self.workers == 1:
            return value
        return bool(self.all_reduce_sum(torch.tensor(int(value), device=_exchange_device())))

    def broadcast(self, value: int) -> int:
        """Return the first worker's ``value``, on all of them."""
        if self.workers == 1:
            return value
        decision = torch.tensor(value, device=_exchange_device())
        dist.broadcast(decision, src=0)
        return int(decision)


def _exchange_device() -> str:
    """Return the device of tensors that workers exchange."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


ALONE = Share()


def parallel_network(model: GoogLeNet, share: Share) -> nn.Module:
    """Wrap ``model`` so that gradients are averaged over the workers of the process group as they are computed."""
    if share.workers == 1:
        return model
    device = next(model.parameters()).device
    # Batch normalisation already uses statistics of the whole batch (synchronised_model): no buffers need to be sent.
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def synchronised_model(model: GoogLeNet, share: Share) -> GoogLeNet:
    """Make batch normalisation in ``model``, if any, take its statistics over the shares of all workers.

    Raises:
        ValueError: several workers need that on a CPU, where PyTorch has no such layer.
    """
    if share.workers == 1 or model.variant != "bn":
        return model
    if next(model.parameters()).device.type != "cuda":
        raise ValueError("batch normalisation over several workers needs GPUs: train the variant 'bn' with one worker")
    synchronised: GoogLeNet = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synchronised
