"""Fine classes: the parts of a class, and the folder that is made of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import experiments.fine_classes
from pipelines.errors import UserError


def test_parts_of_a_class_look_alike_and_are_about_as_large() -> None:
    """Two kinds of photographs, far apart along no axis of the coordinates: no part has both."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(90, 12)).astype(np.float32)
    rows[::3] += random.normal(scale=20, size=12)
    parts = list(experiments.fine_classes.parts_of(rows, 9))
    assert sorted(np.concatenate(parts)) == list(range(90))
    assert len(parts) == 9
    assert all(8 <= len(part) <= 12 for part in parts)
    assert sum(len({index % 3 == 0 for index in part}) > 1 for part in parts) <= 1, "more than one part has both kinds"


def test_a_folder_of_fine_classes_has_every_photograph_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shade in (("cat", 40), ("dog", 200)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), (shade, number * 30, 0)).save(tmp_path / "in" / name / f"{number}.png")
        for name_of_none in (".DS_Store", "notes.txt"):
            (tmp_path / "in" / name / name_of_none).write_bytes(b"no picture")
    experiments.fine_classes.main(experiments.fine_classes.Arguments(tmp_path / "in", tmp_path / "out", 3))
    of_part = {path: {photo.name for photo in path.iterdir()} for path in (tmp_path / "out").iterdir()}
    assert sorted(path.name for path in of_part) == [f"{name}_{part}" for name in ("cat", "dog") for part in range(3)]
    neighbours = [{"0.png", "1.png"}, {"2.png", "3.png"}, {"4.png", "5.png"}]  # the shades grow with the number
    assert all(of_part[path] in neighbours for path in of_part)
    assert all((path / name).read_bytes() for path, names in of_part.items() for name in names)
    assert "6 classes of 12 photographs" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists: choose another --out"):
        experiments.fine_classes.main(experiments.fine_classes.Arguments(tmp_path / "in", tmp_path / "out", 3))
    with pytest.raises(UserError, match="has 6 photographs, fewer than --parts 7"):
        experiments.fine_classes.main(experiments.fine_classes.Arguments(tmp_path / "in", tmp_path / "more", 7))
