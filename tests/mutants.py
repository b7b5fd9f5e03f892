"""Mutation tests: the crucial code is broken in one place at a time, and a test has to fail.

    python -m tests.mutants
    python -m tests.mutants --only resume

Each mutant is a copy of the project with one piece of text replaced. The tests named with it have to fail. The command,
which is in mutant_trials.py, exits with an error if one survives; test_mutants.py checks that each still fits the code.
"""

import sys
from dataclasses import dataclass

ON_CLUSTER = {
    "ledger: predictions of other weights are repeated",
    "ledger: existing predictions are not repeated",
    "ledger: the last shard is complete",
}


@dataclass(frozen=True)
class Mutant:
    """Replacement of ``old`` by ``new`` in ``file``, on which ``tests``, a file in tests/, has to fail."""

    claim: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def needs_cluster(self) -> bool:
        """Whether only tests on a Ray cluster can notice the mutant."""
        return self.claim in ON_CLUSTER


def mutants() -> list[Mutant]:
    """Return the mutants of weights, crops, averaging, metrics, sampling, training, resume, ledger and files."""
    crops, views = (
        ("googlenet/evaluation/crops.py", "googlenet/evaluation/test_crops.py"),
        ("googlenet/evaluation/views.py", "googlenet/evaluation/test_crops.py"),
    )
    scaling = ("googlenet/images/scaled_image.py", "googlenet/evaluation/test_crops.py")
    predictor = ("googlenet/evaluation/predictor.py", "googlenet/evaluation/test_predictor.py")
    averages = ("googlenet/evaluation/averages.py", "googlenet/evaluation/test_predictor.py")
    stem = ("googlenet/network/shared_stem.py", "googlenet/network/test_shared_stem.py")
    order = ("googlenet/evaluation/view_order.py", "googlenet/evaluation/test_view_order.py")
    early = ("googlenet/evaluation/cascade.py", "googlenet/evaluation/test_early_predictor.py")
    soup = ("googlenet/evaluation/soup.py", "googlenet/evaluation/test_soup.py")
    distillation = ("googlenet/training/distillation.py", "googlenet/training/test_distillation.py")
    metrics = ("googlenet/evaluation/metrics.py", "googlenet/evaluation/test_metrics.py")
    two_way = ("googlenet/evaluation/two_way.py", "googlenet/evaluation/test_two_way.py")
    sampling = ("googlenet/training/augment.py", "googlenet/training/test_augment.py")
    alternating = ("googlenet/training/augment.py", "googlenet/training/test_crop_sizes.py")
    patches = ("googlenet/training/patches.py", "googlenet/training/test_patches.py")
    variance = ("googlenet/network/unit_variance.py", "googlenet/network/test_unit_variance.py")
    batches = ("googlenet/training/batches.py", "googlenet/training/test_batches.py")
    loop, optim, rate = (
        ("googlenet/training/loop.py", "googlenet/training/test_loop.py"),
        ("googlenet/training/optim.py", "googlenet/training/test_loop.py"),
        ("googlenet/training/learning_rate.py", "googlenet/training/test_loop.py"),
    )
    resume = ("pipelines/training/replica.py", "pipelines/training/test_replica.py")
    checkpoints = ("pipelines/training/checkpoints.py", "pipelines/training/test_checkpoints.py")
    ledger = ("pipelines/evaluation/sharded_prediction.py", "pipelines/evaluation/test_sharded_prediction.py")
    tally = ("pipelines/report/tally.py", "pipelines/report/test_report.py")
    meaning = "googlenet/images/test_pixel_meaning.py"
    caffe = ("googlenet/network/caffe_files.py", "googlenet/network/test_caffe_files.py")
    download = ("googlenet/network/download.py", "googlenet/network/test_download.py")
    listed = [
        (
            "pictures: a transparent colour is white",
            ("googlenet/images/decoding.py", meaning),
            "] = BACKGROUND_RGB",
            "] = pixels[0, 0]",
        ),
        (
            "pictures: white may be zero",
            ("googlenet/images/grey_levels.py", meaning),
            "scaled = 255 - scaled",
            "scaled = +scaled",
        ),
        (
            "pictures: zeros are no pixels",
            ("googlenet/images/jpeg_damage.py", "googlenet/images/test_jpeg_damage.py"),
            "not warning and unused_zeros",
            "not warning or unused_zeros",
        ),
        (
            "pictures: damaged metadata cost nothing",
            ("googlenet/images/pixel_file.py", "googlenet/images/test_damaged_metadata.py"),
            "completed_jpeg(jpeg) or jpeg.data",
            "data",
        ),
        ("weights: a classifier is turned where it is stored so", caffe, 'not attributes.get("transB")', "False"),
        ("weights: the heads are on their own modules", caffe, "loss{number}/fc", "loss{3 - number}/fc"),
        ("weights: a download has its digest", download, "digest.startswith(file.sha256)", "True"),
        ("crops: the scales are the paper's four", crops, "9 * seventh", "10 * seventh"),
        ("crops: the middle square is in the middle", crops, "slack // 2", "slack // 3"),
        ("crops: the last square ends with the image", crops, "slack // 2, slack)", "slack // 2, slack - 1)"),
        ("crops: a scaled side is rounded to the nearest pixel", scaling, "* scale_px + shorter)", "* scale_px)"),
        ("crops: the centre crop is in the centre", crops, "middle = far // 2", "middle = far // 2 + 1"),
        ("crops: squares of portrait images lie one below another", crops, "else (0, offset)", "else (offset, 0)"),
        ("crops: all views have equal weight", crops, "minlength=len(index)) / count", "minlength=len(index)) / 100"),
        ("crops: ten crops are the corners and the centre", crops, 'view.kind != "resized"', 'view.kind != "centre"'),
        ("crops: views are mirrored horizontally", views, "upright[scale_px].flip(1)", "upright[scale_px].flip(0)"),
        ("averaging: softmax outputs are averaged, not logits", predictor, ".double().softmax(dim=2)", ".double()"),
        ("averaging: each policy has its own views", averages, "(shares.policies @ p", "(shares.policies[:1] @ p"),
        (
            "averaging: the ensemble is the mean",
            averages,
            "probabilities.mean(dim=0, keepdim=True)",
            "probabilities[:1]",
        ),
        ("averaging: a crop sees its own padding", stem, "slice(0, 3), slice(1, 5)", "slice(0, 3), slice(0, 4)"),
        ("averaging: outputs of padding are dropped", predictor, ".logits[: len(batch)]", ".logits"),
        (
            "averaging: views without finite outputs are not counted",
            averages,
            "probabilities.isfinite()",
            "(probabilities.isfinite() | True)",
        ),
        ("metrics: top-5 means five answers", metrics, "TOP_K = (1, 5)", "TOP_K = (1, 4)"),
        ("metrics: ties go to the first class", metrics, "< labels[:, None]", "<= labels[:, None]"),
        (
            "metrics: an ensemble adds its own members",
            metrics,
            "probabilities[:, members[-1]]",
            "probabilities[:, members[0]]",
        ),
        ("metrics: an interval covers 95 %", metrics, "CONFIDENCE_PERCENT = 95.0", "CONFIDENCE_PERCENT = 90.0"),
        (
            "metrics: images are drawn with replacement",
            metrics,
            "generator.multinomial(images, np",
            "generator.multinomial(1, np",
        ),
        ("metrics: replicas are drawn with replacement", two_way, "multinomial(replicas, np", "multinomial(1, np"),
        ("metrics: few replicas need Student's t", two_way, "_students_t(normal, replicas - 1)", "normal"),
        ("sampling: area is drawn from its range", patches, "generator.uniform(smallest, largest)", "largest"),
        ("sampling: the aspect is one at which the area fits", patches, "uniform(*fitting)", "uniform(*aspects)"),
        ("sampling: mirrors alternate", alternating, "integers(2) + epoch", "integers(2) + 1"),
        (
            "initial weights: every output has variance 1",
            variance,
            "return output / deviations",
            "return output + 0 * deviations",
        ),
        (
            "sampling: half of the samples are mirrored",
            sampling,
            "sampling.mirror and generator",
            "not sampling.mirror and generator",
        ),
        ("sampling: each epoch has its own samples", batches, '"sampling", epoch, index', '"sampling", 0, index'),
        (
            "sampling: each epoch has its own order",
            ("googlenet/training/epoch_order.py", "googlenet/training/test_epoch_order.py"),
            '"order", epoch)',
            '"order", 0)',
        ),
        (
            "sampling: shares of a batch are disjoint",
            ("googlenet/training/data_parallel.py", "googlenet/training/test_data_parallel.py"),
            "items[self.rank :: self.workers]",
            "items[:: self.workers]",
        ),
        ("training: the rate falls by 4 %", rate, "step_factor: float = 0.96", "step_factor: float = 0.94"),
        ("training: auxiliary losses have weight 0.3", loop, "AUX_LOSS_WEIGHT = 0.3", "AUX_LOSS_WEIGHT = 0.4"),
        ("training: the average follows the weights", optim, "share = 1 / horizon", "share = 0.5 / horizon"),
        ("training: several steps are averaged at a time", optim, "1 / horizon) ** steps", "1 / horizon)"),
        ("distillation: the gradient keeps its size", distillation, "* self.temperature**2", "* self.temperature"),
        ("distillation: the teacher is softened", distillation, "log() / temperature", "log()"),
        ("distillation: the student is softened", distillation, "float() / self.temperature", "float()"),
        (
            "soup: it is chosen on the images of its group",
            soup,
            "known[soups[number]][group].sum()",
            "known[soups[number]].sum()",
        ),
        ("soup: statistics are a mean over all batches", soup, "layer.momentum = None", "layer.momentum = 0.1"),
        ("views: of equal errors, the likelihood decides", order, "np.lexsort((losses", "np.lexsort((0 * losses"),
        ("views: the higher likelihood is the better one", order, "losses = -np.log(", "losses = np.log("),
        ("views: of equal sums, the lower class wins", order, "is_lower & (sums ==", "~is_lower & (sums =="),
        ("views: a class that can only tie may win", order, "highest >= (total", "highest > (total"),
        (
            "cascade: answers in use are as sure as they were judged",
            early,
            "temperature, LEAST_KEPT).max",
            "temperature).max",
        ),
        ("soup: weights are averaged", soup, "mean(dim=0)", "sum(dim=0)"),
        ("training: each step has its own dropout", loop, '"dropout", state.step', '"dropout", 0'),
        (
            "training: workers have the gradients of one",
            ("googlenet/training/loop.py", "googlenet/training/test_data_parallel.py"),
            "settings.share.workers * total_loss",
            "1 * total_loss",
        ),
        ("resume: momentum is restored", loop, "if name in momentum:", "if name in {}:"),
        ("resume: the average is restored", loop, 'self.average.load(_below("average", tensors))', "pass"),
        (
            "resume: dropout continues where it stopped",
            loop,
            '"dropout", state.step',
            '"dropout", id(state)',
        ),
        (
            "resume: an epoch continues at its step",
            resume,
            "first_step = max(0, step - epoch * steps_per_epoch)",
            "first_step = 0",
        ),
        ("resume: the history is kept", resume, 'checkpoint.progress["history"], checkpoint', "[], checkpoint"),
        (
            "resume: a damaged checkpoint is skipped",
            checkpoints,
            'if rest != f"{_digest(data)}{SUFFIX}":',
            "if False:",
        ),
        ("resume: the newest checkpoint is taken", checkpoints, "reversed(self._names())", "self._names()"),
        ("ledger: predictions of other weights are repeated", ledger, "== task.ensemble:", "is not None:"),
        ("ledger: existing predictions are not repeated", ledger, "if shard not in present]", "]"),
        (
            "ledger: the last shard is complete",
            ledger,
            "(shard + 1) * IMAGES_PER_SHARD, images)",
            "(shard + 1) * IMAGES_PER_SHARD, images - 1)",
        ),
        (
            "ledger: a missing image is named",
            tally,
            '"not predicted": [name for name in wanted if name not in seen]',
            '"not predicted": []',
        ),
        ("ledger: all views of all replicas are required", tally, "views !=", "views >"),
        (
            "files: a file is written atomically",
            ("pipelines/run/storage.py", "pipelines/run/test_storage.py"),
            'f"{target}{PARTIAL}{uuid.uuid4().hex[:8]}"',
            "target",
        ),
    ]
    return [Mutant(claim, place[0], old, new, place[1]) for claim, place, old, new in listed]


if __name__ == "__main__":
    from tests.mutant_trials import try_all

    sys.exit(try_all())
