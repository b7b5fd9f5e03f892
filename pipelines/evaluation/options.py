"""Options of an evaluation, and refusals of those that do not go together."""

import math
from dataclasses import dataclass
from typing import Literal

from googlenet.evaluation.cascade import BUDGETS
from googlenet.evaluation.crops import CROP_POLICIES, scales_px
from pipelines.errors import UserError
from pipelines.evaluation.predictors import PredictorOptions
from pipelines.run.dataset import BadImages
from pipelines.run.recipe import PrecisionChoice

DEFAULT_CROP_PX = 224


@dataclass(frozen=True)
class Arguments:
    """Evaluate an ensemble with 1, 10 and 144 crops, and write its report."""

    run_dir: str
    """Run directory of a training run; with --weights, a new one for this evaluation."""
    data: str = ""
    """Labelled images: a folder, an archive, or a data set by name; the default is the run's own validation images."""
    weights: tuple[str, ...] = ()
    """External weights, one per network: files, or the names bvlc, torchvision:googlenet, hf://OWNER/REPO[/FILE]."""
    classes: str = ""
    """File with the names of the class folders, one per line, in the order of the network's outputs; --data may lack
    some of the classes."""
    policies: tuple[int | str, ...] = CROP_POLICIES
    """1, 10, 144, scales in pixels such as 256+320 (36 crops at each), or best:24, the 24 views that help most on the
    run's validation images; without --data the run's recipe decides."""
    precision: PrecisionChoice = "auto"
    """'auto' uses bf16 for long work if it is fast and agrees with fp32; without --data the recipe decides."""
    gpus_per_predictor: float | None = None
    """GPUs that each predictor reserves; fractions share one, and 0 predicts on CPUs. The default is 1 if the cluster
    has any."""
    predictors: int | None = None
    """Predictors to start, also on nodes that join on demand; the default is as many as the nodes hold."""
    crop_px: int | None = None
    """Side of the network's input for --weights; the default is the value in the files, or 224."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded, and JPEGs with missing pixel data."""
    unlabelled: bool = False
    """The images of --data have no labels: write the ensemble's answers for each (answers/top5.csv, .parquet)."""
    calibrated: bool = True
    """With --unlabelled: calibrate the probabilities with the temperature that the run keeps, or that lies beside
    --weights; the order of the classes stays the same."""
    coverage: float | None = None
    """With --unlabelled: for each image, list a set of classes that contains the true class with this probability,
    such as 0.95. Otherwise: also judge sets with this coverage in the report, besides those with 0.9 and 0.95."""
    set_penalty: float = 0.0
    """Penalty added to a class's score for each rank after the first, such as 0.01; shortens long sets of classes,
    those of --coverage or those in the report."""
    budget: Literal["fast", "balanced", "best"] = "best"
    """With --unlabelled: stop adding views and replicas once the answer is confident enough. On at most 1 % (fast) or
    0.2 % (balanced) of the images, stopping early makes a right answer wrong; on more if the run has fewer than 99 or
    499 validation images. best never stops early."""
    soup: bool = False
    """Evaluate averages of the replicas' weights as well, on the run's validation images."""
    ood: str = ""
    """Folder of photographs that show none of the classes; the report says how well the ensemble's uncertainty
    separates them from the run's validation images."""
    output_dir: str = ""
    """Run directory for the evaluation of --data; the default is a folder in --run-dir, which is then written."""
    mlflow: bool = True
    """With --data or --weights: send the report to MLflow, as a run of its own beside the training run."""
    tracking_uri: str = ""
    """MLflow store or server; the default is MLFLOW_TRACKING_URI, else an SQLite store beside the directory written, or
    in ~/.googlenet-ensemble if that is in an object store."""

    def predictor_options(self) -> PredictorOptions:
        """Return the predictors that are asked for.

        Raises:
            UserError: there can be no such predictors.
        """
        return PredictorOptions(self.predictors, self.gpus_per_predictor)


def check_options(asked: Arguments) -> None:
    """Refuse values that are out of range, and options that need others or exclude them.

    Raises:
        UserError: there are such options.
    """
    try:
        scales_px(DEFAULT_CROP_PX if asked.crop_px is None else asked.crop_px)
    except ValueError as error:
        raise UserError(str(error)) from error
    _check_images(asked)
    _check_own_images(asked)
    _check_answers(asked)
    asked.predictor_options()


def _check_images(asked: Arguments) -> None:
    """Refuse options that are for other images, or other weights, than are given."""
    if (asked.classes or asked.crop_px is not None) and not asked.weights:
        raise UserError("--classes and --crop-px need --weights; a training run has its own")
    if asked.output_dir and (asked.weights or not asked.data):
        raise UserError("--output-dir needs --data FOLDER; an evaluation of --weights is written to --run-dir")
    for name, default in (("policies", CROP_POLICIES), ("precision", "auto"), ("unlabelled", False)):
        if getattr(asked, name) != default and not asked.data:
            raise UserError(f"--{name} needs --data FOLDER; for the run's own images its recipe decides")
    if asked.bad_images != "stop" and not (asked.data or asked.ood):
        raise UserError("--bad-images needs --data FOLDER or --ood FOLDER; the run's own images are prepared already")


def _check_own_images(asked: Arguments) -> None:
    """Refuse --ood and --soup together, or where the images or the weights are not a training run's own."""
    given = "--ood" if asked.ood else "--soup"
    if (asked.ood or asked.soup) and (asked.data or asked.weights):
        raise UserError(f"{given} is for a training run's own validation images: leave out --data and --weights")
    if asked.ood and asked.soup:
        raise UserError("--ood and --soup cannot be combined: run the command once with each")


def _check_answers(asked: Arguments) -> None:
    """Refuse options of answers where there are none, or none of this kind."""
    _check_budget(asked)
    if not (asked.calibrated or asked.unlabelled):  # a report shows both kinds of probabilities
        raise UserError("--no-calibrated only applies to answers: add --unlabelled, or leave it out")
    _check_coverage(asked)
    if not 0 <= asked.set_penalty < math.inf:
        raise UserError(f"--set-penalty must not be negative or infinite, got {asked.set_penalty:g}")
    if asked.set_penalty and asked.unlabelled and asked.coverage is None:
        raise UserError(
            f"--set-penalty {asked.set_penalty:g} shortens sets of classes: with --unlabelled it needs --coverage"
        )


def _check_budget(asked: Arguments) -> None:
    """Refuse a budget where nothing can stop early."""
    if asked.budget == BUDGETS[-1]:
        return
    given = f"--budget {asked.budget}"
    if not asked.unlabelled or asked.weights:
        raise UserError(f"{given} is for the answers of a training run: it needs --unlabelled and no --weights")
    if tuple(asked.policies) != CROP_POLICIES:
        raise UserError(f"{given} decides how many of the 144 views are computed: leave out --policies")
    if asked.coverage is not None:
        raise UserError(f"{given} cannot be combined with --coverage: sets were fitted on all views")


def _check_coverage(asked: Arguments) -> None:
    """Refuse a coverage that cannot be kept."""
    if asked.coverage is None:
        return
    if not 0 < asked.coverage < 1:
        raise UserError(f"--coverage must be between 0 and 1, such as 0.95, got {asked.coverage:g}")
    if float(f"{asked.coverage:g}") != asked.coverage:  # reports and metrics name it by these
        raise UserError(f"--coverage may have at most six digits, such as 0.95, got {asked.coverage!r}")
    if asked.unlabelled and asked.weights:
        raise UserError("--coverage of images without labels needs a training run: leave out --weights")
    if not asked.calibrated:
        raise UserError("--coverage needs the run's calibration: leave out --no-calibrated")


def way_out_of(asked: Arguments) -> str:
    """Return what to do about a directory that cannot be written."""
    if asked.output_dir or asked.weights:
        return f"choose another {'--output-dir' if asked.output_dir else '--run-dir'}"
    if asked.ood or asked.soup:  # they belong to the run's own images
        return "copy the run, and give the copy with --run-dir"
    data = "" if asked.data else "--data FOLDER "
    return f"add {data}--output-dir DIR to evaluate it into a directory of your own"
