"""Where Apache Kafka's jars come from: an installation, or Maven once and then a cache.

Maven resolves the pinned `pom.xml` of this package into a directory named after the Kafka version
and the file's own hash, so that another pin never meets old jars. The directory appears by one
rename, under a lock: two stacks that start at once resolve once, and a download that broke half
way is never taken for a whole one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imagewire.embedded.broker import BrokerError

POM = Path(__file__).with_name("pom.xml")

# Kafka 4 dropped Java 11 for brokers (KIP-1013), and ZooKeeper with it.
LOWEST_JAVA = 17
LOWEST_KAFKA = (4, 0)

# About 100 MB from the registry; 4 s on a fast line.
MAVEN_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class KafkaJars:
    """A directory of jars that can run a broker.

    Attributes:
        directory: every jar in it goes on the class path.
        version: Kafka's, such as "4.3.1".
        origin: where they come from, in words.
    """

    directory: Path
    version: str
    origin: str


def pinned_version() -> str:
    """The Kafka version that `pom.xml` asks for."""
    found = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", POM.read_text())
    if found is None:
        raise BrokerError(f"{POM} names no <kafka.version>; reinstall imagewire")
    return found.group(1)


def java_program() -> str | None:
    """The `java` to run: `$JAVA_HOME/bin/java` if set, else the one on the PATH, else None."""
    home = os.environ.get("JAVA_HOME")
    if home and (program := Path(home, "bin", "java")).is_file():
        return str(program)
    return shutil.which("java")


def java_version(program: str) -> int | None:
    """The feature version of a Java (17, 21, ...), or None if it does not tell."""
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own Java
            [program, "-version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr + answer.stdout)
    if found is None:
        return None
    first, second = int(found.group(1)), found.group(2)
    return int(second) if first == 1 and second else first  # "1.8.0" is Java 8


def require_java() -> str:
    """The path of a Java that can run Kafka.

    Raises:
        BrokerError: there is none, or it is too old.
    """
    program = java_program()
    if program is None:
        raise BrokerError(
            f"Apache Kafka needs Java {LOWEST_JAVA} or later and there is no `java`: install a "
            "JRE (Debian: openjdk-17-jre-headless), set JAVA_HOME, or use --broker tansu"
        )
    version = java_version(program)
    if version is None or version < LOWEST_JAVA:
        raise BrokerError(
            f"Apache Kafka needs Java {LOWEST_JAVA} or later; {program} is "
            f"{f'Java {version}' if version else 'of unknown version'}: install a newer one, set "
            "JAVA_HOME, or use --broker tansu"
        )
    return program


def installed_jars() -> KafkaJars | None:
    """The jars of the installation named by IMAGEWIRE_KAFKA_HOME or KAFKA_HOME, if any is.

    Raises:
        BrokerError: what is named is no installation of Kafka 4 or later.
    """
    for variable in ("IMAGEWIRE_KAFKA_HOME", "KAFKA_HOME"):
        if home := os.environ.get(variable):
            libs = Path(home, "libs")
            versions = [
                found.group(1)
                for jar in libs.glob("kafka_2.1*.jar")
                if (found := re.fullmatch(r"kafka_2\.1\d-(\d+\.\d+\.\d+)\.jar", jar.name))
            ]
            if not versions:
                raise BrokerError(
                    f"{variable}={home} is no Kafka installation: {libs} holds no "
                    "kafka_2.13-<version>.jar; correct or unset it"
                )
            version = versions[0]
            major, minor = (int(part) for part in version.split(".")[:2])
            if (major, minor) < LOWEST_KAFKA:
                raise BrokerError(
                    f"{variable}={home} is Kafka {version}; {LOWEST_KAFKA[0]}.0 or later is "
                    "needed; name a newer one or unset it"
                )
            return KafkaJars(libs, version, f"the installation in {home} ({variable})")
    return None


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/imagewire/kafka`; where that is unset, below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification asks to ignore a relative path.
    cache = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return cache / "imagewire" / "kafka"


def cached_jars() -> KafkaJars | None:
    """The jars that Maven resolved earlier for exactly this `pom.xml`, if it did."""
    directory = _cache_directory()
    if not directory.is_dir():
        return None
    return KafkaJars(directory, pinned_version(), f"Maven, cached in {directory}")


async def resolve_jars() -> KafkaJars:
    """The jars to run: of the named installation, from the cache, or by Maven now.

    Raises:
        BrokerError: Maven is missing or failed; the message ends with what it said.
    """
    if (found := installed_jars() or cached_jars()) is not None:
        return found
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            "Apache Kafka's jars are resolved once by Maven and there is no `mvn`: install it "
            "(Debian: maven), name a Kafka installation in IMAGEWIRE_KAFKA_HOME, or use "
            "--broker tansu"
        )
    return await _resolve_with_maven(maven)


def _cache_directory() -> Path:
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    return cache_root() / f"{pinned_version()}-{digest}"


async def _resolve_with_maven(maven: str) -> KafkaJars:
    directory = _cache_directory()
    directory.parent.mkdir(parents=True, exist_ok=True)
    async with _locked(directory.with_suffix(".lock")):
        if (found := cached_jars()) is not None:  # another process was quicker
            return found
        prefix = f".{directory.name}-"
        for abandoned in directory.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
        try:
            await _run_maven(maven, unfinished)
            _accept(unfinished, directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return KafkaJars(directory, pinned_version(), f"Maven, now cached in {directory}")


def _accept(unfinished: Path, directory: Path) -> None:
    if not any(unfinished.glob("kafka_2.13-*.jar")):
        raise BrokerError(
            f"Maven ended well but brought no Kafka into {unfinished}; "
            f"run `mvn -f {POM} dependency:tree` to see why"
        )
    unfinished.chmod(0o755)
    unfinished.rename(directory)


async def _run_maven(maven: str, target: Path) -> None:
    command = [
        *(maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"),
        *("-DincludeScope=runtime", f"-DoutputDirectory={target}"),
    ]
    run = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(MAVEN_TIMEOUT):
            said = (await run.communicate())[0].decode(errors="replace")
    except TimeoutError:
        said = f"it did not end within {MAVEN_TIMEOUT:g} s"
    finally:
        # Also when the user interrupts. `mvn` is a shell script around Java: end both.
        if run.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            await run.wait()
    if run.returncode != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        raise BrokerError(
            f"Maven could not bring Apache Kafka {pinned_version()} ({' '.join(command)}): "
            "check the network and the mirrors in ~/.m2/settings.xml, name a Kafka installation "
            "in IMAGEWIRE_KAFKA_HOME, or use --broker tansu. Maven said:\n" + "\n".join(lines[-12:])
        )


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock; waiting for it can be cancelled, so that Ctrl-C ends it."""
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.2)
        yield
