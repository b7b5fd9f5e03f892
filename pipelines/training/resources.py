"""Resources reserved per training worker, and how many replicas the connected cluster holds at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.job.nodes import (
    MEMORY,
    NodesMissingError,
    affordable_memory,
    alive_nodes,
    amounts_line,
    draining_nodes,
    has_only_its_head,
    held_by,
    memory_warning,
    until_nodes_join,
    usable_gpus,
)
from pipelines.job.process_memory import training_bytes
from pipelines.job.ray_session import is_shared
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.recipe import MOST_REPLICAS, Recipe, ensembles_line
from pipelines.training.validation_plan import EVERY_EPOCH, ValidationPlan

# A student's targets, and once more while they are read.
TARGET_COPIES = 2
BYTES_PER_PROBABILITY = 4
# Up to this side, the last maps of the variant bn are one pixel.
LARGEST_CROP_WITH_ONE_PIXEL_PX = 46


@dataclass(frozen=True)
class Resources:
    """Resources of each worker of a replica, limits on restarts, checkpoints and disk space, and the validation.

    Attributes:
        cpus_per_worker: CPUs that a worker reserves; also its number of threads.
        gpus_per_worker: GPUs that a worker reserves; workers with a fraction share a GPU.
        custom: other resources that a worker reserves, by their names in the cluster.
        max_failures: how often in a row a failed replica is restarted without a newer checkpoint; 0 disables restarts.
        checkpoint_minutes: time between two checkpoints within an epoch.
        parallel_replicas: replicas to start at once, regardless of what the nodes hold; None for as many as they hold.
        shard_cache_gb: disk space of each node for copies of remote shards; None to leave a fifth of the disk free.
        validation: when a replica is validated, and on how many images.
        gpu_augmentation: decode JPEGs and make samples on the GPU.
        cuda_graphs: take training steps as CUDA graphs.
        memory_bytes: memory that a worker reserves; 0 for none.
        cpus_are_given: whether ``cpus_per_worker`` was asked for; if not, it is a worker's share of a node with GPUs.
    """

    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)
    max_failures: int = 2
    checkpoint_minutes: float = 10.0
    parallel_replicas: int | None = None
    shard_cache_gb: float | None = None
    validation: ValidationPlan = EVERY_EPOCH
    gpu_augmentation: bool = False
    cuda_graphs: bool = False
    memory_bytes: int = 0
    cpus_are_given: bool = True

    def __post_init__(self) -> None:
        if self.cpus_per_worker <= 0:
            raise UserError(f"--cpus-per-worker must be positive, got {self.cpus_per_worker:g}")
        for name in ("cpus_per_worker", "gpus_per_worker", "max_failures", "shard_cache_gb"):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                refused = "negative" if value < 0 else "infinite"
                raise UserError(f"--{name.replace('_', '-')} must not be {refused}, got {value:g}")
        if self.parallel_replicas is not None and self.parallel_replicas < 1:
            raise UserError(f"--parallel-replicas must be at least 1, got {self.parallel_replicas}")
        if self.checkpoint_minutes <= 0:
            raise UserError(f"--checkpoint-minutes must be positive, got {self.checkpoint_minutes}")
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise UserError(f"--gpus-per-worker must be whole, or a fraction of one GPU, got {self.gpus_per_worker:g}")
        for name, amount in self.custom.items():
            if name in ("CPU", "GPU", MEMORY) or not 0 < amount < math.inf:
                raise UserError(
                    "--worker-resources must be positive and finite; CPU and GPU have options of their own, and "
                    f"memory is estimated; got {name}={amount:g}"
                )

    @property
    def shard_cache_bytes(self) -> int | None:
        """Upper bound of the copies of shards, in bytes."""
        return None if self.shard_cache_gb is None else int(self.shard_cache_gb * 1e9)

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that cannot be trained with these workers.

        Raises:
            UserError: batch normalisation over several workers without GPUs, several workers on one GPU, samples that
                are to be made on a GPU without one, or CUDA graphs without one or over several workers.
        """
        if self.gpu_augmentation and not self.gpus_per_worker:
            raise UserError("--gpu-augmentation makes samples on GPUs: add --gpus-per-worker 1, or leave it out")
        if self.cuda_graphs and not self.gpus_per_worker:
            raise UserError("--cuda-graphs takes training steps on GPUs: add --gpus-per-worker 1, or leave it out")
        if self.cuda_graphs and recipe.workers_per_replica > 1:
            raise UserError(
                "--cuda-graphs is for replicas of one worker: leave it out, or train with --workers-per-replica 1"
            )
        if recipe.workers_per_replica > 1 and recipe.variant == "bn" and not self.gpus_per_worker:
            raise UserError(
                "batch normalisation over several workers needs GPUs: "
                "add --gpus-per-worker 1, train with --workers-per-replica 1, or choose --variant paper"
            )
        if recipe.workers_per_replica > 1 and 0 < self.gpus_per_worker < 1:
            raise UserError(
                "two workers of a replica cannot share a GPU (NCCL refuses): "
                f"--gpus-per-worker must be whole with several workers, got {self.gpus_per_worker:g}"
            )

    @property
    def per_worker(self) -> dict[str, float]:
        """Reserved resources of a worker, by Ray's names."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        memory = {MEMORY: self.memory_bytes} if self.memory_bytes else {}
        return {"CPU": self.cpus_per_worker, **gpus, **self.custom, **memory}

    @property
    def loader_processes(self) -> int:
        """Processes that load samples while a GPU trains; none without GPUs, where they would slow down the network."""
        return max(1, int(self.cpus_per_worker) - 1) if self.gpus_per_worker else 0

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a worker: as many threads as CPUs, regardless of the environment of the job."""
        return {**KEEP_FREED_MEMORY, "OMP_NUM_THREADS": str(max(1, int(self.cpus_per_worker)))}

    def __str__(self) -> str:
        return amounts_line(self.per_worker)


def cpus_beside_gpus(gpus_per_worker: float) -> float:
    """Return the CPUs of a worker by default: one, or beside a GPU its part of the node, to load what the GPU needs.

    The node with the fewest CPUs for each GPU decides. A cluster that has no GPU yet gives one.
    """
    parts = [int(node["CPU"] * gpus_per_worker / node["GPU"]) for node in alive_nodes() if usable_gpus(node)]
    return float(max(1, min(parts, default=1)))


def replicas_at_once(recipe: Recipe, resources: Resources) -> int:
    """Return how many replicas run at once: as many as the nodes hold, or ``parallel_replicas`` if nodes may join."""
    asked, held_now = resources.parallel_replicas, replicas_held(recipe, resources)
    if asked is None:
        return held_now
    return asked if is_shared() else min(asked, held_now)


def replicas_held(recipe: Recipe, resources: Resources) -> int:
    """Return how many replicas the current nodes hold at once.

    An elastic one takes all the workers that it may have; only the last one is left with fewer.
    """
    workers = sum(held_by(node, resources.per_worker) for node in alive_nodes())
    complete, left = divmod(workers, recipe.workers_per_replica)
    return complete + int(left >= recipe.least_workers)


def nodes_used(recipe: Recipe, resources: Resources) -> int:
    """Return how many nodes with CPUs a job uses: those there are, or more if ``parallel_replicas`` asks for them.

    It uses at least one: where there is none, one has to join.
    """
    nodes = [node for node in alive_nodes() if node.get("CPU")]
    on_one = max((held_by(node, resources.per_worker) for node in nodes), default=0)
    at_once = replicas_at_once(recipe, resources) if resources.parallel_replicas else 0
    return max(1, len(nodes), -(-at_once * recipe.workers_per_replica // max(1, on_one)))


def reserving_memory(recipe: Recipe, resources: Resources, classes: int, images: int = 0) -> Resources:
    """Return resources that include the memory of a worker; print a warning if the nodes do not have as much.

    Only a student needs to know the number of training ``images``: it holds the targets of all of them.
    """
    from pipelines.training.network import networks_without_weights

    # The last replica may be a wider network, and an elastic one has fewer workers for the same batch at times.
    networks = networks_without_weights(recipe, classes, sorted({0, recipe.replicas - 1}))
    needed = max(
        training_bytes(
            network,
            recipe.batch_size,
            recipe.crop_px,
            workers=workers,
            on_gpu=resources.gpus_per_worker > 0,
            loader_processes=resources.loader_processes,
        )
        for network in networks
        for workers in range(recipe.least_workers, recipe.workers_per_replica + 1)
    )
    needed += target_bytes(recipe, classes, images)
    reserved = affordable_memory(needed, resources.per_worker, alive_nodes(), recipe.least_workers)
    if warning := memory_warning("a worker", needed, reserved):
        say(f"warning: {warning}, or a smaller --batch-size")
    return replace(resources, memory_bytes=reserved)


def target_bytes(recipe: Recipe, classes: int, images: int) -> int:
    """Return the memory of a student's worker for the targets of all training images; 0 without a teacher."""
    return TARGET_COPIES * images * classes * BYTES_PER_PROBABILITY if recipe.teacher else 0


def check_that_one_fits(recipe: Recipe, resources: Resources) -> None:
    """Refuse replicas that the connected cluster cannot hold, unless it may grow (``--parallel-replicas``).

    Raises:
        UserError: no set of nodes holds the workers of one replica.
        NodesMissingError: nodes that are about to be taken away could, or the cluster has only its head yet.
    """
    if replicas_held(recipe, resources) >= 1 or (resources.parallel_replicas and is_shared()):
        return
    nodes, leaving = alive_nodes(), len(draining_nodes())
    has = amounts_line({name: sum(node.get(name, 0.0) for node in nodes) for name in resources.per_worker})
    if leaving:
        has += f", without {count(leaving, 'node')} about to be taken away,"
    workers = f"{recipe.least_workers} workers of {resources}" if recipe.least_workers > 1 else f"{resources}"
    with_leaving = alive_nodes(with_leaving=True)
    once_held = sum(held_by(node, resources.per_worker) for node in with_leaving)
    may_join = is_shared() and has_only_its_head(with_leaving)
    error = NodesMissingError if may_join or once_held >= recipe.least_workers else UserError
    fix = "reserve less, add nodes, or set --parallel-replicas if the cluster grows on demand"
    raise error(
        f"a replica reserves {workers}, and each worker must fit on one node; the cluster has {has} in total: "
        f"{until_nodes_join('--parallel-replicas') if may_join else fix}"
    )


def check_batches(recipe: Recipe, images: int) -> None:
    """Refuse batches of one image from whose single pixels batch normalisation cannot compute a variance.

    Raises:
        UserError: the last batch of an epoch, or every one, is such a batch.
    """
    first_px = recipe.first_crop_px if recipe.epochs > 1 else None  # the last epoch has crop_px
    size, crop_px = recipe.batch_size, first_px or recipe.crop_px
    if recipe.variant != "bn" or crop_px > LARGEST_CROP_WITH_ONE_PIXEL_PX or not has_batch_of_one(images, size):
        return
    fitting = next((other for other in range(size + 1, 2 * size + 3) if not has_batch_of_one(images, other)), 2)
    raise UserError(
        f"batches of {size:,} of {count(images, 'training image')} leave a batch of one, in which batch normalisation "
        f"fails at crops of {crop_px} px: choose --batch-size {fitting}, or crops of more than "
        f"{LARGEST_CROP_WITH_ONE_PIXEL_PX} px"
    )


def has_batch_of_one(images: int, batch_size: int) -> bool:
    """Return whether an epoch of ``images`` has a batch of one image."""
    return batch_size == 1 or images % batch_size == 1


def needed_replicas(recipe: Recipe, least: int | None, *, at_limit: bool = False) -> int:
    """Return how many finished replicas the evaluation needs; one if the run has reached a limit.

    Raises:
        UserError: the recipe has fewer, or more than a report can judge.
    """
    if recipe.replicas > MOST_REPLICAS:
        why = ensembles_line(recipe.replicas)
        raise UserError(f"--replicas must be at most {MOST_REPLICAS}, got {recipe.replicas}: {why}")
    all_needed = 1 if at_limit else recipe.replicas
    needed = all_needed if least is None else least
    if not 1 <= needed <= recipe.replicas:
        raise UserError(
            f"--min-replicas must be between 1 and the {count(recipe.replicas, 'replica')} of the recipe, got {needed}"
        )
    return needed
