"""Strict validation of the Kubernetes manifest against the published schema: unknown fields are errors."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import section
from tests.project import ROOT

SCHEMA = json.loads((Path(__file__).parent / "rayjob_schema.json").read_text())
TYPES = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "int-or-string": (int, str)}


def problems(value: Any, kind: Any, at: str = "") -> list[str]:
    """Return the violations of ``kind``, a type in the notation of the schema file, by ``value``."""
    if isinstance(kind, str) and kind.startswith("#"):
        kind = SCHEMA[kind[1:]]
    if isinstance(kind, list):
        items = value if isinstance(value, list) else [f"no list at {at}"]
        return [p for number, item in enumerate(items) for p in problems(item, kind[0], f"{at}[{number}]")]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{at} is no mapping"]
        if set(kind) == {"*"}:
            return [p for name, item in value.items() for p in problems(item, kind["*"], f"{at}.{name}")]
        fields = {name.rstrip("!"): sub for name, sub in kind.items()}
        missing = [f"{at}.{name[:-1]} is missing" for name in kind if name.endswith("!") and name[:-1] not in value]
        unknown = [f"{at}.{name} is unknown" for name in value if name not in fields]
        return (
            missing
            + unknown
            + [p for n, v in value.items() if n in fields for p in problems(v, fields[n], f"{at}.{n}")]
        )
    if kind.startswith("enum:"):
        return [] if value in kind.removeprefix("enum:").split("|") else [f"{at}: {value!r} is none of {kind}"]
    wrong = kind in TYPES and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"))
    return [f"{at}: {value!r} is no {kind}"] if wrong else []


@pytest.fixture
def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster/kuberay.yaml").read_text())
    return loaded


def test_the_manifest_fits_the_published_schema(manifest: dict[str, Any]) -> None:
    assert problems(manifest, SCHEMA["rayjob"]) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "entryPoint"), "python", ".spec.entryPoint is unknown"),
        (("spec", "backoffLimit"), "5", ".spec.backoffLimit: '5' is no integer"),
        (("spec", "rayClusterSpec", "headGroupSpec"), {}, ".spec.rayClusterSpec.headGroupSpec.template is missing"),
        (("spec", "rayClusterSpec", "authOptions"), {"mode": "tokens"}, "is none of enum:disabled|token"),
    ],
)
def test_a_mistake_would_be_found(manifest: dict[str, Any], path: tuple[str, ...], value: Any, problem: str) -> None:
    inside = manifest
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    assert any(problem in found for found in problems(manifest, SCHEMA["rayjob"]))


def test_the_cluster_is_of_the_ray_that_is_installed_and_asks_for_a_token(manifest: dict[str, Any]) -> None:
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_page_names_every_value_that_the_manifest_leaves_to_its_user() -> None:
    lines = (ROOT / "cluster/kuberay.yaml").read_text().splitlines()
    left = set(re.findall(r"\b[A-Z_]{4,}\b", "\n".join(line.partition("#")[0] for line in lines)))
    assert left >= {"BUCKET", "SERVICE_ACCOUNT"}
    before, _, _ = section("cluster/README.md", "Kubernetes").partition("kubectl apply")
    assert {name for name in left if f"`{name}`" not in before} == set()


def test_the_image_holds_what_the_job_runs() -> None:
    dockerfile = (ROOT / "cluster/Dockerfile").read_text()
    for line in dockerfile.splitlines():
        if line.startswith("COPY"):
            assert (ROOT / line.split()[1]).exists(), line
            assert f"!{line.split()[1]}" in (ROOT / ".dockerignore").read_text()
