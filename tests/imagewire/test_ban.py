"""Bans on a broker: made on the command line, known to every worker within a second, exchanged
with others in files of any length."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from imagewire import ban_files
from imagewire.ban_files import BanFileError, UnsupportedKindError, read_rows
from imagewire.cli import run
from operators.ban_records import BannedHash, BanRecord, HashKind
from operators.banlists import Banlists
from operators.findings import Fingerprint
from sinks.kafka.settings import KafkaSettings
from streams.ban_topic import BanTopic
from streams.metrics import Metrics

CONTENT = hashlib.sha256(b"a picture").hexdigest()


def digests(count: int) -> list[str]:
    codes = np.random.default_rng(7).integers(0, 256, (count, 32), dtype=np.uint8)
    return [code.tobytes().hex() for code in codes]


def rows_of(
    file: Path, text: str, banlist: str | None = "terror", kind: HashKind | None = None
) -> list[BanRecord | BanFileError]:
    file.write_text(text)
    return list(read_rows(file, banlist, kind))


A, B = digests(2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "threatexchange.csv",
            "collab,signal_type,signal_str,category,tags\n"
            f"Samples,pdq,{A},WORTH_INVESTIGATING,\nSamples,sha256,{B},X,seen twice\n",
        ),
        (
            "indicators.csv",
            f"id,indicator,type,tags\n1,{A.upper()},HASH_PDQ,\n2,{B},HASH_SHA256,\n",
        ),
        ("signals.jsonl", f'{{"pdq": "{A}"}}\n\n{{"sha256": "{B}", "comment": "seen twice"}}\n'),
        (
            "answer.json",
            json.dumps(
                {
                    "data": [
                        {"indicator": A, "type": "HASH_PDQ", "tags": ["a", "b"]},
                        {"indicator": B, "type": "HASH_SHA256"},
                    ]
                }
            ),
        ),
    ],
)
def test_files_that_others_write_are_understood(tmp_path: Path, name: str, text: str) -> None:
    rows = rows_of(tmp_path / name, text)
    found = [(row.kind, row.hash) for row in rows if isinstance(row, BannedHash)]
    assert found == [("pdq", A), ("sha256", B)]
    assert all(isinstance(row, BannedHash) and row.list == "terror" for row in rows)


def test_a_file_without_heading_is_hashes_of_the_kind_that_is_named(tmp_path: Path) -> None:
    text = f"{A},2880742865368386,2020-07-31T18:47:52+0000,sample photo\n{B}\n"
    first, second = rows_of(tmp_path / "pdq.csv", text, kind="pdq")
    assert isinstance(first, BannedHash)
    assert (first.hash, first.comment) == (A, "sample photo")
    assert isinstance(second, BannedHash)
    [unsure, _] = rows_of(tmp_path / "pdq.csv", text)
    assert isinstance(unsure, BanFileError)
    assert "row 1" in str(unsure)
    assert "--kind" in str(unsure)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pdq,xyz", "row 2: 'xyz' is no hash of 64 hexadecimal digits"),
        (f"video_md5,{A}", "row 2: 'video_md5' is not matched"),
        (f"pdq,{A[:63]}", "is no hash"),
    ],
)
def test_errors_name_the_row(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    [error] = rows_of(file, f"signal_type,signal_str\n{line}\n")
    assert isinstance(error, BanFileError)
    assert message in str(error)
    assert str(file) in str(error)
    assert isinstance(error, UnsupportedKindError) == ("md5" in line)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.txt", b""),
        ("rows.csv", b"signal_type,signal_str\n\xff\xfe,x\n"),
        ("rows.csv", b"hash\n" + b"a" * 200_000),
        ("rows.json", b"{" * 100_000),
        ("rows.json", b"3"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BanFileError, match="rows"):
        list(read_rows(file, "terror", "pdq"))


def test_one_line_without_use_leaves_the_others_of_its_file(tmp_path: Path) -> None:
    good, bad, last = rows_of(tmp_path / "rows.jsonl", f'{{"pdq": "{A}"}}\n{{]\n{{"pdq": "{B}"}}\n')
    assert (good.hash, last.hash) == (A, B)  # type: ignore[union-attr]
    assert isinstance(bad, BanFileError)
    assert "rows.jsonl, row 2: no JSON" in str(bad)


def test_a_document_that_never_ends_is_read_up_to_the_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ban_files, "MOST_JSON_CHARACTERS", 4_096)
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(BanFileError, match="more than 4096 characters"):
        list(read_rows(tmp_path / "zero.json", "terror"))


def test_lines_without_anything_before_the_heading_are_passed_over(tmp_path: Path) -> None:
    text = f"\n ,\nsignal_type,signal_str\npdq,{A}\npdq,x\n"
    record, error = rows_of(tmp_path / "rows.csv", text)
    assert record.hash == A  # type: ignore[union-attr]
    assert "row 5:" in str(error)
    assert rows_of(tmp_path / "none.csv", "\n\n") == []


def test_comments_that_a_spreadsheet_would_run_are_made_harmless(tmp_path: Path) -> None:
    from imagewire.ban_files import BanFileWriter

    file = tmp_path / "out.csv"
    with file.open("w", newline="") as stream:
        writer = BanFileWriter(stream, "csv")
        writer.write(BannedHash(list="terror", kind="pdq", hash=A, comment="=HYPERLINK(1)"))
        writer.close()
    assert "'=HYPERLINK(1)" in file.read_text()


class Broker:
    """Topics of this test's own, named in a settings file."""

    def __init__(self, address: str, prefix: str, folder: Path) -> None:
        self.config = folder / "imagewire.toml"
        self.config.write_text(
            f'[kafka]\nbootstrap_servers = "{address}"\npartitions = 2\n[kafka.topics]\n'
            + "".join(
                f'{name} = "{prefix}.{name}"\n'
                for name in type(KafkaSettings().topics).model_fields
            )
        )
        from imagewire.settings import load_settings

        self.kafka = load_settings(self.config).settings.kafka

    def ban(self, *arguments: str) -> int:
        return run(["ban", *arguments, "--config", str(self.config)])


@pytest.fixture
def broker(apache_kafka: object, unique: Callable[[str], str], tmp_path: Path) -> Broker:
    return Broker(apache_kafka.address, unique("bans"), tmp_path)  # type: ignore[attr-defined]


@asynccontextmanager
async def following(broker: Broker) -> AsyncIterator[tuple[Banlists, Metrics]]:
    """What a worker does with the topic."""
    banlists, metrics = Banlists(), Metrics()
    topic = BanTopic(broker.kafka, banlists, metrics)
    running = asyncio.create_task(topic.run())
    try:
        async with asyncio.timeout(120):
            await topic.ready()
        yield banlists, metrics
    finally:
        running.cancel()
        await asyncio.wait([running])
        banlists.close()


async def until(met: Callable[[], bool]) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    async with asyncio.timeout(120):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - start


@pytest.mark.kafka
async def test_bans_travel_from_the_command_line_to_workers_and_back(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ban(*arguments: str) -> int:
        return await asyncio.to_thread(broker.ban, *arguments)

    def matches(banlists: Banlists) -> list[tuple[str, str]]:
        found = banlists.match_content(CONTENT)
        found += banlists.match_picture(Fingerprint(CONTENT, A, 100))
        return [(match.list, match.kind) for match in found]

    assert await ban("add", "--list", "terror", "--pdq", A) == 1
    assert "there is no list 'terror'; make it with" in capsys.readouterr().err
    assert await ban("set", "terror", "--reason", "propaganda", "--max-distance", "20") == 0
    assert await ban("set", "terror", "--max-distance", "32") == 2
    assert await ban("set", "terror", "--owner", "trust") == 0
    assert await ban("add", "--list", "terror", "--pdq", A, "--comment", "case 1") == 0
    async with following(broker) as (banlists, metrics):
        # What stood before the worker began is known to it before its first image.
        [banlist] = banlists.lists
        assert (banlist.owner, banlist.reason, banlist.max_distance) == ("trust", "propaganda", 20)
        assert matches(banlists) == [("terror", "pdq")]
        assert await ban("add", "--list", "terror", "--sha256", CONTENT) == 0
        await until(lambda: len(matches(banlists)) == 2)
        assert await ban("remove", "--list", "terror", A, B) == 1
        assert f"{B} is not on terror" in capsys.readouterr().err
        await until(lambda: matches(banlists) == [("terror", "sha256")])

        many = tmp_path / "many.csv"
        many.write_text(
            "signal_type,signal_str\n" + "".join(f"pdq,{one}\n" for one in digests(3000))
        )
        assert await ban("import", str(many), "--list", "terror") == 0
        assert await ban("import", str(many), "--list", "terror") == 0
        await until(lambda: matches(banlists) == [("terror", "sha256"), ("terror", "pdq")])

        out = tmp_path / "out.jsonl"
        assert await ban("export", str(out), "--list", "terror") == 0
        assert len(out.read_text().splitlines()) == 3002
        capsys.readouterr()
        assert await ban("lists", "--json") == 0
        [shown] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert shown["entries"] == {"pdq": 3000, "sha256": 1, "exemplar": 0}
        assert await ban("list", "terror", "--limit", "1", "--json") == 0
        assert json.loads(capsys.readouterr().out)["list"] == "terror"

        assert await ban("remove", "--list", "terror", "--whole-list") == 0
        await until(lambda: not banlists.lists)
        assert await ban("import", str(out)) == 0
        await until(lambda: len(matches(banlists)) == 2)

        producer = AIOKafkaProducer(**broker.kafka.producer_options())
        await producer.start()
        pdq_key = f"pdq:terror:{A}".encode()
        for key, value in ((b"junk", b"{}"), (pdq_key, b"junk"), (b"list:", b"x")):
            await producer.send_and_wait(broker.kafka.topics.bans, value, key=key)
        await producer.stop()
        refused = "imagewire_ban_records_refused_total"
        await until(lambda: metrics.registry.get_sample_value(refused) == 3)
        assert len(matches(banlists)) == 2, "what is no ban changes none"


@pytest.mark.kafka
async def test_a_worker_knows_of_a_ban_within_a_second(broker: Broker) -> None:
    from imagewire.bans import added, bans
    from operators.ban_records import Banlist

    async with bans(broker.kafka) as topic, following(broker) as (banlists, _):
        await topic.write(added([Banlist(name="terror")]))
        await until(lambda: bool(banlists.lists))
        delays = []
        for digest in digests(8):
            await topic.write(added([BannedHash(list="terror", kind="sha256", hash=digest)]))
            delays.append(await until(lambda digest=digest: bool(banlists.match_content(digest))))
        # The median: a machine under load may stand still for a second at any time.
        assert sorted(delays)[4] < 1


@pytest.mark.kafka
async def test_a_picture_is_banned_by_its_file_and_its_looks(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image
    from skimage import data

    photo, plain, broken = (tmp_path / name for name in ("photo.png", "plain.png", "broken.png"))
    Image.fromarray(data.astronaut()).save(photo)
    Image.new("RGB", (64, 64), "grey").save(plain)
    broken.write_bytes(b"no picture")
    assert await asyncio.to_thread(broker.ban, "set", "terror") == 0
    assert await asyncio.to_thread(broker.ban, "add", str(photo), "--list", "terror") == 0
    said = capsys.readouterr().err
    assert f"banned sha256 {hashlib.sha256(photo.read_bytes()).hexdigest()} on terror" in said
    assert "banned pdq " in said
    assert await asyncio.to_thread(broker.ban, "add", str(plain), "--list", "terror") == 0
    said = capsys.readouterr().err
    assert "too little structure for a PDQ hash" in said
    assert "banned pdq" not in said
    assert await asyncio.to_thread(broker.ban, "add", str(broken), "--list", "terror") == 1
    assert "broken.png" in capsys.readouterr().err
