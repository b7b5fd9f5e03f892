"""Number of predictors that a cluster holds, by the CPUs, GPUs and memory of its nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.job.nodes import (
    MEMORY,
    NodesMissingError,
    affordable_memory,
    alive_nodes,
    amounts_line,
    has_only_its_head,
    held,
    held_by,
    memory_warning,
    until_nodes_join,
    usable_gpus,
)
from pipelines.job.ray_session import is_shared
from pipelines.job.worker_process import FEEDERS_PER_PREDICTOR
from pipelines.run.predictions import IMAGES_PER_SHARD

# A predictor reserves most of a CPU, and the two tasks that feed it the rest: they mostly wait for Ray. So even a node
# with more GPUs than CPUs has room for the tasks, also after some of them died.
PREDICTOR_CPUS = 0.99
FEEDER_CPUS = 0.005
# A feeding task takes four seconds of processor time to start, and less than LONG_IMAGE_SECONDS to scale an image. If a
# predictor takes longer than that for an image, and no CPU is left, one feeding task keeps it busy.
LONG_IMAGE_SECONDS = 0.2


@dataclass(frozen=True)
class PredictorOptions:
    """Predictors that are asked for.

    Attributes:
        number: predictors to start; None for as many as the nodes hold.
        gpus: GPUs, or share of one, that each reserves; 0 to predict on CPUs, None for 1 if the cluster has any.
        expected: predictors that nodes will hold which join on demand, if ``number`` is None.
        expects_gpus: whether nodes with GPUs will join on demand.
    """

    number: int | None = None
    gpus: float | None = None
    expected: int = 0
    expects_gpus: bool = False

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 0:
            raise UserError(f"--gpus-per-predictor must not be negative, got {self.gpus:g}")
        if self.gpus and self.gpus > 1 and self.gpus % 1:
            raise UserError(f"--gpus-per-predictor must be whole, or a fraction of one GPU, got {self.gpus:g}")
        if self.number is not None and self.number < 1:
            raise UserError(f"--predictors must be at least 1, got {self.number}")

    def after(self, workers: int, cpus_per_worker: float, gpus_per_worker: float) -> "PredictorOptions":
        """Return the same options on a cluster that grows for so many training workers: nodes for them will join."""
        gpus = 0.0 if self.gpus == 0 else gpus_per_worker / (self.gpus or 1.0)
        expected = int(workers * (gpus or cpus_per_worker))
        # A node has whole CPUs and GPUs, also for a single worker that reserves a part of one.
        return replace(self, expected=max(expected, min(workers, 1)), expects_gpus=workers > 0 and gpus > 0)


AS_MANY_AS_FIT = PredictorOptions()


def device_of(num_gpus: float) -> str:
    """Return the device of a process that reserves so many GPUs; Ray shows those of others to one that reserves none.

    GPUs that a cluster only claims to have, as to try the placement, are none of PyTorch's.
    """
    import torch

    return "cuda" if num_gpus and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Predictors:
    """Predictors of an evaluation, and what each of them reserves.

    Attributes:
        number: predictors to start.
        num_gpus: GPUs, or share of one, that each reserves.
        memory_bytes: memory that each reserves; 0 for none.
        per_node: most of them that one of today's nodes holds, at least 1.
        grows: whether more start on nodes that join.
        remark: one line about a shortage; empty if there is none.
        seconds_per_image: time of one of them for an image; 0 if that is unknown.
        on_every_cpu: whether they leave no CPU of today's nodes for the tasks that feed them, and none will join.
    """

    number: int
    num_gpus: float
    memory_bytes: int = 0
    per_node: int = 1
    grows: bool = False
    remark: str = ""
    seconds_per_image: float = 0.0
    on_every_cpu: bool = False

    @property
    def needs(self) -> dict[str, float]:
        """Resources of a task that does the work of one of them, by Ray's names."""
        gpus = {"GPU": self.num_gpus} if self.num_gpus else {}
        return {"CPU": 1.0, **gpus, **({MEMORY: self.memory_bytes} if self.memory_bytes else {})}

    @property
    def feeders(self) -> int:
        """Number of concurrent tasks that read, decode and scale images for them."""
        if self.on_every_cpu and self.seconds_per_image > LONG_IMAGE_SECONDS:
            return self.number
        return self.number * FEEDERS_PER_PREDICTOR["gpu" if self.num_gpus else "cpu"]

    def at_work(self, images: int) -> int:
        """Return the number of predictors that have work when ``images`` images are predicted."""
        return min(self.number, -(-images // IMAGES_PER_SHARD))

    def tell_shortage(self) -> None:
        """Print the remark, if there is one."""
        if self.remark:
            say(f"predictors: {self.remark}")

    def pool(self, shards: int) -> tuple[int, int]:
        """Return the least and the largest number at once that predict ``shards`` shards."""
        least = min(self.number, shards)
        return least, shards if self.grows else least

    @classmethod
    def that_fit(cls, options: PredictorOptions, memory_bytes: Mapping[str, int]) -> "Predictors":
        """Return the predictors for the connected cluster; one that was started by this command does not grow.

        See :func:`predictors_on`.
        """
        return predictors_on(alive_nodes(), options, memory_bytes, may_grow=is_shared())


def predictors_on(
    nodes: Sequence[Mapping[str, float]],
    options: PredictorOptions,
    memory_bytes: Mapping[str, int],
    *,
    may_grow: bool,
) -> Predictors:
    """Return the predictors for nodes with these resources.

    ``memory_bytes`` is the memory that a predictor needs on a CPU ("cpu"), and with a GPU ("gpu"); 0 if unknown.

    Raises:
        UserError: no node holds a predictor, and the cluster cannot grow or is not expected to; or GPUs are asked for
            on nodes without any.
        NodesMissingError: no node but the head has joined the cluster yet.
    """
    joins = may_grow and (options.expects_gpus or (options.number is not None and options.gpus is not None))
    asked_gpus = 1.0 if options.gpus is None else options.gpus
    num_gpus = asked_gpus if joins or any(map(usable_gpus, nodes)) else 0.0
    only_head = may_grow and has_only_its_head(nodes)
    if options.gpus and not num_gpus and not only_head:
        raise UserError(
            f"--gpus-per-predictor {options.gpus:g}: no node has both a GPU and a CPU; leave the option out, or set "
            "--predictors if the cluster grows on demand"
        )
    needs = {**({"GPU": num_gpus} if num_gpus else {}), "CPU": 1.0}
    needed = memory_bytes["gpu" if num_gpus else "cpu"]
    if memory := affordable_memory(needed, needs, nodes):
        needs[MEMORY] = memory
    by_node = [held_by(node, needs) for node in nodes]
    now = sum(by_node)
    wanted = options.number or max(now, options.expected)
    wanted = wanted if may_grow else min(wanted, now)
    if not wanted:
        error = NodesMissingError if only_head else UserError
        fix = "reserve less with --gpus-per-predictor, add nodes, or set --predictors if the cluster grows on demand"
        raise error(
            f"no node holds a predictor, which reserves {amounts_line(needs)}; {_has(nodes, needs)}: "
            f"{until_nodes_join('--predictors') if only_head else fix}"
        )
    grows = may_grow and options.number is None
    remarks = (_remark(nodes, needs, now, options.number), memory_warning("a predictor", needed, memory))
    per_node = max(1, min(wanted, max(by_node, default=1)))
    cpus = sum(int(node.get("CPU", 0.0)) for node in nodes)
    on_every_cpu = not num_gpus and not may_grow and wanted >= cpus
    remark = "; ".join(filter(None, remarks))
    return Predictors(wanted, num_gpus, memory, per_node, grows, remark, on_every_cpu=on_every_cpu)


def _remark(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, float], now: int, asked: int | None) -> str:
    """Return which resource limits the predictors below what was asked for or what the first of ``needs`` holds."""
    usual = next(iter(needs))
    able = [node for node in nodes if node.get("CPU", 0.0) >= 1 and held(usual, node.get(usual, 0.0), needs[usual])]
    wanted = asked or sum(held(usual, node[usual], needs[usual]) for node in able)
    if now >= wanted:
        return ""
    by = {name: sum(held(name, node.get(name, 0.0), need) for node in able) for name, need in needs.items()}
    scarce = min(by, key=by.__getitem__)
    return (
        f"the nodes hold {now} of {count(wanted, 'predictor')}, limited by {scarce}: each reserves "
        f"{amounts_line(needs)}; {_has(nodes, needs)}"
    )


def _has(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, float]) -> str:
    totals = {name: sum(node.get(name, 0.0) for node in nodes) for name in needs}
    return f"the cluster has {amounts_line(totals)} on {count(len(nodes), 'node')}"
