"""Averages over the views of an image, computed where its probabilities are, then copied to this machine's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from googlenet.evaluation.crops import DistinctViews
from googlenet.shapes import Float16, Float32, Float64, Int32


@dataclass(frozen=True)
class Prediction:
    """Prediction of one image by K replicas with P crop policies, for C classes; V views in G groups of views.

    Attributes:
        probabilities: (K, P, C) float32, averaged over the views of each policy.
        max_pooled: (K, C) float32, the maximum over the views of the policy with most views.
        num_views: (K, P) number of views with finite outputs in each average, counting duplicates.
        view_top1: (K + 1, V) the most likely class of each view alone, by each replica and by their average.
        group_top1: (K + 1, G) the same for the average over each group of views.
        by_view: (K, 144, C) float16 of each view alone, if it was asked for.
    """

    probabilities: Float32[np.ndarray, "k p c"]
    max_pooled: Float32[np.ndarray, "k c"]
    num_views: Int32[np.ndarray, "k p"]
    view_top1: Int32[np.ndarray, "k+1 v"]
    group_top1: Int32[np.ndarray, "k+1 g"]
    by_view: Float16[np.ndarray, "k 144 c"] | None = None


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of an image's D distinct windows in its averages, on the device that computes them.

    Attributes:
        policies: (P, D) share of each window in a crop policy.
        groups: (G, D) share of each window in a group of views.
        largest: (M,) the windows of the policy with most views.
        counts: (P,) number of views of each policy.
        positions: (V,) each view's window.
    """

    policies: Tensor
    groups: Tensor
    largest: Tensor
    counts: Tensor
    positions: Tensor

    @classmethod
    def of(cls, distinct: DistinctViews, groups: Float64[np.ndarray, "g v"], device: str) -> "Shares":
        """Return the shares of an image's windows; ``groups`` has the share of each view in each group of views."""
        of_window = np.zeros((len(groups), len(distinct.boxes)))
        np.add.at(of_window.T, distinct.positions, groups.T)
        last = len(distinct.counts) - 1 - int(np.argmax(distinct.counts[::-1]))  # of equally many views
        members = distinct.weights[last].nonzero()[0]
        counts = np.array(distinct.counts, dtype=np.float64)
        arrays = distinct.weights, of_window, members, counts, distinct.positions
        return cls(*(_copied_to(device, torch.from_numpy(array)) for array in arrays))


def _copied_to(device: str, tensor: Tensor) -> Tensor:
    # From other than pinned memory, a copy would wait for all that the GPU still has to do.
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def averaged(probabilities: Float64[Tensor, "k d c"], shares: Shares) -> dict[str, Tensor]:
    """Return the fields of a :class:`Prediction` as tensors on the device of ``probabilities``."""
    of_groups = shares.groups @ probabilities
    seen = probabilities.isfinite().all(dim=2).double() @ shares.policies.T
    return {
        "probabilities": (shares.policies @ probabilities).float(),
        "max_pooled": probabilities[:, shares.largest].amax(dim=1).float(),
        "num_views": (seen * shares.counts).round().int(),
        "view_top1": _first_answers(probabilities)[:, shares.positions],
        "group_top1": _first_answers(of_groups),
    }


def _first_answers(probabilities: Float64[Tensor, "k n c"]) -> Int32[Tensor, "k+1 n"]:
    """Return the most likely classes by each replica and by their average."""
    average = probabilities.mean(dim=0, keepdim=True)
    return torch.cat([probabilities.argmax(dim=2), average.argmax(dim=2)]).int()


class PendingPredictions:
    """Predictions that are computed on a device and copied to this machine's memory."""

    def __init__(self, of_images: Sequence[Mapping[str, Tensor]]) -> None:
        self._fields = [{name: _copied_home(tensor) for name, tensor in fields.items()} for fields in of_images]
        gpu = next((tensor.device for fields in of_images for tensor in fields.values() if tensor.is_cuda), None)
        self._arrived = torch.cuda.Event() if gpu else None  # type: ignore[no-untyped-call]
        if self._arrived:
            # The copies wait on their own GPU, which need not be the current one.
            self._arrived.record(torch.cuda.current_stream(gpu))

    def wait(self) -> list[Prediction]:
        """Wait for the predictions, and return them."""
        if self._arrived:
            self._arrived.synchronize()
        return [Prediction(**{name: tensor.numpy() for name, tensor in fields.items()}) for fields in self._fields]


def _copied_home(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.cpu()
    # Only to pinned memory does a GPU copy while this thread goes on.
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
