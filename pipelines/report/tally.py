"""Sums over all images that the report needs, read from the prediction files one file at a time.

Memory grows by some hundred bytes per image, and by 4 bytes x classes^2 for the confusions; probabilities themselves
are kept up to a fixed number.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.calibration import CalibrationTally
from googlenet.evaluation.crops import num_views
from googlenet.evaluation.diversity import DisagreementTally
from googlenet.evaluation.metrics import EnsembleTally
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.report.temperatures import KeptProbabilities
from pipelines.run.dataset import image_ids, image_sizes, read_manifest
from pipelines.run.directory import PREDICTIONS
from pipelines.run.predictions import EvaluatedEnsemble, Predicted, read_predictions
from pipelines.run.storage import Storage

NAMES_IN_MESSAGE = 5
MISTAKES = 25
# The geometry of an image's views takes a third of a millisecond; so many give the mean to within 2 of 144 views.
SIZES = 1_000

Floats = npt.NDArray[np.float64]


class Tally:
    """Sums over all images that the report needs.

    ``sizes_px`` are widths and heights of some of the images, of which many have equal views.
    """

    def __init__(self, ensemble: EvaluatedEnsemble, sizes_px: Sequence[tuple[int, int]]) -> None:
        """Start with nothing; ``sizes_px`` are the widths and heights of the images that are expected."""
        places = np.linspace(0, len(sizes_px) - 1, min(len(sizes_px), SIZES)).round().astype(int)
        self.sizes_px = [sizes_px[place] for place in places]
        replicas, policies = len(ensemble.replicas), len(ensemble.policies)
        self.seen: Counter[str] = Counter()
        self.averaged = EnsembleTally(replicas, policies)
        self.max_pooled = EnsembleTally(replicas, 1)
        self.calibration = [[CalibrationTally() for _ in range(policies)] for _ in range(replicas + 1)]
        self.kept = KeptProbabilities(ensemble, len(sizes_px))
        self.disagreement = DisagreementTally(replicas)
        self.wrong_by_view = np.zeros((replicas + 1, len(ensemble.views)), np.int64)
        self._wrong_by_group: list[npt.NDArray[np.float32]] = []
        self._confusion = np.zeros((len(ensemble.classes), len(ensemble.classes)), np.int32)
        self.mistakes: list[tuple[float, str, int, int, float]] = []

    def update(self, rows: Predicted) -> None:
        """Add the rows of a file."""
        labels, everyone = rows.labels, rows.probabilities.mean(axis=1, dtype=np.float64)
        self.averaged.update(rows.probabilities, labels)
        self.max_pooled.update(rows.max_pooled[:, :, None], labels)
        for replica, by_policy in enumerate(self.calibration):
            is_ensemble = replica == len(self.calibration) - 1
            for policy, calibration in enumerate(by_policy):
                calibration.update(
                    everyone[:, policy] if is_ensemble else rows.probabilities[:, replica, policy], labels
                )
        self.kept.update(rows)
        self.disagreement.update(rows.probabilities[:, :, -1])
        self.wrong_by_view += (rows.view_top1 != labels[:, None, None]).sum(axis=0)
        wrong = rows.group_top1 != labels[:, None, None]
        # For each group of views: the share of single replicas that are wrong, and whether the ensemble is.
        by_image = np.stack([wrong[:, :-1].mean(axis=1), wrong[:, -1]], axis=2)
        self._wrong_by_group.append(by_image.astype(np.float32))
        answers = everyone[:, -1].argmax(axis=1)
        np.add.at(self._confusion, (labels, answers), 1)
        self._keep_mistakes(rows, answers, everyone[:, -1])

    def _keep_mistakes(self, rows: Predicted, answers: npt.NDArray[np.int64], probabilities: Floats) -> None:
        for row in np.flatnonzero(answers != rows.labels):
            label, answer = int(rows.labels[row]), int(answers[row])
            sure, own = float(probabilities[row, answer]), float(probabilities[row, label])
            heapq.heappush(self.mistakes, (sure, rows.image_ids[row], label, answer, own))
            if len(self.mistakes) > MISTAKES:
                heapq.heappop(self.mistakes)

    def wrong_by_group(self) -> Floats:
        """Return (N, G, 2): share of single replicas that are wrong, and whether the ensemble is, by group of views."""
        return np.concatenate(self._wrong_by_group).astype(np.float64)

    def confusion(self) -> npt.NDArray[np.int32]:
        """Return (C, C): images by label and by answer of the ensemble."""
        return self._confusion


def tally_predictions(run: Storage, ensemble: EvaluatedEnsemble) -> Tally:
    """Add up all predictions of a run.

    Raises:
        UserError: predictions are missing, duplicated, of images not in the data set, or of another ensemble.
    """
    tally = Tally(ensemble, list(image_sizes(run, read_manifest(run).splits["val"]).values()))
    for predicted in checked_predictions(run, ensemble, tally.seen):
        tally.update(predicted)
    return tally


def checked_predictions(
    run: Storage, ensemble: EvaluatedEnsemble, seen: Counter[str], images: Storage | None = None
) -> Iterator[Predicted]:
    """Yield the rows of all prediction files of a run, one file at a time; raise at the end if they are incomplete.

    ``seen`` counts the images meanwhile; ``images`` is where the data set is, by default ``run``.

    Raises:
        UserError: as :func:`tally_predictions`.
    """
    storage = run.below(PREDICTIONS)
    for predicted in read_predictions(storage, storage.files(""), ensemble):
        _check_views(predicted, ensemble)
        seen.update(predicted.image_ids)
        yield predicted
    images = images or run
    _check_complete(seen, image_ids(images, read_manifest(images).splits["val"]))


def _check_views(predicted: Predicted, ensemble: EvaluatedEnsemble) -> None:
    if ensemble.budget:  # stopped early
        return
    wanted = np.array([num_views(policy) for policy in ensemble.policies])
    for row, replica, position in np.argwhere(predicted.views != wanted):
        views = count(int(wanted[position]), "view")
        raise UserError(
            f"{predicted.image_ids[row]} has {predicted.views[row, replica, position]} of {views} "
            f"from {ensemble.replicas[replica]}, whose weights may be damaged: restore them, delete "
            f"{PREDICTIONS}/ and run the same command again"
        )


def _check_complete(seen: Counter[str], wanted: Sequence[str]) -> None:
    known = set(wanted)
    problems = {
        "not predicted": [name for name in wanted if name not in seen],
        "predicted more than once": [name for name, times in seen.items() if times > 1],
        "not in the data set": sorted(seen.keys() - known),
    }
    complaints = [
        f"{count(len(names), 'image')} {what}: {some(names, NAMES_IN_MESSAGE)}"
        for what, names in problems.items()
        if names
    ]
    if complaints:
        again = f"Evaluate again, which keeps finished files; if that does not help, delete {PREDICTIONS}/ first."
        raise UserError(f"no report: {'; '.join(complaints)}. {again}")
