"""Secrets come from files, and appear nowhere: not printed, logged, traced or served."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from imagewire.cli import run
from imagewire.cli.log_output import OWN, printable_line, write_log
from imagewire.embedded.ports import free_port
from imagewire.secret_files import secret_keys
from imagewire.settings import ConfigurationError, Settings, load_settings
from imagewire.settings_reference import DEFAULT_PAGE

ROOT = Path(__file__).parents[2]


def variable(key: str) -> str:
    return "IMAGEWIRE_" + key.upper().replace(".", "__")


SECRETS = {key: f"hush-{number}-{key}" for number, key in enumerate(secret_keys(Settings))}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("IMAGEWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key, secret in SECRETS.items():
        file = tmp_path / key
        file.write_text(secret + "\n")
        monkeypatch.setenv(variable(key) + "_FILE", str(file))


def value_of(settings: Settings, key: str) -> str:
    value = settings
    for name in key.split("."):
        value = getattr(value, name)
    assert isinstance(value, SecretStr)
    return value.get_secret_value()


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    return str(caught.value)


def test_the_secrets_are_known() -> None:
    assert set(SECRETS) == {
        "kafka.sasl_password", "clickhouse.password", "qdrant.api_key", "http.key"
    }  # fmt: skip


def test_every_secret_can_come_from_a_file(in_files: None) -> None:
    loaded = load_settings()
    for key, secret in SECRETS.items():
        assert value_of(loaded.settings, key) == secret
        assert loaded.origins[key] == variable(key) + "_FILE"


def test_a_file_wins_over_the_settings_file_as_any_variable_does(in_files: None) -> None:
    Path("imagewire.toml").write_text('[qdrant]\napi_key = "from the file"\nhost = "q"\n')
    settings = load_settings().settings
    assert value_of(settings, "qdrant.api_key") == SECRETS["qdrant.api_key"]
    assert settings.qdrant.host == "q"


def test_only_one_line_break_at_the_end_is_no_part_of_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for content, secret in ((b" a b \r\n", " a b "), (b"x\n\n", "x\n"), ("é".encode(), "é")):
        (tmp_path / "key").write_bytes(content)
        monkeypatch.setenv("IMAGEWIRE_HTTP__KEY_FILE", str(tmp_path / "key"))
        assert value_of(load_settings().settings, "http.key") == secret


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"x" * 70_000, "is too large for a secret"),
    ],
)
def test_a_file_without_a_secret_is_named_and_not_quoted(
    content: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("IMAGEWIRE_HTTP__KEY_FILE", str(file))
    message = refusal()
    assert f"IMAGEWIRE_HTTP__KEY_FILE: {file} {said}" in message
    assert "xxxx" not in message


def test_a_secret_that_is_given_twice_is_refused(
    in_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEWIRE_HTTP__KEY", "hush-direct")
    message = refusal()
    assert "IMAGEWIRE_HTTP__KEY and IMAGEWIRE_HTTP__KEY_FILE are both set" in message
    assert "hush" not in message


def test_what_is_no_secret_has_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGEWIRE_HTTP__HOST_FILE", str(tmp_path / "host"))
    assert "IMAGEWIRE_HTTP__HOST_FILE: there is no such key" in refusal()


def test_the_page_of_settings_tells_of_files() -> None:
    assert "KAFKA__SASL_PASSWORD_FILE=" in (ROOT / DEFAULT_PAGE).read_text()


def test_secrets_are_masked_in_config_in_representations_and_in_tracebacks(
    in_files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config"]) == 0
    assert run(["config", "--json"]) == 0
    loaded = load_settings()
    shown = [*capsys.readouterr(), repr(loaded), str(loaded.settings), repr(loaded.settings.kafka)]
    shown.append(loaded.settings.model_dump_json())
    try:
        loaded.settings.kafka.bootstrap_servers.index("nowhere")
    except ValueError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True)
        shown.append("".join(frames.format()))
    assert not [text for text in shown if "hush" in text]


@pytest.mark.parametrize("key", sorted(SECRETS))
def test_a_secret_of_the_wrong_kind_is_not_quoted(key: str) -> None:
    table, name = key.split(".")
    Path("imagewire.toml").write_text(f'[{table}]\n{name} = ["hush"]\nextra = "hush"\n')
    message = refusal()
    assert key in message
    assert "hush" not in message


async def test_a_worker_shows_no_secret_in_its_log_its_arguments_its_health_or_its_metrics(
    in_files: None, tmp_path: Path
) -> None:
    """At DEBUG, refused by a store that it reaches and kept from others that it does not."""
    seen: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65_536))
        writer.close()

    broker = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = free_port()
    off = "".join(
        f"[operators.{name}]\nenabled = false\n"
        for name in ("objects", "text", "scores", "embedding", "fingerprint")
    )
    file = tmp_path / "imagewire.toml"
    file.write_text(
        f"""
        [log]
        level = "DEBUG"
        [kafka]
        bootstrap_servers = "127.0.0.1:{broker.sockets[0].getsockname()[1]}"
        security_protocol = "SASL_PLAINTEXT"
        sasl_username = "me"
        [http]
        port = {port}
        {off}
        """
    )
    log = tmp_path / "log"
    with log.open("wb") as output:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "imagewire", "worker", "--config", str(file)),
            stdout=output,
            stderr=output,
        )
    try:
        key = SECRETS["http.key"]
        async with asyncio.timeout(180), httpx.AsyncClient(trust_env=False, timeout=60) as client:
            while "waiting for kafka" not in log.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            pages = []
            for path in ("healthz", "metrics"):
                url = f"http://127.0.0.1:{port}/{path}"
                assert (await client.get(url)).status_code == 401
                answer = await client.get(url, headers={"Authorization": f"Bearer {key}"})
                pages.append(answer.text + str(answer.headers))
        assert "kafka" in json.loads(pages[0].split("Headers(")[0])["detail"]
        arguments = psutil.Process(worker.pid).cmdline()
    finally:
        worker.terminate()
        async with asyncio.timeout(60):
            code = await worker.wait()
        broker.close()
    assert code == 0  # as whoever sends SIGTERM expects
    assert seen  # it did talk to the broker
    for shown in (log.read_text(), *pages, *arguments):
        assert "hush" not in shown


@pytest.fixture
def log_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What a worker's log holds at DEBUG; logging is left as it was found."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in OWN}
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root.handlers[:] = []
    write_log("DEBUG")
    yield stream.getvalue
    root.handlers[:], root.level, levels = kept
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    "hostile",
    [
        "a\n2026-01-01 00:00:00,000 ERROR   imagewire: forged",
        "\x1b[2J\x1b]0;title\x07",
        "one\rtwo",
        "next\x85line and\u2028separator",
        "right\u202eto left",
    ],
    ids=["forged line", "escape", "return", "separators", "turned"],
)
def test_no_text_of_a_stranger_forges_a_line_or_moves_a_cursor(
    hostile: str, log_of: Callable[[], str]
) -> None:
    logger = logging.getLogger("sinks.qdrant.sink")
    logger.warning("image %s failed", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        logger.exception("image %s failed", hostile)
    text = log_of()
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    text.encode()
    starts = [line for line in lines if line and not line.startswith("  | ")]
    assert len(starts) == 2
    assert all(" sinks.qdrant.sink: image " in line for line in starts)


def test_half_a_character_pair_is_written_as_its_escape() -> None:
    # Not by logging it: pytest would keep the record and send it to another process, as UTF-8.
    assert printable_line("half a \ud800 pair") == "half a \\ud800 pair"


def test_libraries_write_nothing_below_a_warning_for_they_write_headers(
    log_of: Callable[[], str],
) -> None:
    for name in ("hpack.hpack", "asyncio", "httpcore.http11", "faust"):
        logging.getLogger(name).info("authorization: hush")
        logging.getLogger(name).warning("something is wrong in %s", name)
    logging.getLogger("streams.pipeline").debug("of our own")
    text = log_of()
    assert "hush" not in text
    assert text.count("something is wrong") == 4
    assert "of our own" in text
