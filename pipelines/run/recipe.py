"""The recipe, a frozen dataclass with every setting that decides a result.

Settings that do not decide the result (number of CPUs, tracking server) are options of the commands and may change
between two starts of the same run.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

from googlenet.evaluation.crops import CROP_POLICIES, Policy, policy_scales_px, scales_px
from googlenet.network.arithmetic import Precision
from googlenet.network.choices import LRN, MAX_WIDTH, Initialisation, Variant
from googlenet.training.augment import INTERPOLATIONS, Sampling
from googlenet.training.crop_sizes import growing_crops_px
from googlenet.training.learning_rate import LearningRate, Schedule
from googlenet.training.patches import AreaSampling
from pipelines.errors import UserError
from pipelines.run.field_values import is_finite, with_floats

# An average over all steps, and gradients that are never clipped.
MAY_BE_INFINITE = ("polyak_epochs", "max_gradient_norm")
# Five halvings must leave something.
MIN_CROP_PX = 35
# The report judges every ensemble that replicas form: 4,095 of twelve, and twice as many with each further one. Runs of
# earlier versions may have more, and are read.
MOST_REPLICAS = 12
# Name of the recipe that needs a teacher.
DISTIL = "distil"
PreprocessingName = Literal["caffe", "scratch"]
# A precision, or the fastest one that a trial finds good enough.
PrecisionChoice = Literal["auto", Precision]


@dataclass(frozen=True)
class Recipe:
    """Every setting that decides the result of a run. Defaults are the paper's, or Caffe's where the paper has none."""

    name: str = "paper"
    """Label of the recipe; has no effect on the result."""

    # Data
    data: str = ""
    """Image folder, archive, or data set by name (hf://datasets/OWNER/NAME); 'embedded' for the built-in digits."""
    data_seed: int = 0
    """Seed of the embedded data set."""
    val_percent: float = 10.0
    """Percentage of each class held out for validation if the folder has no split."""
    images_per_shard: int = 256
    """Images per Parquet shard."""
    stored_short_side_px: int | None = None
    """Shrink larger images to this shorter side and store them as JPEG of quality 95; None keeps the original bytes."""

    # Network
    crop_px: int = 224
    """Side of the network's input in pixels, a multiple of 7; the test scales are 8/7 to 11/7 of it."""
    variant: Variant = "paper"
    """'paper' (LRN, 5x5, no BN) or 'bn' (torchvision's)."""
    width: float = 1.0
    """Factor applied to every channel count."""
    wide_replica_width: float | None = None
    """Width of the last replica, if it is to be wider than the others as in the paper."""
    aux_heads: bool = True
    """Train with the two auxiliary classifiers."""
    lrn: LRN = "caffe"
    """Constants of the local response normalisation in the variant 'paper', or 'none'."""
    dropout: float = 0.4
    """Dropout rate before the classifier."""
    aux_dropout: float = 0.7
    """Dropout rate in the auxiliary classifiers."""
    initialisation: Initialisation = "xavier"
    """Scheme for the initial weights."""
    preprocessing: PreprocessingName = "caffe"
    """'caffe' (BGR, mean subtraction) or 'scratch' (RGB, mean and standard deviation); init_weights override it."""
    init_weights: str = ""
    """Weights to start from, with their preprocessing: bvlc, torchvision:googlenet, hf://OWNER/REPO/FILE, or a file."""

    # Ensemble
    replicas: int = 7
    """Number of replicas."""
    weights_seed: int = 0
    """Seed of the initial weights."""
    shared_initial_weights: bool = True
    """Start all replicas from the same weights, as in the paper; otherwise replica k uses weights_seed + k."""
    sampling_seed: int = 0
    """Seed of the order and samples; replica k uses sampling_seed + k."""
    workers_per_replica: int = 1
    """Data-parallel workers per replica, which split each batch; changes the result by rounding only."""
    min_workers_per_replica: int | None = None
    """Least number of workers to train with while the cluster has no room for all; None waits for all."""
    training_precision: PrecisionChoice = "auto"
    """Precision of the training; 'auto' uses tf32 or bf16 for long runs if the hardware is faster with it."""

    # Sampling
    areas: tuple[tuple[float, float], ...] = ((0.08, 1.0),)
    """Ranges of a sample's share of the image's area; replica k uses range k modulo their number."""
    area_sampling: AreaSampling = "even"
    """'even' draws the area evenly, then a fitting aspect; 'torchvision' redraws both until they fit: few are large."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of a sample's aspect ratio, width over height."""
    interpolations: tuple[str, ...] = tuple(INTERPOLATIONS)
    """Interpolations, drawn with equal probability."""
    mirror: bool = True
    """Mirror half of the samples."""
    alternate_mirror: bool = False
    """Mirror each image in every other epoch instead of by chance."""
    first_crop_px: int | None = None
    """Side of the training crops at first; they grow to crop_px in four steps. None for crop_px throughout."""
    photometric: tuple[float, float] | None = (0.5, 1.5)
    """Range of the factors of contrast, brightness and colour; None for no distortion."""
    lighting_sigma: float = 0.1
    """Standard deviation of the lighting noise; 0 for none."""

    # Optimisation
    epochs: int = 250
    """Passes over the training images."""
    batch_size: int = 32
    """Images per step."""
    learning_rate: float = 0.01
    """Learning rate before any decay."""
    schedule: Schedule = "paper"
    """'paper' (-4 % every 8 epochs) or 'cosine'."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from zero."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 2e-4
    """L2 penalty on weights."""
    decay_biases: bool = True
    """Apply weight decay to biases and normalisation scales as well."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    max_gradient_norm: float | None = None
    """Clip gradients to this norm; None for no clipping."""
    polyak_epochs: float = 8.0
    """Horizon of the weight average, in epochs."""
    dead_head_epochs: float = 1.0
    """Epochs (at least 100 steps) after the warm-up before a classifier that only guesses raises an alarm; 0: never."""
    on_dead_head: Literal["warn", "stop"] = "warn"
    """Reaction to the alarm: a warning, or the end of that replica."""

    # Distillation
    teacher: str = ""
    """Run directory of a finished ensemble whose averaged answers on the training images are learnt (recipe distil)."""
    teacher_policy: int | str = 10
    """Crop policy of the teacher's answers: 1, 10, 144, scales in pixels, or best:24, the views that help it most."""
    teacher_temperature: float = 2.0
    """Temperature that softens the teacher's answers and the student's in the loss."""
    label_weight: float = 0.5
    """Share of the labels in the loss of a student; the teacher's answers have the rest."""

    # Evaluation
    policies: tuple[int | str, ...] = CROP_POLICIES
    """Crop policies to evaluate: 1, 10, 144, or scales in pixels such as 256+320, with 36 crops at each."""
    precision: PrecisionChoice = "auto"
    """Precision of the evaluation; 'auto' uses bf16 for long work if it is fast and its answers match fp32."""

    def __post_init__(self) -> None:
        # One value has one spelling, wherever the recipe comes from: code says warmup_epochs=1, JSON 1.0.
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, with_floats(getattr(self, name), kind))
            value = getattr(self, name)
            if not is_finite(value) and not (name in MAY_BE_INFINITE and value == math.inf):
                raise UserError(f"{name} must be finite, got {value}")
        self._check_ranges()
        if self.least_workers > self.workers_per_replica:
            raise UserError(
                f"min_workers_per_replica must be at most the {self.workers_per_replica} workers_per_replica, "
                f"got {self.min_workers_per_replica}"
            )
        try:
            scales_px(self.crop_px)
            for replica in range(len(self.areas)):
                self.sampling(replica)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _check_ranges(self) -> None:
        at_least = {
            "workers_per_replica": 1, "min_workers_per_replica": 1, "replicas": 1, "epochs": 1, "batch_size": 1,
            "images_per_shard": 1, "stored_short_side_px": 1, "width": 1e-3, "data_seed": 0, "weights_seed": 0,
            "sampling_seed": 0, "warmup_epochs": 0, "weight_decay": 0, "polyak_epochs": 0, "dead_head_epochs": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        self._check_shares()
        if not self.areas:
            raise UserError("areas must hold at least one range")
        if self.init_weights and self.wide_replica_width:
            raise UserError("wide_replica_width cannot be combined with init_weights, which have a single width")
        if self.initialisation == "lsuv" and self.variant == "bn":
            raise UserError("initialisation lsuv is for the variant paper: batch normalisation rescales every layer")
        check_policies(self.policies, self.crop_px)
        if self.first_crop_px is not None and not MIN_CROP_PX <= self.first_crop_px <= self.crop_px:
            raise UserError(
                f"first_crop_px must be between {MIN_CROP_PX} and crop_px {self.crop_px}, got {self.first_crop_px}"
            )

    def _check_shares(self) -> None:
        for name in ("dropout", "aux_dropout", "momentum", "label_smoothing", "label_weight"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm", "wide_replica_width", "teacher_temperature"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"{name} must be positive, got {value}")
        for name in ("width", "wide_replica_width"):
            if (getattr(self, name) or 0) > MAX_WIDTH:
                raise UserError(f"{name} must be at most {MAX_WIDTH}, got {getattr(self, name)}")
        if not 0 < self.val_percent < 100:
            raise UserError(f"val_percent must be between 0 and 100, got {self.val_percent}")

    def sampling(self, replica: int) -> Sampling:
        """Return the sampling settings of replica ``replica``."""
        area = self.areas[replica % len(self.areas)]
        return Sampling(
            area,
            self.aspect,
            self.interpolations,
            self.mirror,
            self.photometric,
            self.lighting_sigma,
            self.area_sampling,
            self.alternate_mirror,
        )

    def training_crops_px(self) -> tuple[int, ...]:
        """Return the side of the training crops in each epoch."""
        return growing_crops_px(self.first_crop_px or self.crop_px, self.crop_px, self.epochs)

    def rate(self) -> LearningRate:
        """Return the learning rate by epoch."""
        return LearningRate(self.learning_rate, self.schedule, self.warmup_epochs, self.epochs)

    @property
    def least_workers(self) -> int:
        """Minimum number of workers with which a replica trains."""
        return self.min_workers_per_replica or self.workers_per_replica

    def replica_width(self, replica: int) -> float:
        """Return the width factor of replica ``replica``."""
        is_wide = self.wide_replica_width is not None and replica == self.replicas - 1
        return self.wide_replica_width if is_wide and self.wide_replica_width else self.width

    def replica_sampling_seed(self, replica: int) -> int:
        """Return the seed of the order and the samples of replica ``replica``."""
        return self.sampling_seed + replica

    def replica_weights_seed(self, replica: int) -> int:
        """Return the seed of the initial weights of replica ``replica``."""
        return self.weights_seed + (0 if self.shared_initial_weights else replica)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON would give them back: lists instead of tuples."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def ensembles_line(networks: int) -> str:
    """Return why so many networks are too many, for messages."""
    return f"the report judges every ensemble that they form, which would be {2**networks - 1:,}"


def check_policies(policies: Sequence[Policy], crop_px: int) -> None:
    """Refuse crops too small for the depth of the network, and crop policies that are unknown or listed twice.

    Raises:
        UserError: ``crop_px`` is too small, or ``policies`` holds an unknown policy or one twice.
    """
    if crop_px < MIN_CROP_PX:
        raise UserError(f"crop_px must be at least {MIN_CROP_PX}, got {crop_px}")
    if not policies or len(set(map(str, policies))) < len(policies):
        raise UserError(f"policies must list at least one crop policy, each once, got {tuple(policies)}")
    try:
        for policy in policies:
            if policy not in CROP_POLICIES and str(policy) in map(str, CROP_POLICIES):
                raise UserError(f"policies: {policy} must be a number of crops, got the string {policy!r}")
            policy_scales_px(policy, crop_px)
    except ValueError as error:
        raise UserError(str(error)) from error
