"""Soups: networks that started from the same weights, averaged into one (Wortsman et al. 2022, "Model soups").

Fine-tuned networks often stay so close together that the average of their weights is a network as good as they are, or
better. Networks trained from scratch usually do not, even from the same initial weights: their average guesses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from googlenet.network.model import GoogLeNet
from googlenet.network.weights import Replica, StoredNetwork, without_aux_heads
from googlenet.shapes import Bool, Float32

# Places of the networks that are averaged, in ascending order.
Members = tuple[int, ...]


class SoupError(ValueError):
    """The networks have no average: they are not of one kind."""


def average_of(networks: Sequence[StoredNetwork]) -> Replica:
    """Return the network whose weights are the mean of those of ``networks``, without auxiliary heads.

    Statistics of batch normalisation are averaged too, which is wrong for them: see :func:`estimate_statistics`.

    Raises:
        SoupError: they differ in variant, width, classes or preprocessing.
    """
    first = networks[0]
    for name in ("variant", "width", "lrn", "num_classes", "preprocessing"):
        if len(kinds := {getattr(network, name) for network in networks}) > 1:
            raise SoupError(f"networks that differ in {name} have no average: {', '.join(sorted(map(str, kinds)))}")
    tensors = {
        name: _mean([network.tensors[name] for network in networks]) for name in without_aux_heads(first.tensors)
    }
    return replace(first, tensors=tensors).build()


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():  # counters of batch normalisation
        return tensors[0].clone()
    return torch.stack(list(tensors)).double().mean(dim=0).to(tensors[0].dtype)


@torch.no_grad()
def estimate_statistics(model: GoogLeNet, batches: Iterable[Float32[Tensor, "n 3 h w"]]) -> None:
    """Replace the statistics of batch normalisation by those of ``batches``, inputs of the network, of equal size.

    The mean over the batches of their means and variances, as ``torch.optim.swa_utils.update_bn`` has it. A network
    without batch normalisation stays as it is, and no batch is used. Dropout stays off.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a mean, in which every batch counts the same
        layer.train()
    for batch in batches:
        model(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def greedy_soups(
    wrong_of: Callable[[Sequence[Members]], Mapping[Members, Bool[np.ndarray, " n"]]],
    replicas: int,
    chosen_on: Sequence[Bool[np.ndarray, " n"]],
) -> list[Members]:
    """Return a greedy soup for each group of images.

    The replicas are added in order of their own error on the group, the best first, and each is kept if the error of
    the soup falls by it. Groups take their steps together, so that the same candidates are asked for once.

    Args:
        wrong_of: which of N images each of some soups answers wrongly.
        replicas: number of replicas.
        chosen_on: for each group, which of the N images are in it.
    """
    known: dict[Members, Bool[np.ndarray, " n"]] = {}

    def ask(soups: Iterable[Members]) -> None:
        if new := sorted({soup for soup in soups if soup not in known}):
            known.update(wrong_of(new))

    ask((replica,) for replica in range(replicas))
    orders = [sorted(range(replicas), key=lambda replica: int(known[replica,][group].sum())) for group in chosen_on]
    soups: list[Members] = [(order[0],) for order in orders]
    for place in range(1, replicas):
        candidates = [tuple(sorted((*soup, order[place]))) for soup, order in zip(soups, orders, strict=True)]
        ask(candidates)
        for number, (candidate, group) in enumerate(zip(candidates, chosen_on, strict=True)):
            if known[candidate][group].sum() < known[soups[number]][group].sum():
                soups[number] = candidate
    return soups
