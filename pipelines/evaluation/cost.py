"""Cost of an evaluation in time and storage."""

from pipelines.evaluation.arithmetic_trial import speed
from pipelines.evaluation.preflight import Preflight
from pipelines.job.console import count, duration, size
from pipelines.run.predictions import EvaluatedEnsemble, bytes_per_image


def cost_line(preflight: Preflight, ensemble: EvaluatedEnsemble, images: int, done: int, num_predictors: int) -> str:
    """Return the cost of the evaluation for display: forward passes, time, and size of the output."""
    views = len(ensemble.views)
    distinct = views if preflight.views_per_image is None else preflight.views_per_image
    per_image = distinct * len(ensemble.replicas)
    written = images * bytes_per_image(
        len(ensemble.replicas), len(ensemble.policies), len(ensemble.classes), len(ensemble.views), len(ensemble.groups)
    )
    seconds = (images - done) * per_image / (preflight.passes_per_second * num_predictors)
    resumed = f", {done} already done" if done else ""
    coinciding = f", {distinct:.0f} of them distinct" if round(distinct) < views else ""
    return (
        f"cost: {count(round(images * per_image), 'forward pass', 'forward passes')} "
        f"({count(images, 'image')}{resumed}, {count(views, 'view')}{coinciding}, "
        f"{count(len(ensemble.replicas), 'replica')}), "
        f"about {duration(seconds)} at {speed(preflight.passes_per_second)} x {count(num_predictors, 'predictor')}, "
        f"at most {size(written)} of predictions\n"
        f"arithmetic: {preflight.arithmetic} ({preflight.reason})"
    )
