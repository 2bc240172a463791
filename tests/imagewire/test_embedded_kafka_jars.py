"""Kafka's jars are resolved once, whole or not at all, or taken from a named installation."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from imagewire.embedded.broker import BrokerError
from imagewire.embedded.kafka_jars import POM, cached_jars, java_version, resolve_jars

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no named installation."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMAGEWIRE_KAFKA_HOME", raising=False)
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    return tmp_path / "cache" / "imagewire" / "kafka"


def put_on_path(directory: Path, name: str, script: str, patch: pytest.MonkeyPatch) -> None:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    patch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def kafka_home(directory: Path, version: str) -> Path:
    (directory / "libs").mkdir(parents=True)
    (directory / "libs" / f"kafka_2.13-{version}.jar").touch()
    return directory


def directories(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()]


def lives(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for whoever inherited it to ask after it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


async def test_two_resolutions_at_once_run_maven_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        if os.environ.get("CI"):
            pytest.fail("CI must resolve Kafka with Maven, and there is no mvn")
        pytest.skip("there is no mvn")
    runs = tmp_path / "runs"
    put_on_path(tmp_path / "bin", "mvn", f'echo run >> "{runs}"; exec "{maven}" "$@"', monkeypatch)
    first, second = await asyncio.gather(resolve_jars(), resolve_jars())
    assert first.directory == second.directory
    assert runs.read_text() == "run\n"
    jars = names(first.directory)
    assert f"kafka_2.13-{first.version}.jar" in jars
    assert any(jar.startswith("log4j-slf4j-impl") for jar in jars)
    assert directories(cache) == [first.directory]


async def test_a_download_that_breaks_half_way_is_never_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(
        tmp_path / "bin",
        "mvn",
        'for a in "$@"; do case "$a" in -DoutputDirectory=*)'
        ' touch "${a#-DoutputDirectory=}/kafka_2.13-4.3.1.jar";; esac; done;'
        "echo '[ERROR] Connection reset by the registry'; exit 1",
        monkeypatch,
    )
    with pytest.raises(BrokerError, match=r"(?s)check the network.*Connection reset"):
        await resolve_jars()
    assert cached_jars() is None
    assert directories(cache) == []


async def test_an_interrupted_download_ends_maven_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "maven.pid"
    put_on_path(tmp_path / "bin", "mvn", f"sleep 600 & echo $! > {started}; wait", monkeypatch)
    download = asyncio.create_task(resolve_jars())
    async with asyncio.timeout(60):
        while not started.exists() or not started.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    download_of_maven = int(started.read_text())
    async with asyncio.timeout(60):
        while lives(download_of_maven):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert directories(cache) == []


async def test_without_maven_the_other_ways_are_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="IMAGEWIRE_KAFKA_HOME, or use --broker tansu"):
        await resolve_jars()


async def test_a_named_installation_comes_before_maven(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEWIRE_KAFKA_HOME", str(kafka_home(tmp_path / "kafka", "4.2.0")))
    jars = await resolve_jars()
    assert (jars.directory, jars.version) == (tmp_path / "kafka" / "libs", "4.2.0")


async def test_an_installation_that_cannot_be_used_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(BrokerError, match="is no Kafka installation"):
        await resolve_jars()
    monkeypatch.setenv("KAFKA_HOME", str(kafka_home(tmp_path / "old", "3.9.1")))
    with pytest.raises(BrokerError, match=r"is Kafka 3\.9\.1; 4\.0 or later"):
        await resolve_jars()


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_412"', 8),
        ("command not understood", None),
    ],
)
def test_the_version_of_a_java_is_read_from_its_banner(
    banner: str, version: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(tmp_path / "bin", "java", f"echo '{banner}' >&2", monkeypatch)
    assert java_version(str(tmp_path / "bin" / "java")) == version


def test_every_version_in_the_pom_is_pinned() -> None:
    tree = ElementTree.parse(POM)
    space = "{http://maven.apache.org/POM/4.0.0}"
    properties = tree.find(f"{space}properties")
    assert properties is not None
    pins = {entry.tag.removeprefix(space): entry.text or "" for entry in properties}
    stated = [entry.text or "" for entry in tree.iter(f"{space}version")]
    resolved = [re.sub(r"\$\{(.+)\}", lambda name: pins[name.group(1)], text) for text in stated]
    assert len(resolved) >= 4
    assert all(re.fullmatch(r"\d+(\.\d+)*", version) for version in resolved)


def test_the_checkouts_pom_is_the_packages_own() -> None:
    assert (CHECKOUT / "deploy" / "kafka" / "pom.xml").samefile(POM)
