"""Plan of a student's targets: the teacher's replicas that answer, and what is left of their work."""

from collections.abc import Sequence
from dataclasses import dataclass

from googlenet.evaluation.crops import mean_distinct_views, view_groups, views_of_all
from googlenet.network.complexity import forward_flops
from pipelines.run.directory import PREDICTIONS, TARGETS, TEACHER, finished_replicas, read_recipe
from pipelines.run.predictions import IMAGES_PER_SHARD, bytes_per_image, file_name
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import ensemble_bytes, network_without_weights, networks_without_weights


@dataclass(frozen=True)
class TargetsLeft:
    """What is left of a student's targets.

    Attributes:
        taught: recipe of the teacher.
        replicas: numbers of its replicas that answer.
        images: training images without an answer.
        passes: forward passes for these.
    """

    taught: Recipe
    replicas: tuple[int, ...]
    images: int
    passes: int

    def memory_bytes(self, classes: int) -> dict[str, int]:
        """Return the memory of a predictor of the teacher, on a CPU ("cpu") and on the node of its GPU ("gpu")."""
        return ensemble_bytes(self.taught, classes, self.replicas)

    def bytes_per_image(self, student: Recipe, classes: int) -> int:
        """Return the bytes of the answers for an image, which are kept by replica until the targets are written."""
        views = views_of_all((student.teacher_policy,), self.taught.crop_px)
        return bytes_per_image(len(self.replicas), 1, classes, len(views), len(view_groups(views)))

    def passes_of(self, student: Recipe, classes: int) -> float:
        """Return how many forward passes of the student take as many operations as those that are left."""
        networks = networks_without_weights(self.taught, classes, self.replicas)
        flops = sum(forward_flops(network, self.taught.crop_px) for network in networks)
        own_flops = len(networks) * forward_flops(network_without_weights(student, classes), student.crop_px)
        return self.passes * flops / own_flops


def targets_left(run: Storage, recipe: Recipe, images: int, sizes_px: Sequence[tuple[int, int]]) -> TargetsLeft | None:
    """Return what is left of the targets of ``images`` training images; None without a teacher, or if all are there.

    ``sizes_px`` are the widths and heights of some of them, which tell how many of their views are distinct.
    """
    if not recipe.teacher or run.exists(TARGETS):
        return None
    teacher = Storage.at(recipe.teacher)
    taught = read_recipe(teacher)
    replicas = tuple(finished_replicas(teacher, taught.replicas))
    present = set(run.below(TEACHER).below(PREDICTIONS).files(""))
    firsts = enumerate(range(0, images, IMAGES_PER_SHARD))
    left = sum(min(IMAGES_PER_SHARD, images - first) for shard, first in firsts if file_name(shard) not in present)
    views = mean_distinct_views(sizes_px, taught.crop_px, (recipe.teacher_policy,))
    return TargetsLeft(taught, replicas, left, round(left * views * len(replicas)))
