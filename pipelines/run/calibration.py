"""The calibration that a run keeps for its ensemble in calibration.json."""

from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.run.directory import CALIBRATION
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage


def read_calibration(run: Storage, ensemble: EvaluatedEnsemble) -> KeptCalibration | None:
    """Return the calibration that a run keeps for this very ensemble; None if it keeps none."""
    if not run.exists(CALIBRATION):
        return None
    kept = KeptCalibration.from_dict(run.read_json(CALIBRATION))
    return kept if kept.weights_digests == ensemble.weights_digests else None


def write_calibration(run: Storage, calibration: KeptCalibration) -> None:
    """Write calibration.json."""
    run.write_json(CALIBRATION, calibration.to_dict())
