"""``cluster.yaml`` against Ray's own schema, and the rules that keep a cluster from being open to everybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from xsite.runtime.shipping import package_folders

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_passes_ray_s_own_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "hed_node_type": "head"}, schema)


def test_ray_fills_in_and_accepts_the_whole_configuration(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    full = fillout_defaults(cluster)
    validate_config(full)
    assert full["available_node_types"]["gpu"]["max_workers"] == 8


def test_every_ray_process_starts_with_the_token(cluster: dict[str, Any]) -> None:
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any(path.endswith(".ray/auth_token") for path in cluster["file_mounts"])
    assert "RAY_AUTH_TOKEN=" not in (ROOT / "cluster.yaml").read_text()  # the token itself stays out of the file


def test_runtime_env_lists_the_packages_that_submit_ships() -> None:
    runtime_env = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())
    assert [(ROOT / folder).resolve() for folder in runtime_env["py_modules"]] == package_folders()
    assert "working_dir" not in runtime_env
