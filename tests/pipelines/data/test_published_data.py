"""Data sets on a Hub and on a web server, both on loopback: read like the same files in a folder, part by part."""

import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import HfFileSystem

from pipelines.data.prepare import prepare
from pipelines.data.shards import ShardPlan
from pipelines.data.sources import Images, images_to_evaluate, images_to_train_on, unlabelled_images
from pipelines.errors import UserError
from pipelines.run.published_files import PublishedFilesError, _ReadableFile
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import storage_failure
from tests.hub_server import COMMIT, hub_of
from tests.pipelines.data.archives import hugging_face, picture, tar
from tests.project import ROOT

NAME = "hf://datasets/me/pets"


@dataclass(frozen=True)
class Hub:
    """The folder of a data set, its address without the file, requests so far, statuses to come, seconds of pauses."""

    folder: Path
    address: str
    asked: list[str]
    failures: list[int]
    pauses: list[float]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pauses: list[float] = []
    for module in ("pipelines.run.published_files", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr("pipelines.run.published_files.monotonic", lambda: sum(pauses))
    folder, failures = tmp_path / "datasets/me/pets", list[int]()
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Pets\n")
    with hub_of(tmp_path, failures) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield Hub(folder, f"{address}/datasets/me/pets/resolve/main", asked, failures, pauses)


def write_parquet(folder: Path) -> None:
    for split, seeds in (("train", range(6)), ("validation", range(6, 9))):
        images = [picture(seed) for seed in seeds]
        hugging_face(folder / f"data/{split}-00000-of-00001.parquet", images, [s % 2 for s in seeds], ["cat", "dog"])


def write_tars(folder: Path) -> None:
    for split, seeds in (("train", range(6)), ("val", range(6, 9))):
        (folder / split).mkdir()
        members = {f"{s}.{end}": data for s in seeds for end, data in (("jpg", picture(s)), ("cls", b"%d" % (s % 2)))}
        (folder / split / "0000.tar").write_bytes(tar(members))


def write_pictures(folder: Path) -> None:
    for seed in range(9):
        path = folder / ("train" if seed < 6 else "val") / ("cat" if seed % 2 else "dog & puppy") / f"é {seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed))


def content(images: Images) -> list[tuple[str, int, bytes]]:
    """Ids, labels and bytes of all images, read as another process would."""
    reader = pickle.loads(pickle.dumps(images.reader))  # noqa: S301
    files = [file for split in ("train", "val") for file in images.listing.splits[split]]
    return [(file.image_id, file.label, reader.read(file)) for file in files]


@pytest.mark.parametrize("write", [write_parquet, write_tars, write_pictures])
def test_a_data_set_of_the_hub_is_what_it_would_be_as_a_folder(
    hub: Hub, write: object, capsys: pytest.CaptureFixture[str]
) -> None:
    write(hub.folder)  # type: ignore[operator]
    here, there = images_to_train_on(str(hub.folder), 10, 0), images_to_train_on(f"{NAME}@v1", 10, 0)
    assert there.listing == here.listing
    assert content(there) == content(here)
    assert len(content(here)) == 9
    first, second = (re.findall("data: (?:class folders|6|1 ).*", part)[0] for part in _halves(capsys.readouterr().out))
    assert first == second  # both say the same about what they are taken for


def _halves(out: str) -> tuple[str, str]:
    before, said, after = out.partition(f"data: {NAME} at commit {COMMIT}\n")
    assert said
    return before, after


@pytest.mark.parametrize("revision", ["feature%2Fx", "refs/convert/parquet"])
def test_a_branch_may_have_a_slash_in_its_name(hub: Hub, revision: str) -> None:
    write_pictures(hub.folder)
    assert images_to_train_on(f"{NAME}@{revision}/train", 50, 0).listing.classes == ("cat", "dog & puppy")


def test_all_of_it_is_read_at_the_commit_that_the_revision_had(hub: Hub) -> None:
    write_tars(hub.folder)
    content(images_to_train_on(f"{NAME}@v1", 10, 0))
    first, *others = hub.asked
    assert first.startswith("GET /api/datasets/me/pets/revision/v1")
    assert others
    assert all(COMMIT in request for request in others)


def test_a_folder_of_the_hub_and_an_archive_in_it_can_be_named(hub: Hub) -> None:
    write_tars(hub.folder)
    below = images_to_train_on(f"{NAME}/train", 50, 0)
    alone = images_to_train_on(f"{NAME}/train/0000.tar", 50, 0)
    assert below.listing == alone.listing
    assert [len(alone.listing.splits[split]) for split in ("train", "val")] == [2, 4]
    assert content(alone) == content(below)


def test_images_without_labels_are_read_from_the_hub(hub: Hub) -> None:
    write_pictures(hub.folder)
    (hub.folder / "README.md").unlink()
    assert len(content(unlabelled_images(NAME, ("a", "b")))) == 9


def test_an_archive_of_a_web_server_is_what_it_would_be_in_a_folder(hub: Hub) -> None:
    write_tars(hub.folder)
    here = images_to_train_on(str(hub.folder / "train"), 50, 0)
    there = images_to_train_on(f"{hub.address}/train/0000.tar", 50, 0)
    assert there.listing == here.listing
    assert content(there) == content(here)


def test_a_table_of_a_web_server_can_be_evaluated(hub: Hub) -> None:
    write_parquet(hub.folder)
    there = images_to_evaluate(f"{hub.address}/data/validation-00000-of-00001.parquet", ("cat", "dog"))
    assert [(label, data) for _, label, data in content(there)] == [(s % 2, picture(s)) for s in range(6, 9)]


@pytest.mark.parametrize("place", ["hub", "web"])
def test_only_what_is_needed_is_fetched(hub: Hub, place: str) -> None:
    images = [np.random.default_rng(seed).bytes(3 << 20) for seed in range(8)]
    hugging_face(hub.folder / "train.parquet", images, [0, 1] * 4, ["cat", "dog"])  # two images in each row group
    found = images_to_train_on(NAME if place == "hub" else f"{hub.address}/train.parquet", 10, 0)
    assert _fetched(hub) < 6 << 20  # of 24 MiB: the labels of four row groups, with what is read ahead
    hub.asked.clear()
    file = found.listing.splits["train"][0]
    assert found.reader.read(file) in images
    assert _fetched(hub) < 9 << 20  # its row group


def _fetched(hub: Hub) -> int:
    files = [request for request in hub.asked if re.match("GET .*/resolve/", request)]
    spans = [re.search(r"bytes=(\d+)-(\d+)$", request) for request in files]  # always a part
    return sum(int(span[2]) - int(span[1]) for span in spans)


PLACES = [NAME, "{}/train/0000.tar"]


@pytest.mark.parametrize("data", PLACES)
def test_a_server_that_fails_for_a_while_is_asked_again(hub: Hub, data: str) -> None:
    write_tars(hub.folder)
    hub.failures.extend([503, 502])
    found = images_to_train_on(data.format(hub.address), 10, 0)
    file = found.listing.splits["train"][0]
    for forget in (False, True):
        if forget:  # another process asks about the files first
            HfFileSystem.clear_instance_cache()
        hub.failures.extend([503, 502, 503])
        assert pickle.loads(pickle.dumps(found.reader)).read(file) == picture(int(file.image_id[-5]))  # noqa: S301
        assert not hub.failures


@pytest.mark.parametrize("is_new", [False, True], ids=["same process", "another process"])
@pytest.mark.parametrize("data", PLACES)
def test_a_server_that_fails_for_long_is_named_in_one_line_and_no_image_is_blamed(
    hub: Hub, data: str, is_new: bool
) -> None:
    write_tars(hub.folder)
    found = images_to_train_on(data.format(hub.address), 10, 0)
    if is_new:
        HfFileSystem.clear_instance_cache()
    hub.failures.extend([503] * 100)
    with pytest.raises(PublishedFilesError, match=r"pets.*: .*status 503") as error:
        pickle.loads(pickle.dumps(found.reader)).read(found.listing.splits["train"][0])  # noqa: S301
    assert hub.pauses == [1, 2, 4, 8, 8]
    assert not isinstance(error.value, OSError)  # a bad image would be one, and a hundred of them would each wait
    line = storage_failure(error.value)
    assert line == str(error.value)
    assert "\n" not in line
    wrapped = RuntimeError(f"ray::task\nTraceback\npipelines.run.published_files.PublishedFilesError: {line}\n")
    assert storage_failure(wrapped) == line  # as Ray Data hands it over


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("hf://datasets/me/none", "no repository me/none at http://127.0.0.1:.* check the name; .*HF_TOKEN"),
        ("hf://datasets/me/pets@v9", "me/pets has no revision v9"),
        ("hf://datasets/me/pets/none", "there is no folder hf://datasets/me/pets@0123456789"),
        ("hf://me/pets", "not a data set's name: that begins with hf://datasets/"),
        ("hf://datasets/pets", r"Expected .*hf://datasets/OWNER/REPO"),
        ("{}/none.tar", r"there is no file http://127.0.0.1:\d+/.*/none.tar"),
        ("{}/train", "from a web server, only a .tar or .parquet file can be read"),
        ("{}/cat.jpg", "only a .tar or .parquet file can be read; download pictures, and specify their folder"),
        ("{}/README.md", "from a web server, only a .tar or .parquet file can be read"),
        ("{}/train.tar.gz", ".tar or .parquet file can be read; unpack it, and specify the folder with its content"),
        ("hf://datasets/me/pets@new/x", r"no revision new: give a branch, .* \(a / in its name is written %2F\)"),
        ("https://huggingface.co/datasets/me/pets", "give the name of the data set instead: hf://datasets/me/pets$"),
        (
            "https://huggingface.co/datasets/me/pets/tree/refs%2Fconvert%2Fparquet/default?x#y",
            "the name of the data set instead: hf://datasets/me/pets@refs%2Fconvert%2Fparquet/default$",
        ),
        ("{}/train.tar?", r"train.tar\?\.\.\.: leave out what follows the \?"),
        ("{}/train.tar?key=secret", r"train.tar\?\.\.\.: leave out what follows the \?"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_one_line(hub: Hub, data: str, reason: str) -> None:
    write_tars(hub.folder)
    with pytest.raises(UserError, match=reason) as error:
        images_to_train_on(data.format(hub.address), 10, 0)
    assert "\n" not in str(error.value)
    assert "key=" not in str(error.value)


@pytest.mark.parametrize("data", [NAME, "{}/train/0000.tar"])
def test_without_a_network_the_server_is_named(hub: Hub, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises((UserError, PublishedFilesError), match=r"127.0.0.1:9.*(cannot be reached|cannot be read)"):
        images_to_train_on(data.format(address), 10, 0)


def test_a_server_that_sends_no_parts_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tars(hub.folder)
    monkeypatch.setattr("tests.hub_server._Answers.ranges", "none")
    with pytest.raises(PublishedFilesError, match="does not send parts of a file: download it, and specify where"):
        images_to_train_on(f"{hub.address}/train/0000.tar", 10, 0)


def test_shards_of_an_earlier_commit_are_written_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(hub.folder)
    digests = []

    def plan(_run: Storage, _reader: object, plans: list[ShardPlan]) -> None:
        digests.append([plan.digest for plan in plans])
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.data.prepare.write_shards", plan)
    for commit in (COMMIT, COMMIT, "f" * 40):
        monkeypatch.setattr("tests.hub_server.COMMIT", commit)
        monkeypatch.setattr("tests.hub_server.REVISIONS", ("main", commit))
        with pytest.raises(KeyboardInterrupt):
            prepare(Storage.at(str(tmp_path / "run")), Recipe(data=NAME))
    first, again, later = digests
    assert first == again  # the shards that a start finished are kept
    assert not set(first) & set(later)


def test_threads_of_arrow_never_run_python(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that still does when Python ends aborts the process.
    write_parquet(hub.folder)
    threads = []
    read = _ReadableFile.read

    def watched(file: _ReadableFile, size: int = -1) -> bytes:
        threads.append(threading.current_thread())
        return read(file, size)

    monkeypatch.setattr(_ReadableFile, "read", watched)
    found = images_to_train_on(NAME, 10, 0)  # labels are read by Python's own threads, for which it waits at its end
    assert content(found)
    assert threads
    assert not [thread.name for thread in threads if isinstance(thread, threading._DummyThread)]


@pytest.mark.processes
def test_another_process_reads_it_with_the_endpoint_of_its_environment(hub: Hub) -> None:
    write_parquet(hub.folder)
    reader, listing = images_to_train_on(NAME, 10, 0)
    file = listing.splits["val"][0]
    code = (
        "import pickle, sys; reader, file = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(reader.read(file))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ}, input=pickle.dumps((reader, file)),
        capture_output=True, check=True,
    )  # fmt: skip
    assert ended.stdout == picture(6)
