"""Metadata of weights from other sources that are no crop size and no classes: refused with the file and the fix."""

from pathlib import Path

import pytest

from googlenet import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weight_files import to_safetensors
from pipelines.errors import UserError
from pipelines.evaluation.external_weights import read_external
from pipelines.evaluation.options import Arguments

CLASSES = ["a", "b", "c"]


def read(file: Path, **extra: object) -> tuple[int, tuple[str, ...]]:
    network = GoogLeNet(3, "bn", width=0.05)
    # As another program may write them: save_weights refuses some.
    file.write_bytes(to_safetensors(network, network.state_dict(), SCRATCH_PREPROCESSING, **extra))
    weights = read_external(Arguments("run", data="photos", weights=(str(file),)), None)
    return weights.crop_px, weights.classes


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"crop_px": "large"}, "the crop size 'large', expected a whole number"),
        ({"crop_px": 56.0}, r"the crop size 56\.0, expected a whole number"),
        ({"crop_px": True}, "the crop size True"),
        ({"classes": "abc"}, "'abc' as classes, expected names"),
        ({"classes": ["a", 2, "c"]}, r"\['a', 2, 'c'\] as classes, expected names"),
        ({"classes": {"a": 0, "b": 1, "c": 2}}, "as classes, expected names"),
    ],
)
def test_metadata_that_cannot_be_used_are_named_with_the_way_to_better_ones(
    tmp_path: Path, extra: dict[str, object], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"x\.safetensors: its metadata have .*{reason}.*; save it again with "):
        read(tmp_path / "x.safetensors", **extra)


def test_a_crop_size_and_names_of_classes_are_taken_from_the_file(tmp_path: Path) -> None:
    assert read(tmp_path / "x.safetensors", classes=CLASSES, crop_px=56) == (56, tuple(CLASSES))
    assert read(tmp_path / "y.safetensors") == (224, ())
