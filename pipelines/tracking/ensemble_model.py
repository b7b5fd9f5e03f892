"""The ensemble as MLflow's generic model. MLflow keeps this file beside the weights and runs it to load them.

Of this project it needs only ``googlenet``, which is kept beside it as well.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

DESCRIPTION = "ensemble"
CROP_POLICY = "crop_policy"
INPUTS = ("image", "path", "pixels")
SERVER = "mlflow.pyfunc.scoring_server.app"


class EnsembleModel(PythonModel):  # type: ignore[misc]
    """Classifies images, one per row: the five likeliest classes, their probabilities, and the replicas' agreement.

    Each row fills one of these columns, and all rows of a request to a server the same one: ``image``, the bytes of an
    image file (base64 in JSON); ``path``, a file on the machine where the model is loaded (refused by a server, which
    must not expose its files); ``pixels``, integers of shape (height, width, 3). Parameter ``crop_policy``: 1, 10, 144
    or one that the run was evaluated with. Inference is in fp32.
    """

    def load_context(self, context: Any) -> None:
        """Load the replicas."""
        from googlenet import Ensemble, load_weights

        about = json.loads(Path(context.artifacts[DESCRIPTION]).read_text(encoding="utf-8"))
        replicas = [load_weights(context.artifacts[name]) for name in about["replicas"]]
        self._policies = {str(policy): policy for policy in (1, 10, 144, *about["policies"])}
        self._default = str(about["policies"][-1])
        self._ensemble = Ensemble(replicas, about["classes"], about["crop_px"])

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer each row of ``model_input``.

        Raises:
            mlflow.exceptions.MlflowException: a row or the crop policy cannot be used; a server answers 400.
        """
        asked = str((params or {}).get(CROP_POLICY, self._default))
        if asked not in self._policies:
            raise _bad_request(f"{CROP_POLICY} must be one of {', '.join(self._policies)}, got {asked!r}")
        rows = pd.DataFrame(model_input).to_dict("records")
        if not rows:
            raise _bad_request(f"there are no rows; a row fills one of the columns {', '.join(INPUTS)}")
        return pd.DataFrame([self._answer(number, row, asked) for number, row in enumerate(rows)])

    def _answer(self, number: int, row: dict[str, Any], asked: str) -> dict[str, Any]:
        given = {name: row[name] for name in INPUTS if not _is_missing(row.get(name))}
        if len(given) != 1:
            raise _bad_request(f"row {number} must fill one of the columns {', '.join(INPUTS)}, got {len(given)}")
        [(kind, value)] = given.items()
        try:
            return self._ensemble.answers(_image(kind, value), self._policies[asked])
        except (ValueError, OSError) as error:
            raise _bad_request(f"row {number}: {error}") from error


def _image(kind: str, value: Any) -> Any:
    """Return the input of ``Ensemble.answers``: bytes, or an array."""
    if kind == "image":
        return bytes(value)
    if kind == "pixels":
        return np.array([[list(pixel) if np.ndim(pixel) else pixel for pixel in line] for line in value])
    if SERVER in sys.modules:
        raise ValueError("a server does not read paths; send the image's bytes")
    return Path(value).read_bytes()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _bad_request(message: str) -> Exception:
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    error: Exception = mlflow.exceptions.MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
    return error


mlflow.models.set_model(EnsembleModel())
