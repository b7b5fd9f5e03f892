"""Data parallelism: several workers take a step together, each with its share of the batch.

What a step computes does not depend on their number, rounding apart: the batch, its samples, its dropout masks and the
mean over it are those of one worker, whatever remains at the end of an epoch, even fewer images than workers.
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
    """What worker ``rank`` of ``workers`` takes of a batch: every ``workers``-th image, beginning with its own number.

    Attributes:
        rank: from 0.
        workers: data-parallel workers of the replica.
    """

    rank: int = 0
    workers: int = 1

    def of(self, items: Items) -> Items:
        """This worker's part of ``items``, in order."""
        return items if self.workers == 1 else items[self.rank :: self.workers]

    def of_masks(self, masks: DropoutMasks) -> DropoutMasks:
        """This worker's part of the masks of a whole batch."""
        return DropoutMasks(*(None if mask is None else self.of(mask) for mask in masks))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over the workers, on each of them."""
        if self.workers > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def broadcast(self, value: int) -> int:
        """The first worker's ``value``, on all of them."""
        if self.workers == 1:
            return value
        decision = torch.tensor(value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(decision, src=0)
        return int(decision)


ALONE = Share()


def parallel_network(model: GoogLeNet, share: Share) -> nn.Module:
    """``model`` such that gradients are averaged over the workers of the process group when they are computed."""
    if share.workers == 1:
        return model
    device = next(model.parameters()).device
    # Statistics of batch normalisation are over the whole batch already (synchronised_model), none need be sent.
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def synchronised_model(model: GoogLeNet, share: Share) -> GoogLeNet:
    """``model`` whose batch normalisation, where it has any, takes its statistics over the batches of all workers.

    Raises:
        ValueError: that is so on a CPU, where PyTorch has no such layer.
    """
    if share.workers == 1 or model.variant != "bn":
        return model
    if next(model.parameters()).device.type != "cuda":
        raise ValueError("batch normalisation over several workers needs GPUs: train the variant 'bn' with one worker")
    synchronised: GoogLeNet = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synchronised
