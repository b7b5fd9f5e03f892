"""The links of the documentation, and a page for every claim in RESULTS.md."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import googlenet.evaluation.ensemble  # before the tests: importing PyTorch starts a process
from googlenet.training.micro_batch import MICRO_BATCH_BYTES
from pipelines.data.sources import images_to_train_on
from pipelines.errors import TryAgainError, UserError
from pipelines.job.command_line import NO_READER_EXIT_CODE, STORAGE_EXIT_CODE
from pipelines.job.interpreter import INTERRUPTED_EXIT_CODE
from pipelines.run import directory
from pipelines.run.directory import ANSWERS_CSV, ReplicaFiles, evaluation_folder
from pipelines.train_ensemble import INCOMPLETE_EXIT_CODE, LIMIT_EXIT_CODE
from tests.googlenet.network.test_weight_files import pth, torchvision_model
from tests.project import ROOT

TOP = ("README.md", "RESULTS.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "cluster/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Relative links of a page that name no file, or no heading of it."""
    found = []
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_names_a_file_and_a_heading(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](page.md#a-heading) [b](#no-heading) [c](missing.md) [d](https://example.org)\n")
    assert broken(page) == ["#no-heading", "missing.md"]


def test_every_claim_links_to_a_page_of_results() -> None:
    rows = [line for line in (ROOT / "RESULTS.md").read_text().splitlines() if line.startswith("| ")]
    claims = rows[2:]  # below the header and its rule
    assert len(claims) > 20
    for claim in claims:
        assert any(link.startswith("docs/results/") for link in LINK.findall(claim)), claim


def test_every_page_of_results_can_be_reached() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "RESULTS.md").read_text())}
    assert linked >= {str(page.relative_to(ROOT)) for page in (ROOT / "docs/results").glob("*.md")}


def test_the_pages_name_the_place_of_answers_for_images_without_labels() -> None:
    place = re.sub("-[0-9a-f]{8}/", "-xxxxxxxx/", f"{evaluation_folder('/somewhere/NAME', [])}/{ANSWERS_CSV}")
    for name in ("own_images", "evaluation"):
        named = re.findall(r"`([^`\s]*top5\.csv)`", (ROOT / f"docs/{name}.md").read_text())
        assert named, name
        assert set(named) == {place}


def first_cells(page: str, heading: str) -> set[str]:
    """The code in the first cells of the table with this heading."""
    [table] = re.findall(rf"^\| {re.escape(heading)} \|.*\n(?:\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    return set(re.findall(r"^\| `?(.+?)`? \|", table, re.MULTILINE)[2:])


def test_the_tables_of_files_name_those_of_a_run() -> None:
    replica = {getattr(ReplicaFiles(0), name) for name, of in vars(ReplicaFiles).items() if isinstance(of, property)}
    known = {value for value in vars(directory).values() if isinstance(value, str)} | replica
    in_run = first_cells("docs/own_images.md", "in the run directory")
    in_report = first_cells("docs/evaluation.md", "file in `report/`")
    named = {name.removeprefix("evaluations/NAME-xxxxxxxx/") for name in in_run} | {f"report/{n}" for n in in_report}
    assert len(named) > 12
    assert {name.rstrip("/") for name in named} - {""} <= known


def test_the_exit_codes_of_training_are_those_of_the_commands() -> None:
    known = {0, STORAGE_EXIT_CODE, UserError.exit_code, TryAgainError.exit_code, INTERRUPTED_EXIT_CODE}
    known |= {INCOMPLETE_EXIT_CODE, LIMIT_EXIT_CODE, NO_READER_EXIT_CODE}
    assert set(map(int, first_cells("docs/training.md", "exit code"))) == known


def test_the_activations_of_a_part_of_a_batch_are_those_that_memory_names() -> None:
    [megabytes] = re.findall(r"(\d+) MB of activations", (ROOT / "docs/results/memory.md").read_text())
    assert int(megabytes) == MICRO_BATCH_BYTES / 1e6


def test_the_pages_tell_how_long_an_answer_takes_as_it_was_measured() -> None:
    page = (ROOT / "docs/results/evaluation_speed.md").read_text()
    [measured] = re.findall(r"^## The predictor$.*?^## ", page, re.MULTILINE | re.DOTALL)

    def seconds(contender: str) -> list[int]:
        """Of an answer of seven models with 144 crops on two cores, by the crops/s of one, on each processor."""
        rates = re.findall(rf"^\| {re.escape(contender)} \| ([\d.]+) \|", measured, re.MULTILINE)
        return [round(7 * 144 / (2 * float(rate))) for rate in rates]

    told = set()
    for name in ("mlflow", "evaluation", "own_images"):
        text = " ".join((ROOT / f"docs/{name}.md").read_text().split())
        [found] = re.findall(r"about (\d+) seconds on two cores with AVX-512, and (\d+) with AVX2", text)
        told.add(tuple(map(int, found)))
    assert told == {tuple(seconds("ours, fp32"))}
    [in_bf16] = re.findall(r"and (\d+) in compiled bf16", (ROOT / "docs/evaluation.md").read_text())
    assert [int(in_bf16)] == seconds("ours, bf16, compiled")


def sorted_by(code: str, files: Mapping[str, bytes], labels: Mapping[str, str]) -> dict[str, set[bytes]]:
    """The contents by class, after the Python of a page has sorted ``files`` in the current folder."""
    for name, content in files.items():
        Path("PHOTOS", name).parent.mkdir(parents=True, exist_ok=True)
        Path("PHOTOS", name).write_bytes(content)
    rows = "".join(f"{name},{label}\n" for name, label in labels.items())
    Path("LABELS.csv").write_text(f"filename,label\n{rows}", encoding="utf-8-sig")  # as Excel does
    exec(code, {})  # noqa: S102  # as a reader would
    reader, listing = images_to_train_on("SORTED", 10, 0)
    found: dict[str, set[bytes]] = {name: set() for name in listing.classes}
    for image in (image for images in listing.splits.values() for image in images):
        found[listing.classes[image.label]].add(reader.read(image))
    return found


def test_the_python_of_data_sorts_pictures_into_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, by_table = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)
    names = ("cat.0.jpg", "cat.1.JPG", "great_pyrenees_1.png", "great_pyrenees_2.jpeg", "cat.JPEG")
    (tmp_path / "names").mkdir()
    monkeypatch.chdir(tmp_path / "names")
    Path("pool").write_bytes(b"linked")
    Path("PHOTOS").mkdir()
    Path("PHOTOS/cat_7.jpg").symlink_to(tmp_path / "names/pool")  # the link has the name with the class
    found = sorted_by(by_name, {name: name.encode() for name in (*names, "notes.txt")}, {})
    assert found == {
        "cat": {b"cat.0.jpg", b"cat.1.JPG", b"cat.JPEG", b"linked"},
        "great_pyrenees": {b"great_pyrenees_1.png", b"great_pyrenees_2.jpeg"},
    }
    (tmp_path / "table").mkdir()
    monkeypatch.chdir(tmp_path / "table")
    labels = {"a.JPG": "big dog", "b.png": "Katze", "x/1.jpg": "big dog", "y/1.jpg": "big dog", "z/1.jpg": "Katze"}
    labels |= {"c.jpg": "Katze/rot", "d.jpg": "Katze/rot", "e.jpg": ""}
    found = sorted_by(by_table, {name: name.encode() for name in labels}, labels)
    assert found == {
        "big dog": {b"a.JPG", b"x/1.jpg", b"y/1.jpg"},
        "Katze": {b"b.png", b"z/1.jpg"},
        "Katze_rot": {b"c.jpg", b"d.jpg"},
    }


def test_the_python_of_training_keeps_weights_with_their_own_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("MINE.pth").write_bytes(pth(torchvision_model()))
    exec(code, {})  # noqa: S102  # as a reader would
    kept, given = (googlenet.load_weights(f"MINE.{suffix}") for suffix in ("safetensors", "pth"))
    assert kept.preprocessing.mean == tuple(pytest.approx(255 * mean) for mean in (0.485, 0.456, 0.406))
    assert kept.preprocessing.std == tuple(pytest.approx(255 * std) for std in (0.229, 0.224, 0.225))
    assert all(map(torch.equal, kept.model.state_dict().values(), given.model.state_dict().values()))


def test_the_python_of_own_images_answers_a_photograph(
    photo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own_images.md").read_text(), re.DOTALL)
    photograph = next(photo_folder.rglob("*.jpg"))
    monkeypatch.chdir(ROOT / "tests/pipelines/old_run")
    exec(code.replace("runs/fine/", "").replace("PHOTO", str(photograph)), {})  # noqa: S102  # as a reader would
    assert "answer_1" in capsys.readouterr().out
