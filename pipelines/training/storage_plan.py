"""Plan of the storage: what a run writes besides a copy of its images."""

from googlenet.evaluation.crops import view_groups, views_of_all
from pipelines.job.console import size
from pipelines.run.dataset import Counts
from pipelines.run.predictions import BYTES_PER_NUMBER, bytes_per_image, sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.run.view_probabilities import kept_bytes
from pipelines.training.checkpoints import CHECKPOINTS_KEPT
from pipelines.training.targets_plan import TargetsLeft

# The weights, their average and the momentum.
COPIES_IN_CHECKPOINT = 3


def storage_line(recipe: Recipe, counts: Counts, parameters: int, targets: TargetsLeft | None) -> str:
    """Return what a run of networks with so many parameters writes; ``targets`` are those that are left of a student.

    The answers of a teacher are kept by replica until the targets are written: they may be most of it.
    """
    copies = CHECKPOINTS_KEPT * COPIES_IN_CHECKPOINT + 1
    checkpoints = recipe.replicas * parameters * BYTES_PER_NUMBER * copies
    views = views_of_all(sorted_policies(recipe.policies), recipe.crop_px)
    predictions = counts.val * bytes_per_image(
        recipe.replicas, len(recipe.policies), counts.classes, len(views), len(view_groups(views))
    )
    written = f"{size(checkpoints)} of checkpoints and weights, {size(predictions)} of predictions"
    if kept := kept_bytes(recipe.replicas, recipe.policies, counts.classes, counts.val):
        written += f", {size(kept)} of single views"
    if recipe.teacher:
        written += f", {size(counts.train * counts.classes * BYTES_PER_NUMBER)} of targets"
    if targets:
        answers = counts.train * targets.bytes_per_image(recipe, counts.classes)
        written += f", {size(answers)} of the teacher's answers until the targets are written"
    return f"storage: {written}, plus a copy of the images"
