"""Tests of the arithmetic that a run is trained in: chosen once, by a trial where that pays, and kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from googlenet.network.arithmetic import FP32, Arithmetic, can_compile, compile_network, profits_from_bf16
from googlenet.network.complexity import forward_flops
from googlenet.network.model import GoogLeNet
from pipelines.errors import UserError
from pipelines.run.dataset import Counts
from pipelines.run.named_recipes import demo, finetune, paper
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training import arithmetic_choice, plan, time_estimate, timing
from pipelines.training import trial as trial_module
from pipelines.training.arithmetic_choice import training_arithmetic, training_line
from pipelines.training.resources import Resources
from pipelines.training.trial import Trial, candidates
from pipelines.training.validation_plan import ValidationPlan

pytestmark = pytest.mark.timeout(500)


def test_a_short_run_is_trained_as_it_comes_without_a_trial(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    assert training_arithmetic(run, demo(), Resources(), 2000, 10) == FP32
    assert training_line(run) == "training arithmetic: fp32, not compiled (little work)"
    other = Storage.at(str(tmp_path / "other"))
    assert training_arithmetic(other, replace(demo(), training_precision="bf16"), Resources(), 2000, 10) == Arithmetic(
        "bf16"
    )


@pytest.mark.parametrize("kept", [{"reason": "mine"}, {"arithmetic": {"precision": "fp8", "compiled": False}}])
def test_an_edited_choice_is_named(tmp_path: Path, kept: dict[str, object]) -> None:
    run = Storage.at(str(tmp_path))
    run.write_json("training.json", kept)
    for read in (training_line, lambda run: training_arithmetic(run, demo(), Resources(), 2000, 10)):
        with pytest.raises(UserError, match=r"training\.json is damaged .*; restore it, or start again in a new"):
            read(run)


def test_a_run_keeps_to_the_device_that_makes_its_samples(tmp_path: Path) -> None:
    run, on_gpu = Storage.at(str(tmp_path)), Resources(1, 1, gpu_augmentation=True)
    training_arithmetic(run, demo(), on_gpu, 2000, 10)
    assert "samples made on the GPU" in training_line(run)
    assert training_arithmetic(run, demo(), on_gpu, 2000, 10) == FP32
    with pytest.raises(UserError, match="was begun with --gpu-augmentation: add it, or choose another --run-dir"):
        training_arithmetic(run, demo(), Resources(1, 1), 2000, 10)


@pytest.mark.parametrize(
    ("gpus_per_worker", "at_once", "together"),
    [(0.0, 3, 3), (0.0, 96, 8), (1.0, 4, 1), (2.0, 2, 1), (0.25, 16, 4), (0.25, 2, 2), (0.3, 16, 3), (0.05, 40, 8)],
)
def test_workers_that_slow_each_other_down_are_timed_together(
    gpus_per_worker: float, at_once: int, together: int
) -> None:
    """Four replicas on one GPU take up to four times as long as one alone."""
    assert trial_module.timed_together(Resources(1, gpus_per_worker), at_once) == together


def test_long_runs_are_told_from_short_ones_by_their_multiply_adds() -> None:
    # Table 1's multiply-adds: twice as many operations, three times for the forward and backward passes.
    model = GoogLeNet(1000, aux_heads=False)
    imagenet = arithmetic_choice._flops(replace(paper(), aux_heads=False), 1_281_167, 1000)
    assert imagenet == pytest.approx(3 * forward_flops(model, 224) * 1_281_167 * 250, rel=0.01)
    assert imagenet > arithmetic_choice.SMALL_TRAINING_FLOPS["cuda"]
    assert arithmetic_choice._flops(finetune(), 1_100, 10) < arithmetic_choice.SMALL_TRAINING_FLOPS["cpu"]


@pytest.mark.processes
def test_a_long_run_takes_what_is_done_first_and_stays_with_it(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial runs here; test_train_ensemble.py has one on a cluster."""
    monkeypatch.setitem(arithmetic_choice.SMALL_TRAINING_FLOPS, "cpu", 0.0)
    monkeypatch.setattr(
        arithmetic_choice, "run_trial", lambda recipe, _, *which: trial_module._try(recipe, *which, "cpu")
    )

    def step(_recipe: Recipe, _classes: int, _device: str, arithmetic: Arithmetic) -> Callable[[], object]:
        """Of a layer, which is compiled in a moment; test_compiled_replica.py compiles a whole network."""
        layer = torch.nn.Linear(3, 3)
        network = compile_network(layer) if arithmetic.compiled else layer
        return lambda: network(torch.ones(1, 3)).sum().item()

    monkeypatch.setattr(trial_module, "_step", step)
    torch._dynamo.reset()  # what an earlier test has compiled in this process would take no time
    run = Storage.at(str(tmp_path))
    recipe = replace(tiny_recipe, training_precision="fp32", variant="paper")
    chosen = training_arithmetic(run, recipe, Resources(), 24, 3)
    line = training_line(run)
    tried = [str(arithmetic) for arithmetic in candidates(("fp32",), "cpu")]
    assert line.startswith(f"training arithmetic: {chosen} (as requested; time of a replica's steps, from a trial: ")
    assert all(name in line for name in tried)
    assert not chosen.compiled  # six steps do not pay for a compilation
    monkeypatch.setattr(arithmetic_choice, "run_trial", lambda *_: pytest.fail("tried again"))
    assert training_arithmetic(run, recipe, Resources(), 24, 3) == chosen


def test_a_plan_tells_the_time_in_fp32_and_whether_faster_arithmetic_will_be_tried(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trial = Trial(
        (FP32,),
        (0.5,),
        (0.0,),
        passes_per_second=84.0,
        parameters=1000,
        seconds_per_sample=1 / 16,
        seconds_per_crop=0.5,
    )

    def line(recipe: Recipe, resources: Resources = Resources()) -> str:  # noqa: B008
        return plan._training_line(Storage.at(str(tmp_path)), recipe, resources, Counts(24, 42, 3), trial)

    # Three replicas, two at once: twice 2 epochs of 3 steps of a second, half of it to load 8 images, and a validation:
    # a second for 42 images with two sets of weights, and 21 s to load them.
    assert line(tiny_recipe) == (
        "training: 6 steps of 8 images for each replica, 0.500 s per step in fp32 and 0.500 s to load its images, "
        "about 1:40 in 2 rounds (with validation, without reading from storage)"
    )
    starting = replace(trial, start_seconds=5.0)  # of the controller and of the worker, in both rounds
    assert (
        time_estimate.training_seconds(Storage.at(str(tmp_path)), tiny_recipe, Resources(), Counts(24, 42, 3), starting)
        == 120
    )
    once = Resources(validation=ValidationPlan(every_epochs=5, images=20))
    assert "about 0:33 in 2 rounds" in line(tiny_recipe, once)
    assert plan._validation_line(tiny_recipe, once, Counts(24, 42, 3), trial) == (
        "validation: 1 time on 20 of 42 images, 0:10 of each replica's training"
    )
    long = line(replace(tiny_recipe, epochs=10**7))
    assert long.endswith("from storage; faster arithmetic is tried before long training)")


def test_a_plan_for_gpus_overlaps_loading_and_computing_and_says_which_waits(
    monkeypatch: pytest.MonkeyPatch, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    monkeypatch.setattr(time_estimate, "replicas_at_once", lambda *_: 3)
    trial = Trial((FP32,), (0.5,), (0.0,), 84.0, parameters=1000, seconds_per_sample=1 / 4, seconds_per_crop=0.1)

    def line(cpus: float) -> str:
        resources = Resources(cpus, gpus_per_worker=1)
        return plan._training_line(Storage.at(str(tmp_path)), tiny_recipe, resources, Counts(24, 42, 3), trial)

    # 6 steps of 2 s of loading, and twice 42 crops of 0.1 s.
    assert "0.500 s per step in fp32 and 2.000 s to load its images in 1 process, about 0:20 in 1 round" in line(2)
    assert "the GPU waits for them: add --cpus-per-worker" in line(2)
    # Eight processes load faster than the GPU computes.
    assert "0.250 s to load its images in 8 processes, about 0:05 in 1 round" in line(9)
    assert "waits" not in line(9)


def test_a_precision_that_cannot_be_compiled_costs_no_other_its_compilation(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch 2.9 compiles no TF32."""
    broken = {Arithmetic("tf32", compiled=True)}

    def step(recipe: Recipe, classes: int, device: str, arithmetic: Arithmetic) -> Callable[[], object]:
        if arithmetic in broken:
            raise RuntimeError(f"no {arithmetic}\nsecond line")
        return lambda: None

    monkeypatch.setattr(trial_module, "_step", step)
    compiled = [Arithmetic(precision, compiled=True) for precision in ("fp32", "tf32", "bf16")]
    tried = tiny_recipe, 3, "cpu", [FP32, *compiled], 0.0, 0
    found, failure, _ = trial_module._times_of_those_that_work(*tried)
    assert (list(found), failure) == ([FP32, compiled[0], compiled[2]], "")
    broken.update(compiled)
    found, failure, _ = trial_module._times_of_those_that_work(*tried)
    assert (list(found), failure) == ([FP32], "no fp32, compiled")


def test_the_memory_of_a_trial_is_not_that_of_all_arithmetics_together(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bytes] = []

    def step(recipe: Recipe, classes: int, device: str, arithmetic: Arithmetic) -> Callable[[], object]:
        if arithmetic.compiled:
            held.append(bytes(range(250)) * 10**6)  # what a compiler keeps
        return lambda: None

    monkeypatch.setattr(trial_module, "_step", step)
    tried = [FP32, Arithmetic("fp32", compiled=True)]
    *_, memory_bytes = trial_module._times_of_those_that_work(tiny_recipe, 3, "cpu", tried, 0.0, 0)
    assert 0 < memory_bytes < psutil.Process().memory_info().rss - 200 * 10**6


def test_a_gpu_needs_a_c_compiler_and_a_processor_one_of_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [can_compile(device) for device in ("cpu", "cuda")] == [False, False]
    for compiler, expected in (("gcc", [False, True]), ("g++", [True, True])):
        (tmp_path / compiler).touch(mode=0o755)
        assert [can_compile(device) for device in ("cpu", "cuda")] == expected


def test_candidates_are_plain_first_and_only_what_was_asked_for() -> None:
    compiled = can_compile("cpu")
    asked = [str(arithmetic) for arithmetic in candidates(("bf16",), "cpu")]
    assert asked == ["bf16, not compiled", *(["bf16, compiled"] if compiled else [])]
    free = candidates(("fp32", "bf16"), "cpu")
    assert free[0] == FP32
    assert len(free) == (1 + profits_from_bf16("cpu")) * (1 + compiled)


def test_workers_of_one_trial_count_by_their_means() -> None:
    one = Trial((FP32,), (0.4,), (1.0,), 90.0, 7, seconds_per_sample=0.1, seconds_per_crop=0.2, memory_bytes=5)
    other = replace(one, seconds_per_step=(0.6,), passes_per_second=110.0, seconds_per_sample=0.3, memory_bytes=6)
    both = trial_module._means([one, other])
    assert both.seconds_per_step == (0.5,)
    assert (both.passes_per_second, both.seconds_per_sample, both.memory_bytes) == (100.0, pytest.approx(0.2), 6)
    slower = trial_module._means([one, other], 1.25)
    assert (slower.seconds_per_step, slower.passes_per_second) == ((0.625,), 80.0)
    assert (slower.seconds_per_sample, slower.seconds_per_crop) == (pytest.approx(0.25), pytest.approx(0.25))


@pytest.mark.parametrize(("calls", "timed"), [(0, 6), (100, 6), (300, 7), (1_000_000, 21)])
def test_the_longer_a_training_the_longer_its_steps_are_timed(
    monkeypatch: pytest.MonkeyPatch, calls: int, timed: int
) -> None:
    done: list[None] = []
    monkeypatch.setattr(timing, "_seconds", lambda work: work() or 1.0)
    timing.times(lambda: done.append(None), timing.ESTIMATE_SECONDS, calls)
    assert len(done) == timed  # with the first one, which is left out: at least 5 s, a fiftieth, at most 20 s
