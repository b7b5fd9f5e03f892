"""GPUs of the cluster that a training leaves unused, and the options that would use them."""

from pipelines.job.console import count
from pipelines.job.nodes import alive_nodes, usable_gpus
from pipelines.run.recipe import Recipe
from pipelines.training.resources import Resources, cpus_beside_gpus, replicas_at_once, replicas_held


def unused_gpus_line(recipe: Recipe, resources: Resources, waiting: int) -> str:
    """Return how many GPUs ``waiting`` replicas leave unused, and what would use them; empty if none are."""
    total = sum(map(usable_gpus, alive_nodes()))
    at_once = min(waiting, replicas_at_once(recipe, resources))
    # A worker computes on one GPU, however many it reserves.
    unused = int(total - at_once * recipe.workers_per_replica * min(1.0, resources.gpus_per_worker))
    if unused < 1:
        return ""
    return f"{count(unused, 'GPU')} unused: {_remedy(recipe, resources, total, waiting)}"


def _remedy(recipe: Recipe, resources: Resources, total: float, waiting: int) -> str:
    if not resources.gpus_per_worker:
        return "add --gpus-per-worker 1 to train on them"
    # Several workers of a replica have whole GPUs and no CUDA graphs; a run that has begun keeps its number of them.
    workers = int(total // waiting)
    may_be_more = workers > recipe.workers_per_replica and waiting == recipe.replicas and not resources.cuda_graphs
    more_workers = f"--workers-per-replica {workers}" if may_be_more else ""
    if resources.gpus_per_worker > 1:
        return f"a worker computes on one GPU: use --gpus-per-worker 1 {more_workers}".rstrip()
    held_at_once = min(waiting, replicas_held(recipe, resources))
    if resources.parallel_replicas and resources.parallel_replicas < held_at_once:
        return f"add --parallel-replicas {held_at_once}, so that as many train at once as the nodes hold"
    fitting = cpus_beside_gpus(resources.gpus_per_worker)
    if held_at_once < waiting and resources.cpus_per_worker > fitting:
        return f"use --cpus-per-worker {fitting:g}, so that every GPU gets a worker"
    if more_workers:
        whole = "" if resources.gpus_per_worker == 1 else "--gpus-per-worker 1 "
        return f"add {whole}{more_workers}, so that several train a replica together"
    return f"{count(waiting, 'replica')} of {resources} cannot use more GPUs"
