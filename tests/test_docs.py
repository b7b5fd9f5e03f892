"""The links of the documentation, and a page for every claim in RESULTS.md."""

import re
from pathlib import Path

import pytest

from googlenet.evaluation.ensemble import ABSTAIN, PASSES, SET, answer_columns
from googlenet.training.micro_batch import MICRO_BATCH_BYTES
from pipelines.errors import TryAgainError, UserError
from pipelines.job.command_line import NO_READER_EXIT_CODE, STORAGE_EXIT_CODE
from pipelines.job.interpreter import INTERRUPTED_EXIT_CODE
from pipelines.run import directory
from pipelines.run.directory import ANSWERS_CSV, ReplicaFiles, evaluation_folder
from pipelines.run.named_recipes import RECIPES
from pipelines.run.object_store import OPTIONS
from pipelines.train_ensemble import INCOMPLETE_EXIT_CODE, LIMIT_EXIT_CODE
from tests.pages import PAGES, marked, section
from tests.project import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^```sh$|`(make|python|ray) [^`]+`", re.MULTILINE)


def fragment(title: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {fragment(title) for title in titles}


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


def test_every_claim_links_to_a_page_of_results_with_a_command() -> None:
    rows = [line for line in (ROOT / "RESULTS.md").read_text().splitlines() if line.startswith("| ")]
    claims = rows[2:]  # below the header and its rule
    assert len(claims) > 20
    for claim in claims:
        [link] = [link for link in LINK.findall(claim) if link.startswith("docs/results/")]
        assert COMMAND.search(linked_text(link)), f"{link} shows no command for: {claim}"


def linked_text(link: str) -> str:
    """Return all of a page, or, if the link names a heading, what is below it."""
    page, _, anchor = link.partition("#")
    text = (ROOT / page).read_text()
    if not anchor:
        return text
    [heading] = [line for line in re.findall(r"^#+ .*$", text, re.MULTILINE) if fragment(line.lstrip("# ")) == anchor]
    next_heading = rf"^#{{1,{heading.index(' ')}}} "
    below = re.split(next_heading, text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)
    return below[0]


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


def test_the_table_of_recipes_has_all_of_them() -> None:
    assert first_cells("docs/own_images.md", "recipe") == set(RECIPES)


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


def test_the_pages_name_every_key_of_an_answer() -> None:
    named = set(marked(section("docs/evaluation.md", "Images without labels")))
    first, last = answer_columns(5)[:2], answer_columns(5)[-3:]
    assert {"image_id", *first, *last, SET, ABSTAIN, PASSES, "error"} <= named


def test_the_page_names_every_option_of_s3_and_who_reads_the_environment() -> None:
    text = section("docs/data.md", "Object stores")
    assert [name for name in OPTIONS["s3"] if f"{name}=" not in text] == []
    assert "each process on each node" in text


def test_the_store_of_a_deleted_run_is_named_for_python_and_the_shell_alike() -> None:
    stores = re.findall(r"sqlite:///[^`\"]*", section("docs/own_images.md", "Questions"))
    assert set(stores) == {"sqlite:///runs/mlflow.db"}


def test_the_quick_start_says_what_the_installation_takes_and_own_images_are_for_finetune_alone() -> None:
    installing = re.search(r"about (\d+ GB).*usually (\d+ to \d+ minutes)", (ROOT / "Makefile").read_text())
    assert installing
    assert all(words in section("README.md", "Quick start") for words in installing.groups())
    assert "--recipe demo" not in section("README.md", "Your own images")
