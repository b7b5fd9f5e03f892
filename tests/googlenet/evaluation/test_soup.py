"""Averages of networks: weights by hand, statistics against PyTorch, the greedy choice against one group at a time."""

import copy
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from googlenet import GoogLeNet
from googlenet.evaluation.soup import Members, SoupError, average_of, estimate_statistics, greedy_soups
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING
from googlenet.network.weights import StoredNetwork
from googlenet.randomness import torch_generator


def network(seed: int, variant: Variant = "bn", classes: int = 3, width: float = 0.03) -> StoredNetwork:
    model = GoogLeNet(classes, variant, False, width)
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return StoredNetwork(model.state_dict(), variant, width, model.lrn_name, SCRATCH_PREPROCESSING)


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_every_weight_of_a_soup_is_the_mean_of_its_members(variant: Variant) -> None:
    members = [network(seed, variant) for seed in range(3)]
    members[0].tensors["aux.4a.classifier.bias"] = torch.ones(3)  # the others have no auxiliary heads
    soup = average_of(members).model.state_dict()
    for name, value in soup.items():
        if value.is_floating_point():
            expected = np.mean([member.tensors[name].double().numpy() for member in members], axis=0)
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_a_soup_of_equal_networks_is_the_network() -> None:
    one = network(0)
    for name, value in average_of([one] * 3).model.state_dict().items():
        assert torch.equal(value, one.tensors[name])


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (network(0, width=0.06), "width"),
        (network(0, "paper"), "variant"),
        (network(0, classes=4), "num_classes"),
        (StoredNetwork(network(0).tensors, "bn", 0.03, network(0).lrn, CAFFE_PREPROCESSING), "preprocessing"),
    ],
)
def test_networks_of_two_kinds_have_no_average(other: StoredNetwork, difference: str) -> None:
    with pytest.raises(SoupError, match=f"differ in {difference} have no average"):
        average_of([network(0), other])


def batches() -> list[Tensor]:
    return list(torch.randn(3, 4, 3, 35, 35, generator=torch.Generator().manual_seed(0)))


def test_statistics_are_those_of_pytorchs_own_estimate() -> None:
    model = average_of([network(0), network(1)]).model
    reference = copy.deepcopy(model)
    reference.dropout.p = 0.0
    torch.optim.swa_utils.update_bn([[batch] for batch in batches()], reference)
    before = copy.deepcopy(model.state_dict())
    estimate_statistics(model, batches())
    changed, expected = set(), reference.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
        if not torch.equal(value, before[name]):
            changed.add(name.rpartition(".")[2])
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(layer.training for layer in model.modules())
    assert {layer.momentum for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.1}


def test_without_batch_normalisation_no_image_is_read() -> None:
    def unread() -> Sequence[Tensor]:
        raise AssertionError

    model = average_of([network(0, "paper"), network(1, "paper")]).model
    estimate_statistics(model, (batch for batch in iter(unread, None)))


def errors_of_subsets(replicas: int, images: int, seed: int) -> dict[Members, np.ndarray]:
    generator = np.random.default_rng(seed)
    subsets = [members for size in range(1, replicas + 1) for members in combinations(range(replicas), size)]
    return {members: generator.random(images) < generator.uniform(0.1, 0.5) for members in subsets}


def greedy_on(wrong: Mapping[Members, np.ndarray], replicas: int, group: np.ndarray) -> Members:
    """The recipe of the paper, for one group."""
    order = sorted(range(replicas), key=lambda replica: (wrong[replica,][group].mean(), replica))
    kept = [order[0]]
    for replica in order[1:]:
        if wrong[tuple(sorted([*kept, replica]))][group].mean() < wrong[tuple(sorted(kept))][group].mean():
            kept.append(replica)
    return tuple(sorted(kept))


@pytest.mark.parametrize("seed", range(8))
def test_groups_that_choose_together_choose_what_each_would_alone(seed: int) -> None:
    replicas, images = 5, 40
    wrong, asked = errors_of_subsets(replicas, images, seed), list[Members]()
    folds = np.arange(images) % 4

    def wrong_of(soups: Sequence[Members]) -> dict[Members, np.ndarray]:
        asked.extend(soups)
        return {members: wrong[members] for members in soups}

    groups = [*(folds != fold for fold in range(4)), np.ones(images, bool)]
    assert greedy_soups(wrong_of, replicas, groups) == [greedy_on(wrong, replicas, group) for group in groups]
    assert len(asked) == len(set(asked)), "no candidate is evaluated twice"


def test_an_image_never_has_a_say_in_the_soup_that_judges_it() -> None:
    """Whatever happens on a fold's images, the choice of the other folds stays."""
    replicas, images = 4, 40
    wrong, folds = errors_of_subsets(replicas, images, 0), np.arange(images) % 4
    group = folds != 2
    changed = {members: np.where(group, errors, ~errors) for members, errors in wrong.items()}
    first = greedy_soups(lambda soups: {m: wrong[m] for m in soups}, replicas, [group])
    assert greedy_soups(lambda soups: {m: changed[m] for m in soups}, replicas, [group]) == first
