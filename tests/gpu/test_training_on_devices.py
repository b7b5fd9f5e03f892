"""Training on each device against a CPU: steps, samples, replicas that share a device, data-parallel workers."""

import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn import functional

from googlenet.images.decoding import decode_rgb
from googlenet.network.choices import Variant
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Draw, Sampling, draw, draw_sample
from googlenet.training.augment_tensors import EncodedBatch, header_for_device, render
from googlenet.training.data_parallel import ALONE, Share, parallel_network, synchronised_model
from googlenet.training.loader import forkserver
from tests.gpu.small_training import assert_close, in_double, state_on, train
from tests.gpu.together import exit_codes
from tests.picture_files import encode, photograph

SIZES = (8, 8, 5)


@cache
def trained_on_cpu(variant: Variant) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The state after the steps, and their losses, to compare with."""
    state = state_on("cpu", variant)
    losses = train(state, "cpu", SIZES)
    return state.tensors(), losses


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_steps_are_those_of_a_cpu(variant: Variant, device: str) -> None:
    found, (expected, expected_losses) = state_on(device, variant), trained_on_cpu(variant)
    losses = train(found, device, SIZES)
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    assert_close(found.tensors(), expected, 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_network_need_not_be_on_the_current_gpu() -> None:
    used, state = torch.cuda.memory_reserved(0), state_on("cuda:1", "paper")
    state.model.dropout.p = 0.4
    assert train(state, "cuda:1", SIZES[:1])[0] > 0
    assert torch.cuda.memory_reserved(0) == used


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_losses_in_single_precision_are_those_of_a_cpu(variant: Variant, device: str) -> None:
    losses = train(state_on(device, variant, dtype=torch.float32), device, SIZES)
    assert losses == pytest.approx(trained_on_cpu(variant)[1], rel=1e-2)


def test_samples_made_on_a_device_look_like_those_made_by_opencv(device: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = image.repeat(16, axis=0).repeat(16, axis=1)
    sampling = Sampling(interpolations=("bilinear",), area=(0.3, 1.0))
    draws = [draw(192, 144, sampling, numpy_generator(0, "sampling", 0, index)) for index in range(6)]
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(device)
    for index, drawn in enumerate(draws):
        made = render(pixels, 64, drawn)
        assert made.device.type == device
        expected = draw_sample(image, 64, sampling, numpy_generator(0, "sampling", 0, index))
        difference = np.abs(made.permute(1, 2, 0).cpu().numpy().astype(int) - expected)
        assert np.percentile(difference, 95) <= 3  # edges of the image's squares are placed a little differently


JPEGS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "without subsampling": {"subsampling": 0},
    "grey": {},
}


# Of 255. Where colours have half of the picture's resolution, a GPU repeats each, and a CPU interpolates: of areas of 8
# by 8 pixels, that changes the mean by half a level.
AREA_BOUND, AREA_PX = 2, 8


def difference_of_areas(found: torch.Tensor, expected: torch.Tensor) -> float:
    ours, theirs = (functional.avg_pool2d(image.float(), AREA_PX) for image in (found, expected))
    return float((ours - theirs).abs().mean())


def draw_of_all() -> Draw:
    """The sample of a picture of 192 x 144 that shows all of it, undistorted."""
    still = Sampling((1.0, 1.0), (4 / 3, 4 / 3), ("bilinear",), mirror=False, photometric=None, lighting_sigma=0.0)
    return draw(192, 144, still, numpy_generator(0, "sampling", 0, 0))


def rendered(pixels: np.ndarray, drawn: Draw) -> torch.Tensor:
    return render(torch.from_numpy(pixels.copy()).permute(2, 0, 1), 64, drawn)


@pytest.mark.parametrize("kind", JPEGS)
def test_every_kind_of_jpeg_that_is_left_to_the_device_has_the_colours_of_a_cpu(kind: str, device: str) -> None:
    """Of each, header_for_device has a header."""
    picture = photograph(192, 144).convert("L" if kind == "grey" else "RGB")
    if device == "cuda":
        pytest.importorskip("torchvision", reason="a GPU decodes JPEGs by torchvision")
    data, drawn = encode(picture, quality=95, **JPEGS[kind]), draw_of_all()
    assert header_for_device(data) is not None
    made = EncodedBatch([data], [drawn], torch.arange(1), 1, 64).on(torch.device(device)).images[0].cpu()
    assert difference_of_areas(made, rendered(decode_rgb(data), drawn)) < AREA_BOUND


def test_the_bound_of_jpegs_leaves_room_for_replicated_colours_and_not_for_others() -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    data, drawn = encode(photograph(192, 144), quality=95), draw_of_all()
    expected = rendered(decode_rgb(data), drawn)
    replicated = rendered(simplejpeg.decode_jpeg(data, "RGB", fastupsample=True), drawn)
    assert 0 < difference_of_areas(replicated, expected) < AREA_BOUND
    for wrong in (replicated.flip(0), replicated.roll(1, dims=1)):  # channels; a row of 64
        assert difference_of_areas(wrong, expected) > 3 * AREA_BOUND


def replica_beside_another(number: int, device: str, folder: str) -> None:
    """Train a replica in a process of its own."""
    torch.set_num_threads(1)
    state = state_on(device, "paper", number)
    train(state, device, SIZES)
    torch.save({name: value.cpu() for name, value in state.tensors().items()}, f"{folder}/{number}.pt")


@pytest.mark.processes
@pytest.mark.timeout(280)
def test_two_replicas_on_one_device_train_as_each_does_alone(device: str, tmp_path: Path) -> None:
    server = forkserver()
    both = [server.Process(target=replica_beside_another, args=(n, device, str(tmp_path))) for n in (0, 1)]
    assert exit_codes(both) == [0, 0]
    for number in (0, 1):
        alone = state_on(device, "paper", number)
        train(alone, device, SIZES)
        assert_close(torch.load(tmp_path / f"{number}.pt", weights_only=True), alone.tensors(), 1e-6)


def worker(rank: int, device: str, variant: Variant, folder: str) -> None:
    """Train as one of two data-parallel workers, on a GPU each or on the CPU."""
    torch.set_num_threads(1)
    place = f"cuda:{rank}" if device == "cuda" else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    share = Share(rank, 2)
    state = state_on(place, variant)
    state.model = synchronised_model(state.model, share)
    state.network_for = in_double(parallel_network(state.model, share))
    losses = train(state, place, SIZES, share)
    torch.save((losses, {name: value.cpu() for name, value in state.tensors().items()}), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.processes
@pytest.mark.timeout(280)
@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_two_data_parallel_workers_take_the_steps_of_one(variant: Variant, device: str, tmp_path: Path) -> None:
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip(f"data parallelism needs two GPUs; there is {torch.cuda.device_count()}")
    if device == "cpu" and variant == "bn":
        pytest.skip("batch normalisation over several workers needs GPUs")
    server = forkserver()
    workers = [server.Process(target=worker, args=(rank, device, variant, str(tmp_path))) for rank in (0, 1)]
    assert exit_codes(workers) == [0, 0]
    alone = state_on(device, variant)
    expected = train(alone, device, SIZES, ALONE)
    for rank in (0, 1):
        losses, tensors = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert losses == pytest.approx(expected, rel=1e-6)
        assert_close(tensors, alone.tensors(), 1e-5)


@pytest.mark.processes
def test_a_worker_that_fails_leaves_no_other_waiting_for_it() -> None:
    server = forkserver()
    both = [server.Process(target=time.sleep, args=(600,)), server.Process(target=sys.exit, args=(3,))]
    assert exit_codes(both) == [None, 3]
    assert [process.is_alive() for process in both] == [False, False]
