"""The links of the documentation, and a page for every claim in RESULTS.md."""

import re
from pathlib import Path

import pytest

import googlenet.evaluation.ensemble  # noqa: F401  # before the tests: importing PyTorch starts a process
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


def test_the_python_of_own_images_answers_a_photograph(
    photo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own_images.md").read_text(), re.DOTALL)
    photograph = next(photo_folder.rglob("*.jpg"))
    monkeypatch.chdir(ROOT / "tests/pipelines/old_run")
    exec(code.replace("runs/fine/", "").replace("PHOTO", str(photograph)), {})  # noqa: S102  # as a reader would
    assert "answer_1" in capsys.readouterr().out
