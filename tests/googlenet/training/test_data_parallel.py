"""Equality of several workers with one: gradients, losses and updates, for any size of the last batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.data_parallel import Share, parallel_network, synchronised_model
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch, forkserver
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd
from tests.gpu.together import exit_codes

pytestmark = pytest.mark.timeout(200)
BATCH_SIZES = (8, 5, 1)  # full, uneven shares, fewer images than workers


def train(share: Share) -> dict[str, torch.Tensor]:
    """Return gradients and losses of each step, and the final averaged weights."""
    torch.set_num_threads(1)
    model = GoogLeNet(4, "paper", width=0.125)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    network = parallel_network(model, share)
    state = TrainState(model, optimizer, PolyakAverage(model, 5), network_for=lambda _: network)
    settings = LoopSettings(
        LearningRate(0.01, "paper", 0, 3), 4, SCRATCH_PREPROCESSING, 0, 0.1, max_gradient_norm=5.0, share=share
    )
    generator, found = torch.Generator().manual_seed(1), {}
    for number, size in enumerate(BATCH_SIZES):
        images = torch.randint(0, 256, (size, 3, 64, 64), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 4, (size,), generator=generator)
        result = train_step(state, Batch(share.of(images), share.of(labels), size), settings).result()
        found[f"losses/{number}"] = torch.tensor([*result.losses.values(), result.gradient_norm])
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            found[f"gradient/{number}/{name}"] = parameter.grad.clone()
    return {**found, **{f"average/{name}": value for name, value in state.average.weights.items()}}


def work(rank: int, workers: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    share = Share(rank, workers)
    assert share.any_has(rank == 1)
    assert not share.any_has(False)
    torch.save(train(share), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.processes
@pytest.mark.parametrize("workers", [3])  # two: tests/gpu/test_training_on_devices.py
def test_several_workers_take_the_steps_of_one(workers: int, tmp_path: Path) -> None:
    server = forkserver()
    processes = [server.Process(target=work, args=(rank, workers, str(tmp_path))) for rank in range(workers)]
    assert exit_codes(processes, 180) == [0] * workers
    alone = train(Share())
    for rank in range(workers):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5, msg=name)


def test_batch_normalisation_over_several_workers_is_refused_on_a_cpu() -> None:
    model = GoogLeNet(4, "bn", width=0.125)
    assert synchronised_model(model, Share()) is model
    with pytest.raises(ValueError, match="GPUs"):
        synchronised_model(model, Share(0, 2))


@given(st.integers(0, 100), st.integers(1, 12))
def test_the_shares_of_a_batch_are_the_batch(images: int, workers: int) -> None:
    shares = [Share(rank, workers).of(list(range(images))) for rank in range(workers)]
    assert sorted(index for share in shares for index in share) == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
