"""The compose file names only settings that exist, keeps secrets out, and stays on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.datastructures import Headers

from imagewire.api.keys import Keys, Scope
from imagewire.embedded.kafka import MESSAGE_LIMIT_BYTES
from imagewire.embedded.kafka_jars import pinned_version
from imagewire.native_environment import NATIVE_SETTINGS
from imagewire.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = compose["services"]
    assert isinstance(found, dict)
    return found


def test_all_parts_are_there(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == (
        {"kafka", "clickhouse", "qdrant", "worker", "api", "prometheus", "grafana"}
    )


def test_every_image_is_pinned_to_a_version(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if "build" not in service:
            tag = service["image"].rpartition(":")[2]
            assert re.fullmatch(r"v?\d+\.\d+\.\d+(\.\d+)?", tag), f"{name}: {service['image']}"


def test_kafka_is_the_version_and_takes_the_images_that_the_embedded_one_does(
    services: dict[str, dict[str, Any]],
) -> None:
    kafka = services["kafka"]
    assert kafka["image"] == f"apache/kafka:{pinned_version()}"
    assert int(kafka["environment"]["KAFKA_MESSAGE_MAX_BYTES"]) == MESSAGE_LIMIT_BYTES
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_no_secret_has_a_value_or_a_default(services: dict[str, dict[str, Any]]) -> None:
    secrets = {
        f"{name}.{variable}": value
        for name, service in services.items()
        for variable, value in service.get("environment", {}).items()
        if SECRET.search(variable)
    }
    assert len(secrets) >= 6
    for variable, value in secrets.items():
        assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{variable}={value}"


def test_the_example_of_env_names_exactly_what_compose_requires_and_gives_no_values() -> None:
    required = set(re.findall(r"\$\{([A-Z_]+):\?", (DEPLOY / "compose.yaml").read_text()))
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    named = {line for line in lines if line and not line.startswith("#")}
    assert named == {f"{name}=" for name in required}


def test_ports_are_published_on_the_loopback_address_only(
    services: dict[str, dict[str, Any]],
) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+", port) for port in ports)


@pytest.mark.parametrize("part", ["worker", "api"])
def test_every_setting_exists_and_is_accepted(
    part: str, services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services[part]["environment"]
    for variable, value in environment.items():
        if variable.startswith("IMAGEWIRE_"):
            table, key = variable.removeprefix("IMAGEWIRE_").lower().split("__")
            section = Settings.model_fields[table].annotation
            assert key in getattr(section, "model_fields", {}), f"{variable} names no setting"
        given = f"made-up-secret-of-{variable}" if value.startswith("${") else value
        monkeypatch.setenv(variable, given)
    settings = Settings()
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    if part == "worker":
        assert settings.http.key is not None
        assert settings.http.key.get_secret_value().startswith("made-up-secret")
    else:
        keys = Keys(settings.api.keys)
        for name, scope in (("API_ADMIN_KEY", Scope.ADMIN), ("API_METRICS_KEY", Scope.READ)):
            key = f"Bearer made-up-secret-of-{name}"
            caller = keys.caller(Headers({"Authorization": key}))
            assert caller is not None and caller.scopes == {scope}


def test_the_worker_and_the_api_share_stores_and_what_holds_them_in(
    services: dict[str, dict[str, Any]],
) -> None:
    worker, api = services["worker"], services["api"]
    for key in ("build", "read_only", "tmpfs", "cap_drop", "security_opt", "depends_on"):
        assert worker[key] == api[key]
    for variable, value in worker["environment"].items():
        if not variable.startswith("IMAGEWIRE_HTTP__"):
            assert api["environment"][variable] == value
    assert api["command"] == ["serve"]
    port = api["environment"]["IMAGEWIRE_API__PORT"]
    assert api["healthcheck"]["test"][-1] == port
    assert [each.rpartition(":")[2] for each in api["ports"]] == [port]


def test_addresses_name_services_and_ports_that_answer(
    services: dict[str, dict[str, Any]],
) -> None:
    environment = services["worker"]["environment"]
    host, port = environment["IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS"].split(":")
    assert host in services
    assert f"INSIDE://{host}:{port}" in services[host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    for part, variable in (("CLICKHOUSE", "PORT"), ("QDRANT", "GRPC_PORT")):
        host = environment[f"IMAGEWIRE_{part}__HOST"]
        inside = {port.rpartition(":")[2] for port in services[host]["ports"]}
        assert environment[f"IMAGEWIRE_{part}__{variable}"] in inside


def test_data_volumes_and_mounted_files_exist(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {mount}"
            else:
                assert source in compose["volumes"], f"{name}: {mount}"
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"]
    build = services["worker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_the_worker_waits_until_what_it_needs_is_healthy(
    services: dict[str, dict[str, Any]],
) -> None:
    for needed, how in services["worker"]["depends_on"].items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in services[needed]


def test_the_image_runs_as_a_user_with_a_health_check_and_the_settings_of_malloc_and_onednn() -> (
    None
):
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    final = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert re.search(r"^USER (?!root|0)\w+$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert re.search(r'^ENTRYPOINT \["tini", "--", "imagewire"\]$', final, re.MULTILINE)
    for variable, value in NATIVE_SETTINGS.items():
        assert f"{variable}={value}" in final


def test_everything_that_the_image_copies_is_let_through_by_dockerignore() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignore[ignore.index("*")] == "*"
    for needed in ("pyproject.toml", "README.md", "LICENSE", "deploy/healthcheck.py"):
        assert f"!{needed}" in ignore
    for package in ("imagewire", "streams", "operators", "models", "sinks"):
        assert f"!{package}/**" in ignore
