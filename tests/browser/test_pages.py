"""Pages in a real browser: MLflow on a finished run, and the report's page."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mlflow import MlflowClient

from pipelines.run.storage import Storage
from pipelines.tracking.store import page_of_experiment, tracking_uri_for
from tests.project import ROOT
from tests.servers import BIN, free_port, wait_for

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SCREENSHOTS = os.environ.get("GOOGLENET_SCREENSHOTS", "")
pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]
# Without a network, and without a sandbox that root may not have.
OPTIONS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "hide-scrollbars",
    "window-size=1400,1000",
)
# MLflow asks who one is, and its server has no users; it warns of its own use of its libraries.
OF_MLFLOW_ITSELF = ("mlflow/users/current", "ResizeObserver loop")
T = TypeVar("T")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in OPTIONS:
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def mlflow(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of all runs, on the server that `make ui` starts for the finished run and its page."""
    port, errors = free_port(), tmp_path_factory.mktemp("ui") / "errors.log"
    command = ["make", "-o", ".venv/stamp", "ui", f"BIN={BIN}", f"RUN_DIR={finished_run}", f"PORT={port}"]
    with errors.open("w") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    assert server.stdout is not None
    try:
        shown = next((line for line in server.stdout if line.startswith("MLflow: http")), "")
        assert shown, errors.read_text()
        wait_for(f"http://127.0.0.1:{port}/", server)  # type: ignore[arg-type]
        assert run_of(finished_run, "ensemble") in shown
        store = tracking_uri_for(Storage.at(str(finished_run)))
        yield f"{shown.split()[1].partition('#')[0]}{page_of_experiment(store)}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def until(found: Callable[[], T], seconds: float = 60) -> T:
    """What ``found`` gives once that is something."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.25)
    return result


def text_of(browser: Any) -> str:
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


def errors_of(browser: Any) -> list[str]:
    entries = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [e["message"] for e in entries if not any(known in e["message"] for known in OF_MLFLOW_ITSELF)]


def keep(browser: Any, name: str) -> None:
    """A picture for people, where GOOGLENET_SCREENSHOTS names a folder for them."""
    if SCREENSHOTS:
        for button in browser.find_elements("css selector", "button[aria-label=Close]"):
            button.click()
        time.sleep(2)
        browser.save_screenshot(f"{SCREENSHOTS}/{name}.png")


def run_of(run: Path, role: str) -> str:
    client = MlflowClient(tracking_uri_for(Storage.at(str(run))))
    experiment = client.get_experiment_by_name("googlenet-ensemble").experiment_id
    [found] = [
        found
        for found in client.search_runs([experiment], f"tags.googlenet_role = '{role}'")
        if found.data.tags["run_directory"] == str(run)
    ]
    return str(found.info.run_id)


def test_make_ui_shows_mlflow(mlflow: str) -> None:
    with urllib.request.urlopen(mlflow.partition("#")[0], timeout=60) as page:
        assert b"MLflow" in page.read()


def test_the_replicas_are_nested_under_the_ensemble(browser: Any, mlflow: str) -> None:
    browser.get(mlflow)
    until(lambda: "finished" in text_of(browser))
    assert "replica_0" not in text_of(browser)
    assert all(column in text_of(browser) for column in ("top1_error/3x144", "top1_error/1x1", "val_images"))
    rows = until(lambda: browser.find_elements("css selector", ".ag-row, [role=row]"))
    [row] = [row for row in rows if "finished" in row.text and row.find_elements("css selector", "button")][:1]
    row.find_elements("css selector", "button")[0].click()
    until(lambda: all(f"replica_{k}" in text_of(browser) for k in range(3)))
    keep(browser, "mlflow_runs")
    assert errors_of(browser) == []


def test_the_run_shows_its_table_pictures_and_metrics(browser: Any, mlflow: str, finished_run: Path) -> None:
    page = mlflow.replace("/runs?", f"/runs/{run_of(finished_run, 'ensemble')}?")
    browser.get(page)
    until(lambda: "top1_error/3x144" in text_of(browser))
    assert "3 models with 144 crops err on" in text_of(browser)
    pictures = until(lambda: browser.find_elements("css selector", "img[src*='get-artifact']"))
    loaded = "return arguments[0].complete && arguments[0].naturalWidth > 100"
    for picture in pictures:
        until(lambda picture=picture: browser.execute_script(loaded, picture))
    keep(browser, "mlflow_run")
    assert errors_of(browser) == []


def test_a_replicas_curves_are_drawn(browser: Any, mlflow: str, finished_run: Path) -> None:
    browser.get(mlflow.replace("/runs?", f"/runs/{run_of(finished_run, 'replica_1')}/model-metrics?"))
    # Losses of three heads, the learning rate, the norm of the gradient and the speed, step by step.
    until(lambda: len(browser.find_elements("css selector", ".js-plotly-plot .scatterlayer path.js-line")) >= 6)
    shown = text_of(browser)
    assert all(name in shown for name in ("loss_logits", "loss_aux_4a", "loss_aux_4d", "gradient_norm"))
    keep(browser, "mlflow_curves")
    assert errors_of(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_reports_page_is_readable_on_any_screen(browser: Any, finished_run: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get((finished_run / "report/index.html").as_uri())
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        sections = browser.find_elements("css selector", "section h2")
        hints = browser.find_elements("css selector", ".sideways")
        assert [hint.is_displayed() for hint in hints] == [width < 640]  # the strips are wider than a phone
        assert {"Learning curves", "Confusion", "Most confident mistakes"} <= {h.text for h in sections}
        for drawing in browser.find_elements("css selector", "figure svg"):
            assert drawing.size["width"] > 0.6 * min(width, 480)
            assert drawing.find_elements("css selector", "path")
        for image in browser.find_elements("tag name", "img"):
            assert browser.execute_script("return arguments[0].naturalWidth > 0", image)
        assert browser.execute_script(TEXT_ON_TEXT) == []
        contrasts = browser.execute_script(CONTRASTS)
        assert contrasts
        assert min(contrasts) > 4.5  # WCAG 2.2, level AA
        keep(browser, f"report_{scheme}_{width}")
        assert errors_of(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# Pairs of texts of a picture of which one lies on the other.
TEXT_ON_TEXT = """
const found = [];
for (const picture of document.querySelectorAll("figure svg")) {
  const texts = [...picture.querySelectorAll("text")].filter(e => e.textContent.trim());
  const boxes = texts.map(e => e.getBoundingClientRect());
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 1 && height > 1) found.push([texts[i].textContent, texts[i + 1 + j].textContent]);
  }));
}
return found;
"""
# Of all text of the page: luminance of its colour against that of what it stands on.
CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgb(colour, under) {
  canvas.globalAlpha = 1;
  if (under) { canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1); } else canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour[3] == 255) return colour.slice(0, 3);
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll("h1, h2, p, li, th, td, small, figcaption, svg text")]
  .filter(e => e.textContent.trim() && !e.getAttribute("style")?.includes("fill: "))  // what stands on a mark
  .map(e => {
    const style = getComputedStyle(e), under = ground(e);
    const ink = rgb(e.tagName == "text" ? style.fill : style.color, under).map(
      (v, i) => i < 3 ? v * style.opacity + under[i] * (1 - style.opacity) : v);
    const [a, b] = [luminance(ink), luminance(under)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
"""
