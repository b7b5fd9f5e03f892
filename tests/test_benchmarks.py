"""The benchmarks' own arithmetic, and a minimal run of each."""

import os
import re
import resource
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import tyro

from benchmarks import (
    evaluation_stage,
    full_size_report,
    gpu,
    gpu_contenders,
    gpu_turns,
    other_runtimes,
)
from benchmarks.evaluation_run import untrained_replica
from benchmarks.measure import Contender, commit, peak_mb, print_rates, race
from googlenet import GoogLeNet
from googlenet.network.arithmetic import FP32, profits_from_bf16
from googlenet.training.loader import Request, load_batches
from tests.commands import run_python
from tests.gpu.small_training import shallow
from tests.picture_files import encode, photograph
from tests.sleeper import Times, sleeper

pytestmark = pytest.mark.timeout(200)


@pytest.mark.processes
def test_contenders_have_processes_and_environments_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = Contender("plain", sleeper, (0.05,)), Contender("other", sleeper, (0.05,), {"BENCHMARK_TEST": "1"})
    rates = race([plain, other], rounds=3)
    assert "BENCHMARK_TEST" not in os.environ
    assert [len(values) for values in rates.values()] == [3, 3]
    assert max(rates["plain"]) <= 5 / 0.05
    assert 5 / 0.05 < max(rates["other"]) <= 10 / 0.05
    print_rates({"a": [1.0, 9.0, 2.0], "b": [4.0, 4.0, 4.0]}, "units/s", ["a"])
    assert "| b | 4.0 | 4.0 - 4.0 | 2.00 |" in capsys.readouterr().out


SMALL = {
    "allocator --rounds 1 --crop-px 42 --batches 2": "freed memory kept",
    "imagenet_size --stages listing preparing loading --images 600 --prepared 8 --seconds 1": "with all indexes",
    "loader --rounds 1 --images 4 --crop-px 35": "| ours, all of it |",
    "random_reads --rounds 1 --shards 2 --images-per-shard 16 --reads 20 --crop-px 35": "| one by one |",
    "host_share --rounds 1 --crop-px 42 --replicas 2 --classes 5": "| start operations |",
    "records_scaling --records 300 600 --rounds 1 --steps 1 --batch-size 4 --crop-px 35 --width 0.125": "| 600 |",
}


def race_here(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Race in this process, where all is imported already; processes of their own are tested above."""
    return {contender.name: [contender.make(*contender.arguments)()] * rounds for contender in contenders}


@pytest.mark.parametrize(("words", "expected"), SMALL.items())
@pytest.mark.processes
def test_a_benchmark_runs(
    words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *options = words.split()
    monkeypatch.setattr("benchmarks.measure.race", race_here)
    monkeypatch.setattr(sys, "argv", [module, *options])
    monkeypatch.delitem(sys.modules, f"benchmarks.{module}", raising=False)
    runpy.run_module(f"benchmarks.{module}", run_name="__main__")
    assert expected in capsys.readouterr().out


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GoogLeNet, Path]:
    """A network and its file for other runtimes; to export it takes seconds."""
    network = shallow(untrained_replica(0.05, 5, "bn").eval())
    file = tmp_path_factory.mktemp("runtimes") / "network.onnx"
    other_runtimes.write_onnx(network, 42, file)
    return network, file


@pytest.mark.parametrize("runtime", other_runtimes.PACKAGES)
@pytest.mark.processes
def test_other_runtimes_compute_our_network(runtime: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip(other_runtimes.PACKAGES[runtime], reason="pip install -c constraints.txt -e '.[bench]'")
    (network, file), crops = request.getfixturevalue("exported"), 50 * torch.rand(3, 3, 42, 42)
    found = other_runtimes.load(runtime, file)(crops.numpy())
    with torch.no_grad():
        expected = network(crops).logits.numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.processes
def test_the_benchmark_of_memory_measures_a_process_of_its_own() -> None:
    options = "--kinds training --variants paper --crop-px 35 --batch-size 2 --steps 1 --width 0.125"
    ended = run_python("-m", "benchmarks.memory", *options.split())
    assert ended.code == 0, ended.stderr
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("| training, `paper` | ")]
    assert 100 < int(line.split("|")[2]) < 1000


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_the_benchmark_of_a_gpu_runs_through_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tables have a line for each contender, torchvision's included."""
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick"])
    assert gpu.main() == 0
    printed = capsys.readouterr().out
    assert "failed:" not in printed
    assert "left out" not in printed
    fast = "bf16" if profits_from_bf16("cpu") else "fp32"
    named = ["plain PyTorch, fp32", "torchvision's loop, fp32, loading", f"ours, {fast}, not compiled, loading"]
    for name in (*named, f"two replicas at once, {fast}", f"JPEG to answer, {fast}, not compiled"):
        assert f"| {name} | " in printed
    assert "not measured, as this device has no instructions for it: tf32" in printed
    assert "n = 1 rounds, in turn; no GPU" in printed


@pytest.mark.parametrize(
    ("has", "named"),
    [(("tf32", "bf16"), {"fp32", "tf32", "bf16", "TF32"}), (("tf32",), {"fp32", "tf32", "TF32"}), ((), {"fp32"})],
)
def test_a_gpu_is_measured_only_in_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], named: set[str]
) -> None:
    monkeypatch.setattr(gpu_contenders, "profits_from", lambda precision, _: precision in has)
    monkeypatch.setattr(gpu_contenders, "can_compile", lambda _: True)
    names = [
        contender.name
        for make in (gpu_contenders.training, gpu_contenders.training_with_processes, gpu_contenders.predicting)
        for contender in make(gpu_turns.Size.quick(), "cuda")
    ]
    assert {word for name in names for word in re.findall(r"\b(?:fp32|tf32|bf16|TF32)\b", name)} == named
    fastest = has[-1] if has else "fp32"
    for name in (
        f"step, {fastest}, CUDA graph",
        f"two replicas at once, {fastest}",
        f"ours, {fastest}, compiled, loading",
    ):
        assert name in names


def test_the_share_of_the_time_that_a_gpu_is_busy_counts_kernels_at_the_same_time_once() -> None:
    assert gpu.union_length([(0, 4), (10, 12), (2, 5), (3, 4), (12, 13)]) == 5 + 3
    assert gpu.union_length([]) == 0


def test_launches_and_notes_in_a_trace_are_not_work_of_the_gpu() -> None:
    trace: list[dict[str, Any]] = [
        {"cat": "kernel", "name": "sgemm", "ts": 10.0, "dur": 2.5},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1.0, "dur": 5.0},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 20.0, "dur": 1.0},
        {"name": "process_name", "ph": "M"},
    ]
    assert gpu.spans_on_gpu(trace) == [(10.0, 12.5), (20.0, 21.0)]


def test_a_comparison_for_which_no_time_is_left_is_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> gpu_turns.Turn:
        raise AssertionError("no time is left")

    assert gpu.measure([gpu_turns.Contender("ours", refuse)], "cpu", 3, lambda: True) == {}
    assert "left out, as the time is up: ours" in capsys.readouterr().out


def test_nothing_is_profiled_for_which_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "busy_share", lambda *_: pytest.fail("profiled"))
    asked = iter([False])  # before the set-up, the time is not yet up
    [outcome] = gpu.measure(
        [gpu_turns.Contender("ours", lambda: gpu_turns.Turn(lambda: 1))], "cpu", 3, lambda: next(asked, True)
    ).values()
    assert (len(outcome.rates), outcome.busy) == (1, None)


@pytest.mark.processes
def test_no_batch_that_was_loaded_before_a_round_counts_in_it() -> None:
    size, taken = gpu_turns.Size(batch_size=1, steps=20, processes=2), []
    batches = load_batches({"times": Times()}, repeat(Request("times", [], 1)), loader_processes=2)

    def take(loaded_at: float) -> Callable[[], object]:
        taken.append(loaded_at)
        return lambda: None

    turn = gpu_turns.training_turn(take, batches, size, loads=True)
    next(batches)  # the processes have started
    time.sleep(0.3)  # the turn of another contender
    turn.run_up()
    started = time.time()
    assert turn.work() == 20
    assert sum(loaded_at > started for loaded_at in taken[-20:]) >= 18  # each process may have just loaded one


def test_torchvisions_loader_has_no_end_and_starts_from_the_server_that_has_imported_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks import gpu_torchvision  # torchvision takes three seconds

    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", ["__main__"])
    loader = gpu_torchvision.loader([b""] * 4, 10, 35, 2, processes=1)
    assert "torch" in forkserver._forkserver._preload_modules
    assert len(loader) > 10**6


def test_the_bare_predictors_of_the_stage_share_stems_as_the_stage_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not in compiled arithmetic, and nowhere else would the two do the same work."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for name in ("_predictor", "_images"):
        monkeypatch.setattr(evaluation_stage, name, None, raising=False)
    evaluation_stage._set_up([encode(photograph(100, 80))], 56, 0.03, FP32)
    convolved: list[int] = []
    [(_, network)] = evaluation_stage._predictor._networks
    network.conv1.register_forward_hook(lambda _, inputs, __: convolved.append(inputs[0].numel()))
    assert evaluation_stage._bare() > 0
    bare, own = sum(convolved), evaluation_stage._predictor
    convolved.clear()
    own.predict(evaluation_stage._images[0])
    shared = sum(convolved)
    convolved.clear()
    own.shares_stem = False
    own.predict(evaluation_stage._images[0])
    assert bare == shared < sum(convolved)


@pytest.mark.processes
def test_a_benchmark_ends_well_where_git_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


@pytest.mark.parametrize(("platform", "highest"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_the_highest_memory_is_in_megabytes_on_each_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, highest: int
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=highest))
    assert peak_mb() == 2048


@pytest.mark.processes
def test_the_benchmark_of_the_report_runs_in_processes_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--images 40 --replicas 2 --classes 12 --rounds 1"
    full_size_report.main(tyro.cli(full_size_report.Arguments, args=options.split()))
    assert "| 40 | 0.00 |" in capsys.readouterr().out
