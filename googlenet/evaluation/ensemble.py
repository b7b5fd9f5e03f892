"""An ensemble as one object: images in, averaged probabilities or the most likely classes out."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from googlenet.evaluation import pretrained
from googlenet.evaluation.calibration import LEAST_KEPT, LEAST_PROBABILITY
from googlenet.evaluation.cascade import BUDGETS
from googlenet.evaluation.conformal import UNPENALISED, SetRule, prediction_sets
from googlenet.evaluation.crops import CROP_POLICIES, Policy, policy_scales_px, scales_px, short_policy
from googlenet.evaluation.early_predictor import EarlyPredictor
from googlenet.evaluation.given_image import GivenImage, pixels_of
from googlenet.evaluation.kept_budget import EarlyStop, KeptBudget, named_policy
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.predictor import Predictor
from googlenet.evaluation.temperature import with_temperature
from googlenet.images.scaled_image import ScaledImage, scale_image
from googlenet.network.model import fold_batch_norm
from googlenet.network.weight_files import local_path, read_weights
from googlenet.network.weights import Replica, WeightsError
from googlenet.shapes import Float32, Float64, UInt8

TOP = 5
# Columns of answers with sets of classes.
SET, ABSTAIN = "set", "abstain"
# Column of answers that stop early.
PASSES = "passes"


class Ensemble:
    """K replicas that answer together, in fp32; an evaluation may use another precision, and reports it.

    Attributes:
        classes: C class names by label.
        crop_px: side of the networks' input.
        calibration: what was fitted on validation images for this ensemble, if it is known.
        budget: the order of its views and its cascade, if they are known.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        classes: Sequence[str],
        crop_px: int,
        device: str | torch.device = "cpu",
        calibration: KeptCalibration | None = None,
        budget: KeptBudget | None = None,
        cascade_order: Sequence[int] | None = None,
    ) -> None:
        """Make an ensemble of ``replicas``; ``cascade_order`` has their positions as the budget counts them.

        Raises:
            ValueError: there are no replicas, one has another number of outputs than there are classes, or the crop
                size has no views.
        """
        if not replicas:
            raise ValueError("an ensemble needs at least one replica")
        scales_px(crop_px)  # refused here, not with the first image
        # Of 224.0, caches would keep windows that 224, which is equal to it, cannot use.
        self.classes, self.crop_px = tuple(classes), int(crop_px)
        for number, replica in enumerate(replicas):
            # A classifier that was replaced has others than the network was made with.
            outputs = getattr(replica.model.classifier, "out_features", replica.model.num_classes)
            if outputs != len(self.classes):
                raise ValueError(
                    f"replica {number} has {outputs:,} outputs, but there are {len(self.classes):,} "
                    "names of classes: one is needed for each output, in their order"
                )
        self._replicas, self._device = tuple(replicas), device
        self.calibration, self.budget = calibration, budget
        self._cascade_order = range(len(replicas)) if cascade_order is None else cascade_order
        # The networks ready for use, once for all policies.
        self._any_predictor: Predictor | None = None

    @classmethod
    def load(cls, paths: Path | str | Iterable[Path | str], device: str | torch.device = "cpu") -> "Ensemble":
        """Load the ensemble of ``paths``, weight files of the replicas of one run, in any order; or of one path.

        What the run or the exported folder keeps for exactly these weights is loaded as well: the calibration, and the
        order of the views with the cascade. For some of the replicas it is the temperatures of ensembles of that size.

        Raises:
            WeightsError: a file cannot be used, or differs from the first one in its classes or its crop size; or it is
                a folder.
            FileNotFoundError: a file does not exist.
            ValueError: there are no files.
        """
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        pretrained.refuse_names(given)
        replicas, facts, digests, files = [], [], [], [local_path(path) for path in given]
        for path in files:
            pretrained.refuse_folder(path)
            try:
                data = path.read_bytes()
                digests.append(hashlib.sha256(data).hexdigest())
                stored = read_weights(data, path.name)
                replicas.append(stored.build())
                facts.append(pretrained.classes_and_crop(stored.extra))
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}") from error
            if (named := len(facts[-1][0])) != (outputs := replicas[-1].model.num_classes):
                raise WeightsError(f"{path}: it names {named:,} classes, but has {outputs:,} outputs")
            if facts[-1] != facts[0]:
                raise WeightsError(f"{path}: its classes or its crop size are not those of the first file")
        classes, crop_px = facts[0] if facts else ((), 0)
        budget = pretrained.budget_of(files, digests)
        order = budget.order_of(digests) if budget else None
        return cls(replicas, classes, crop_px, device, pretrained.calibration_of(files, digests), budget, order)

    @classmethod
    def from_pretrained(cls, place: str | Path, device: str | torch.device = "cpu") -> "Ensemble":
        """Load an ensemble that export_ensemble.py has exported.

        Args:
            place: its folder, or its repository on Hugging Face as ``hf://OWNER/REPO[@REVISION]``, which is downloaded
                once into that library's cache.
            device: device of the networks.

        Raises:
            HubError: the repository cannot be had.
            FileNotFoundError: the folder holds no exported ensemble, or lacks a file of it.
            WeightsError: a file cannot be used, or is not the one that was exported.
        """
        exported = pretrained.read_description(pretrained.local_folder(place))
        ensemble = cls.load(exported.files, device)
        exported.check(ensemble.classes, ensemble.crop_px)
        return ensemble

    def probabilities(self, image: GivenImage, policy: Policy = CROP_POLICIES[-1]) -> Float32[np.ndarray, "k c"]:
        """Return (K, C) float32: each replica's softmax outputs, averaged over the views of ``policy``.

        Args:
            image: the path or the bytes of an image file, the open file, a PIL image, or (H, W, 3) RGB or (H, W) uint8.
            policy: 1, 10, 144, scales in pixels such as ``"256+320"``, or ``"best:24"``, the 24 views that help most.

        Raises:
            OSError: the path cannot be read.
            ImageDecodeError: the file, the bytes or the image cannot be decoded, or are a JPEG with missing pixel data.
            ValueError: the pixels or the policy cannot be used; the limits are those of files.
        """
        policy = named_policy(policy, self.budget)
        scaled = self._scaled(image, policy)
        return self._predictor(policy).predict(scaled).probabilities[:, 0]

    def _scaled(self, image: GivenImage, policy: Policy) -> ScaledImage:
        scales = policy_scales_px(policy, self.crop_px)
        pixels = pixels_of(image)
        return ScaledImage(pixels.shape[1], pixels.shape[0], tuple(scale_image(pixels, scales)))

    def _predictor(self, policy: Policy) -> Predictor:
        if self._any_predictor is None:
            self._any_predictor = Predictor(self._replicas, self.crop_px, (policy,), self._device)
        return self._any_predictor.with_policies((policy,))

    def answers(
        self,
        image: GivenImage,
        policy: Policy = CROP_POLICIES[-1],
        *,
        calibrated: bool = True,
        coverage: float | None = None,
        budget: str = BUDGETS[-1],
    ) -> dict[str, Any]:
        """Return the five most likely classes and the replicas' agreement: see :func:`top_answers`.

        Args:
            image: as for :meth:`probabilities`.
            policy: as for :meth:`probabilities`.
            calibrated: whether probabilities get the temperature of the policy, if it is known; no answer changes.
            coverage: with it, ``set`` holds the true class with this probability, and ``abstain`` says whether it has
                more than one class.
            budget: ``"fast"`` or ``"balanced"`` stop adding views and replicas once the answer is sure enough, instead
                of another policy; ``passes`` is how many were computed, equal views of the image once.

        Raises:
            ValueError: sets of classes were not fitted for this policy, the budget is unknown or cannot be combined
                with ``coverage`` or this policy; or as :meth:`probabilities`.
        """
        policy = named_policy(policy, self.budget)
        if budget != BUDGETS[-1]:
            return self._early_answers(image, policy, budget, calibrated, coverage)
        (temperature, least), kept = self._temperature(policy), self.calibration
        limit = kept.threshold(policy, coverage) if kept and coverage is not None else None
        if coverage is not None and (limit is None or not calibrated):
            raise ValueError(f"coverage needs a calibration for the policy {short_policy(policy)}, and calibrated=True")
        if kept and coverage is not None and (missing := kept.images_missing_for(coverage)):
            raise ValueError(f"a coverage of {coverage:g} {missing}")
        probabilities = self.probabilities(image, policy)
        return top_answers(probabilities, self.classes, temperature if calibrated else 1.0, limit, least=least)

    def _temperature(self, policy: Policy) -> tuple[float, float]:
        """Return the temperature of a policy, 1 if none was fitted, and the least probability that it knows."""
        if self.calibration and (fitted := self.calibration.temperature(len(self._replicas), policy)):
            return fitted, LEAST_PROBABILITY
        return (self.budget.temperature(policy) if self.budget else None) or 1.0, LEAST_KEPT

    def _early_answers(
        self, image: GivenImage, policy: Policy, budget: str, calibrated: bool, coverage: float | None
    ) -> dict[str, Any]:
        if budget not in BUDGETS:
            raise ValueError(f"there is no budget {budget!r}: the budgets are {', '.join(BUDGETS)}")
        if self.budget is None or coverage is not None:
            reason = "needs a cascade that was kept" if self.budget is None else "cannot be combined with coverage"
            raise ValueError(f"the budget {budget} {reason}")
        if policy != CROP_POLICIES[-1]:
            raise ValueError(f"the budget {budget} decides how many of the 144 views are computed: leave out policy")
        early = EarlyPredictor(self._predictor(policy), EarlyStop(self.budget, budget), self._cascade_order)
        stopped = early.stopped(self._scaled(image, policy))
        temperature = stopped.temperature if calibrated else 1.0
        answers = top_answers(stopped.probabilities, self.classes, temperature, least=LEAST_KEPT)
        return {**answers, PASSES: stopped.passes}


def answer_columns(classes: int) -> list[str]:
    """Return the keys of :func:`top_answers`, in order."""
    places = range(1, min(TOP, classes) + 1)
    return [*(f"{kind}_{place}" for place in places for kind in ("answer", "probability")), "agreement"]


def top_answers(
    probabilities: Float32[np.ndarray, "k c"],
    classes: Sequence[str],
    temperature: float = 1.0,
    limit: float | None = None,
    rule: SetRule = UNPENALISED,
    least: float = LEAST_PROBABILITY,
) -> dict[str, Any]:
    """Return the five most likely classes of an image by the mean of K replicas.

    Args:
        probabilities: (K, C), one row for each replica.
        classes: C names.
        temperature: of the mean; it changes no answer.
        limit: threshold of the set of classes that may be right, if it is asked for.
        rule: penalty on the ranks of the set's classes, with which the threshold was fitted.
        least: probability that smaller ones count as with the temperature.

    Returns:
        ``answer_1``, ``probability_1`` and so on, float32 precision; and ``agreement``, the share of the replicas whose
        own first answer is the ensemble's. With a ``limit``, also ``set``, the names of the classes, the likeliest
        first, and ``abstain``, whether they are more than one.

    Raises:
        ValueError: a probability is not finite; of NaN, every class would be the likeliest.
    """
    if damaged := np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist():
        raise ValueError(
            f"replica {damaged[0]} (counted from 0) returned values that are not finite: its weights or its "
            "preprocessing are damaged; load them from their file again"
        )
    means = probabilities.mean(axis=0, dtype=np.float64)
    order = np.argsort(-means, kind="stable")
    shown = means if temperature == 1 else with_temperature(means, temperature, least)
    agreement = (probabilities.argmax(axis=1) == order[0]).mean()
    values: list[Any] = []
    for label in order[:TOP]:
        values += [classes[label], float(np.float32(shown[label]))]
    answers = dict(zip(answer_columns(len(classes)), [*values, float(np.float32(agreement))], strict=True))
    if limit is not None:
        inside = prediction_sets(shown[None], limit, rule)[0]
        names = [classes[label] for label in order if inside[label]]
        answers |= {SET: names, ABSTAIN: len(names) > 1}
    return answers


class PixelClassifier(nn.Module):
    """Mean of the replicas' softmax outputs on the same crops, including preprocessing.

    Input (N, 3, crop_px, crop_px) uint8 RGB; output (N, C) float32.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        super().__init__()
        self._preprocessings = [replica.preprocessing for replica in replicas]
        self.networks = nn.ModuleList(fold_batch_norm(replica.model) for replica in replicas)
        self.eval()

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n c"]:
        """(N, 3, crop_px, crop_px) to (N, C)."""
        outputs = [
            network(prepare(images)).logits.softmax(dim=1)
            for prepare, network in zip(self._preprocessings, self.networks, strict=True)
        ]
        return torch.stack(outputs).mean(dim=0)


class CalibratedClassifier(nn.Module):
    """A classifier of crops with a second output: its probabilities with a temperature, as for one crop an image.

    The second output is float64: in float32, the logarithms of two probabilities that nearly tie may be equal, and the
    most likely class another one.
    """

    def __init__(self, classifier: PixelClassifier, temperature: float) -> None:
        super().__init__()
        self.classifier, self._temperature = classifier, temperature
        self.eval()

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float32[Tensor, "n c"], Float64[Tensor, "n c"]]:
        """(N, 3, crop_px, crop_px) to (N, C), as averaged and calibrated."""
        probabilities = self.classifier(images)
        logarithms = probabilities.double().clamp_min(LEAST_PROBABILITY).log()
        return probabilities, (logarithms / self._temperature).softmax(dim=1)
