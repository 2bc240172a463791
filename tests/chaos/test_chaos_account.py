"""An account that cannot notice a loss proves nothing, so it is given losses to notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from bench.chaos.account import Findings, Letter, judge
from bench.chaos.producer import Load, inline
from bench.chaos.proxy import FaultyProxy, Mode

GOOD, BAD = "feed-good", "feed-bad"


@pytest.fixture
def load() -> Load:
    load = Load("feed")
    load.confirmed = {
        GOOD: inline(GOOD, "feed", b"a picture"),
        BAD: inline(BAD, "feed", b"none", expected_reasons=("corrupt",)),
    }
    load.confirmed_at = dict.fromkeys(load.confirmed, 0.0)
    return load


@pytest.fixture
def found() -> Findings:
    once = Counter([GOOD])
    return Findings(
        rows=once.copy(),
        points=once.copy(),
        verdicts=once.copy(),
        findings=once.copy(),
        failures=Counter([BAD]),
        letters={BAD: Letter("decode", "corrupt", 1.0)},
        letter_count=1,
    )


def test_an_image_that_is_everywhere_once_and_one_that_is_a_dead_letter_are_in_order(
    load: Load, found: Findings
) -> None:
    account = judge(load, found)
    assert (account.lost, account.doubled, account.wrong, account.repeats) == ([], [], [], 0)
    assert (account.stored, account.vectors, account.verdicts, account.dead_letters) == (1, 1, 1, 1)


@pytest.mark.parametrize("store", ["rows", "points", "verdicts", "findings"])
def test_an_image_that_is_missing_in_one_place_is_lost(
    load: Load, found: Findings, store: str
) -> None:
    getattr(found, store).clear()
    assert judge(load, found).lost == [GOOD]


def test_a_dead_letter_must_stand_in_its_topic_and_in_its_table(
    load: Load, found: Findings
) -> None:
    found.failures.clear()
    assert judge(load, found).lost == [BAD]


@pytest.mark.parametrize(
    ("spoil", "image_id"),
    [
        (lambda found: found.rows.update([GOOD]), GOOD),
        (lambda found: found.points.update([GOOD]), GOOD),
        (lambda found: found.failures.update([BAD]), BAD),
        (lambda found: found.failures.update([GOOD]), GOOD),
        (lambda found: found.rows.update(["feed-stranger"]), "feed-stranger"),
    ],
    ids=["two rows", "two points", "two failures", "row and failure", "never published"],
)
def test_what_stands_twice_or_was_never_published_is_doubled(
    load: Load, found: Findings, spoil: Callable[[Findings], None], image_id: str
) -> None:
    spoil(found)
    assert judge(load, found).doubled == [image_id]


def test_a_repeated_record_on_kafka_is_counted_and_allowed(load: Load, found: Findings) -> None:
    found.verdicts.update([GOOD])
    account = judge(load, found)
    assert account.repeats == 1
    assert account.doubled == []


def test_a_dead_letter_with_another_reason_is_wrong(load: Load, found: Findings) -> None:
    found.letters[BAD] = Letter("decode", "internal-error", 1.0)
    assert judge(load, found).wrong == [f"{BAD}: reason 'internal-error', expected corrupt"]


async def _echo() -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def _round_trip(port: int, data: bytes, patience: float = 60) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(patience):
            return await reader.readexactly(len(data))
    finally:
        writer.transport.abort()


async def test_the_proxy_fails_as_told_and_heals() -> None:
    server, target = await _echo()
    async with server, FaultyProxy(target) as proxy:
        assert await _round_trip(proxy.port, b"hello") == b"hello"
        await proxy.turn(Mode.REFUSE)
        with pytest.raises(ConnectionRefusedError):
            await _round_trip(proxy.port, b"hello")
        await proxy.turn(Mode.HANG)
        with pytest.raises(TimeoutError):
            await _round_trip(proxy.port, b"hello", patience=1.0)
        await proxy.turn(Mode.RESET)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await _round_trip(proxy.port, bytes(100_000))
        await proxy.turn(Mode.LOSE_ANSWER)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await _round_trip(proxy.port, b"hello")
        await proxy.turn(Mode.UNAVAILABLE)
        answer = await _round_trip(proxy.port, b"GET / HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        await proxy.turn(Mode.PASS)
        assert await _round_trip(proxy.port, b"hello again") == b"hello again"
