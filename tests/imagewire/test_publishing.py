"""What people name is found, published once, under ids that stay; what cannot be is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from shared_broker import SharedBroker

from imagewire.embedded.ports import free_port
from imagewire.publishing import (
    NothingToPublishError,
    Publication,
    Published,
    expand,
    image_publisher,
)
from operators.frame import Lane, Origin
from sinks.kafka.settings import KafkaSettings, TopicNames
from sinks.kafka.topics import ensure_topics
from sinks.sink import TransientSinkError
from streams.records import frame_from_record

JPEG = b"\xff\xd8\xff\xe0 as good as a photo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(JPEG)
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(publications: list[Publication]) -> list[str]:
    return [publication.path.name for publication in publications if publication.path]


# what names stand for


def test_a_folder_stands_for_its_image_files_below_it_as_well(folder: Path) -> None:
    assert names(expand([str(folder)], "feed", inline=False)) == ["a.PNG", "b.jpg", "c.webp"]


def test_a_file_that_is_named_is_published_whatever_it_is_called(folder: Path) -> None:
    assert names(expand([str(folder / "notes.txt")], "feed", inline=False)) == ["notes.txt"]


def test_globs_are_understood_where_the_shell_left_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(expand([f"{folder}/*.jpg"], "feed", inline=False)) == ["b.jpg"]
    monkeypatch.chdir(folder)
    assert names(expand(["**/*.webp"], "feed", inline=False)) == ["c.webp"]


def test_files_that_the_worker_may_read_go_as_references_and_others_with_their_bytes(
    folder: Path,
) -> None:
    (reference,) = expand([str(folder / "b.jpg")], "feed", inline=False, roots=[folder])
    assert (reference.uri, reference.path) == ((folder / "b.jpg").as_uri(), None)
    elsewhere = [folder / "below"]
    (inline,) = expand([str(folder / "b.jpg")], "feed", inline=False, roots=elsewhere)
    assert (inline.uri, inline.path) == (None, folder / "b.jpg")
    (asked,) = expand([str(folder / "b.jpg")], "feed", inline=True, roots=[folder])
    assert (asked.uri, asked.path) == (None, folder / "b.jpg")


def test_a_link_out_of_what_the_worker_may_read_is_no_reference(folder: Path) -> None:
    (folder / "below" / "link.jpg").symlink_to(folder / "b.jpg")
    link, root = str(folder / "below" / "link.jpg"), folder / "below"
    (publication,) = expand([link], "feed", inline=False, roots=[root])
    assert publication.path == folder / "b.jpg"


def test_links_that_lead_out_of_a_folder_are_left_out_unless_they_are_named(
    tmp_path: Path,
) -> None:
    for name in ("folder/own.jpg", "private/secret.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(JPEG)
    folder, secret = tmp_path / "folder", tmp_path / "private" / "secret.jpg"
    (folder / "inside.jpg").symlink_to(folder / "own.jpg")
    (folder / "outside.jpg").symlink_to(secret)
    (folder / "album").symlink_to(secret.parent)
    skipped: list[Path] = []
    found = expand([str(folder)], "feed", inline=True, on_skipped=skipped.append)
    assert [publication.path for publication in found] == [folder / "own.jpg"]
    assert folder / "outside.jpg" in skipped
    (named,) = expand([str(folder / "outside.jpg")], "feed", inline=True)
    assert named.path == secret


@pytest.mark.parametrize(
    "url", ["https://example.org/a.jpg", "s3://photos/a.jpg", "data:image/png;base64,AAAA"]
)
def test_a_url_goes_as_it_is_and_lets_kafka_name_it(url: str) -> None:
    assert expand([url], "feed", inline=True) == [Publication(None, "feed", uri=url)]


def test_a_file_with_a_colon_in_its_name_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camera:7.jpg").write_bytes(JPEG)
    assert names(expand(["camera:7.jpg"], "feed", inline=False)) == ["camera:7.jpg"]


def test_a_file_has_the_same_id_each_time_but_another_in_each_feed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (absolute,) = expand([str(folder / "b.jpg")], "north", inline=True)
    (relative,) = expand(["below/../b.jpg"], "north", inline=True)
    (other,) = expand(["b.jpg"], "south", inline=True)
    assert absolute.image_id == relative.image_id != other.image_id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.jpg", "there is no file or folder 'nowhere.jpg'"),
        ("*.tiff", "'*.tiff' matches no file"),
        ("empty", "the folder empty holds no image files"),
        ("pipe", "pipe is neither a file nor a folder"),
        ("x" * 300, "cannot be looked up: File name too long"),
        ("~nobody-of-this-name/a.jpg", "cannot be looked up"),
        ("nul\0.jpg", "there is no file or folder"),
    ],
)
def test_a_name_that_stands_for_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(NothingToPublishError) as caught:
        expand([name], "feed", inline=False)
    assert message in str(caught.value)


# what arrives


@pytest.fixture
async def kafka(kafka_broker: SharedBroker, unique: Callable[[str], str]) -> KafkaSettings:
    topics = TopicNames(**{name: unique(name) for name in TopicNames.model_fields})
    settings = KafkaSettings(bootstrap_servers=kafka_broker.address, partitions=2, topics=topics)
    await ensure_topics(settings)
    return settings


async def stored(settings: KafkaSettings, topic: str, count: int) -> list[Origin]:
    """The records of a topic, in the order of their partitions and offsets."""
    consumer = AIOKafkaConsumer(auto_offset_reset="earliest", **settings.client_options())
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(2)])
        records = [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()
    return [
        Origin(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
        )
        for record in sorted(records, key=lambda record: (record.partition, record.offset))
    ]


@pytest.mark.kafka
async def test_what_is_published_is_what_a_worker_takes(kafka: KafkaSettings, folder: Path) -> None:
    publications = expand(
        [str(folder / "b.jpg"), str(folder / "below"), "https://example.org/a.jpg"],
        "gate",
        inline=False,
        roots=[folder / "below"],
    )
    async with image_publisher(kafka) as publisher:
        published = [await publisher.publish(item) for item in publications]
    frames = {
        frame.image_id: frame
        for frame in map(frame_from_record, await stored(kafka, kafka.topics.images, 3))
    }
    assert {frame.feed for frame in frames.values()} == {"gate"}
    assert all(frame.failure is None for frame in frames.values())
    inline, reference, url = (frames[item.image_id] for item in published)
    assert inline.content == JPEG
    assert inline.content_type == "image/jpeg"
    assert inline.metadata == {"file-name": "b.jpg"}
    assert reference.uri == (folder / "below" / "c.webp").as_uri()
    assert url.uri == "https://example.org/a.jpg"
    # All of one feed are in one partition, in order.
    assert [item.offset for item in published] == [0, 1, 2]


@pytest.mark.kafka
async def test_the_bulk_lane_has_a_topic_of_its_own(kafka: KafkaSettings, folder: Path) -> None:
    (publication,) = expand([str(folder / "b.jpg")], "gate", inline=True)
    async with image_publisher(kafka) as publisher:
        published = await publisher.publish(publication, Lane.BULK)
    assert published.topic == kafka.topics.bulk
    assert len(await stored(kafka, kafka.topics.bulk, 1)) == 1


@pytest.mark.kafka
async def test_files_that_cannot_be_sent_do_not_stop_the_others(
    kafka: KafkaSettings, folder: Path
) -> None:
    (folder / "large.jpg").write_bytes(JPEG + bytes(20_000))
    found = ["b.jpg", "gone.jpg", "large.jpg", "below/c.webp"]
    publications = [Publication(name, "gate", path=folder / name) for name in found]
    outcomes: dict[str, Published | NothingToPublishError] = {}

    def done(publication: Publication, outcome: Published | NothingToPublishError) -> None:
        outcomes[publication.image_id or ""] = outcome

    small = kafka.model_copy(update={"max_record_bytes": 16_384})
    async with image_publisher(small) as publisher:
        await publisher.publish_all(publications, Lane.LIVE, done)
    assert isinstance(outcomes["b.jpg"], Published)
    assert isinstance(outcomes["below/c.webp"], Published)
    assert "gone.jpg cannot be read: No such file or directory" in str(outcomes["gone.jpg"])
    assert "large.jpg is too large for a Kafka record" in str(outcomes["large.jpg"])
    assert "publish a reference to it instead" in str(outcomes["large.jpg"])
    assert len(await stored(kafka, kafka.topics.images, 2)) == 2


async def test_a_broker_that_is_not_there_is_named() -> None:
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(TransientSinkError, match=settings.bootstrap_servers):
        async with image_publisher(settings):
            pass
