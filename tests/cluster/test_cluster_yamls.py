"""The cluster YAMLs: Ray's own validation, the clouds' own fields, no secrets, no open ports.

Ray's and Amazon's checks are imported where they are used: each pytest process imports this file, one runs it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

from pipelines.training.resources import Resources
from pipelines.training.shard_cache import FREE_SHARE
from tests.project import ROOT

FILES = ("aws.yaml", "gcp.yaml", "azure.yaml", "on_prem.yaml")
CLOUDS = FILES[:3]
# Fields of Compute Engine's instances (API v1) that these files use, by parent field.
GCP_FIELDS = {
    "": {"machineType", "disks", "networkInterfaces", "serviceAccounts", "scheduling", "guestAccelerators", "labels"},
    "disks": {"boot", "autoDelete", "type", "initializeParams"},
    "initializeParams": {"diskSizeGb", "sourceImage", "diskType"},
    "networkInterfaces": {"subnetwork", "network"},
    "serviceAccounts": {"email", "scopes"},
    "scheduling": {"provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart"},
}


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / name).read_text())
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_rays_own_check_passes_and_finds_a_mistake(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load(name)))
    with pytest.raises(ValidationError):
        validate_config(prepare_config({**load(name), "idle_timeout": 5}))


def test_the_fields_of_aws_nodes_are_those_of_ec2() -> None:
    import botocore.session
    import botocore.validate

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node in load("aws.yaml")["available_node_types"].values():
        # Ray picks one of the subnets.
        config = {**node["node_config"], "SubnetId": node["node_config"]["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}
        del config["SubnetIds"]
        report = botocore.validate.ParamValidator().validate(config, shape)
        assert not report.has_errors(), report.generate_report()
        wrong = botocore.validate.ParamValidator().validate({**config, "InstanceTypes": "x"}, shape)
        assert wrong.has_errors()


def test_the_fields_of_azure_nodes_are_those_of_rays_template() -> None:
    import ray.autoscaler

    folder = Path(ray.autoscaler.__file__).parent / "_private/_azure"
    known = set(json.loads((folder / "azure-vm-template.json").read_text())["parameters"]) | {"availability_zone"}
    for node in load("azure.yaml")["available_node_types"].values():
        assert set(node["node_config"]) == {"azure_arm_parameters"}
        assert set(node["node_config"]["azure_arm_parameters"]) <= known


def unknown_gcp_fields(value: Any, place: str = "") -> set[str]:
    if isinstance(value, list):
        return set().union(*(unknown_gcp_fields(item, place) for item in value))
    if not isinstance(value, dict):
        return set()
    return (set(value) - GCP_FIELDS[place]).union(
        *(unknown_gcp_fields(item, name) for name, item in value.items() if name in GCP_FIELDS)
    )


def test_the_fields_of_gcp_nodes_are_known() -> None:
    for node in load("gcp.yaml")["available_node_types"].values():
        assert unknown_gcp_fields(node["node_config"]) == set()
    assert unknown_gcp_fields({"disks": [{"initializeParams": {"diskSizeGB": 1}}]}) == {"diskSizeGB"}


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_instances_with_gpus_and_the_head_does_not_train(name: str) -> None:
    config = load(name)
    head, worker = (config["available_node_types"][kind] for kind in (config["head_node_type"], "worker"))
    assert head["resources"]["CPU"] == 0
    assert worker["resources"]["GPU"] == 1
    assert config["max_workers"] == worker["max_workers"] == 7
    assert re.search("spot", json.dumps(worker["node_config"]), re.IGNORECASE)
    assert config["provider"]["use_internal_ips"] is True


@pytest.mark.parametrize(
    ("name", "instance", "gib"), [("gcp.yaml", "g2-standard-8", 32), ("azure.yaml", "Standard_NC8as_T4_v3", 56)]
)
def test_the_autoscaler_knows_the_memory_of_nodes_that_it_could_add(name: str, instance: str, gib: int) -> None:
    """On AWS Ray asks EC2 for it (70 % of the instance's), on Kubernetes the pods' limits have it."""
    from ray.autoscaler._private.resource_demand_scheduler import _fits

    worker = load(name)["available_node_types"]["worker"]
    assert instance in json.dumps(worker["node_config"])
    offered = worker["resources"]
    assert _fits(offered, Resources(7, 1, memory_bytes=16 * 10**9).per_worker)  # as the autoscaler compares them
    assert 0.6 * gib < offered["memory"] / 2**30 < (1 - DEFAULT_OBJECT_STORE_MEMORY_PROPORTION) * gib


def test_disks_that_hold_copies_of_shards_have_room_for_imagenet_and_keep_up_with_an_l4() -> None:
    images_gb, images_per_second, image_mb = 140, 1500, 0.11
    [volume] = load("aws.yaml")["available_node_types"]["worker"]["node_config"]["BlockDeviceMappings"]
    assert volume["Ebs"]["VolumeSize"] * (1 - FREE_SHARE) > images_gb
    assert volume["Ebs"]["Throughput"] > 2 * images_per_second * image_mb
    assert volume["Ebs"]["Iops"] > 2 * images_per_second
    assert volume["Ebs"]["Throughput"] <= volume["Ebs"]["Iops"] / 4  # a rule of EC2's
    [disk] = load("gcp.yaml")["available_node_types"]["worker"]["node_config"]["disks"]
    assert disk["initializeParams"]["diskSizeGb"] * (1 - FREE_SHARE) > images_gb
    assert disk["initializeParams"]["diskType"].endswith("/pd-ssd")  # the default reads 30 MB/s at this size


@pytest.mark.parametrize("workers", [["a"], ["a", "b", "c"]])
def test_all_machines_that_are_named_join(workers: list[str]) -> None:
    from ray.autoscaler._private.util import prepare_config

    config = load("on_prem.yaml")
    config["provider"]["worker_ips"] = workers
    prepared = prepare_config(config)
    [node] = prepared["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == prepared["max_workers"] == len(workers)


@pytest.mark.parametrize("name", FILES)
def test_no_secret_no_open_port_and_a_token_everywhere(name: str) -> None:
    text = (ROOT / "cluster" / name).read_text()
    config = load(name)
    assert "0.0.0.0" not in text  # noqa: S104
    starts = [c for c in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert all("unset OMP_NUM_THREADS" in command for command in starts)  # Ray's launcher sets it to 1
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert not re.search(r"(password|secret|token)\s*[:=]\s*['\"]?[A-Za-z0-9+/_-]{12,}", text, re.IGNORECASE)
    assert not re.search(r"AKIA[A-Z0-9]{12}|BEGIN [A-Z ]*PRIVATE KEY", text)


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_to_the_nodes_is_there(name: str) -> None:
    mounted = load(name)["file_mounts"]
    assert all((ROOT / path).is_file() for path in mounted.values() if not path.startswith("~"))
    for command in [c for key in ("setup_commands", "head_start_ray_commands") for c in load(name)[key]]:
        assert all(path in mounted for path in re.findall(r"~/cluster/\S+", command)), command


def test_the_pins_name_no_registry() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert not line or line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ;.*)?", line), line
