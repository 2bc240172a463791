"""Stores are reached over TLS, with a user or a key, and a refusal is told without the secret."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from front_process import ClickHouseServer, QdrantServer
from tls_proxy import tls_before

from operators.findings import Embedding
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.qdrant.reader import VectorReader
from sinks.qdrant.settings import QdrantSettings
from sinks.qdrant.sink import QdrantSink
from sinks.sink import AccessSinkError, Sink, SinkError

WRONG = "wrong-hush"


def a_frame() -> Frame:
    frame = Frame("photo", "gate", 1_767_225_600_000, Origin("images", 0, 0, 1_767_225_600_000))
    frame.findings.embedding = Embedding("tiny@1.0", [1.0, 0.0])
    return frame


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def clickhouse(clickhouse_front: ClickHouseServer) -> Callable[..., ClickHouseSettings]:
    database = f"access_{secrets.token_hex(5)}"

    def settings(**changes: Any) -> ClickHouseSettings:
        return ClickHouseSettings(
            **{
                "host": clickhouse_front.host,
                "port": clickhouse_front.port,
                "username": "writer",
                "password": clickhouse_front.writer_password,
                "database": database,
            }
            | changes
        )

    return settings


@pytest.fixture
def qdrant(
    qdrant_front: QdrantServer, unique: Callable[[str], str]
) -> Callable[..., QdrantSettings]:
    collection = unique("access")

    def settings(**changes: Any) -> QdrantSettings:
        return QdrantSettings(
            **{
                "host": qdrant_front.host,
                "grpc_port": qdrant_front.grpc_port,
                "api_key": qdrant_front.api_key,
                "collection": collection,
            }
            | changes
        )

    return settings


async def refusal_of(sink: Sink) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.open()
        await sink.write([a_frame()])
    await sink.close()
    return caught.value


async def test_clickhouse_is_written_and_read_over_tls_that_an_own_authority_signed(
    clickhouse: Callable[..., ClickHouseSettings],
    clickhouse_front: ClickHouseServer,
    certificates: Certificates,
) -> None:
    async with tls_before(clickhouse_front.port, certificates.server, certificates.key) as port:
        settings = clickhouse(port=port, secure=True, ca_cert=certificates.authority)
        sink = ClickHouseSink(settings)
        await sink.open()
        await sink.write([a_frame()])
        await sink.close()

        def read() -> list[dict[str, Any]]:
            with ClickHouseReader(settings) as reader:
                rows: list[dict[str, Any]] = reader.query("SELECT image_id FROM images").to_pylist()
                return rows

        assert await asyncio.to_thread(read) == [{"image_id": "photo"}]

        # Without the authority nobody is trusted.
        untrusted = await refusal_of(ClickHouseSink(clickhouse(port=port, secure=True)))
        assert "certificate verify failed" in str(untrusted).lower()


async def test_a_certificate_for_another_host_is_refused(
    clickhouse: Callable[..., ClickHouseSettings],
    clickhouse_front: ClickHouseServer,
    certificates: Certificates,
) -> None:
    async with tls_before(
        clickhouse_front.port, certificates.elsewhere, certificates.elsewhere_key
    ) as port:
        settings = clickhouse(port=port, secure=True, ca_cert=certificates.authority)
        refused = await refusal_of(ClickHouseSink(settings))
        assert "mismatch" in str(refused).lower() or "doesn't match" in str(refused)


@pytest.mark.parametrize("changes", [{"password": WRONG}, {"username": "nobody"}])
async def test_clickhouse_tells_who_is_refused_without_the_password(
    changes: dict[str, str], clickhouse: Callable[..., ClickHouseSettings]
) -> None:
    settings = clickhouse(**changes)
    refused = await refusal_of(ClickHouseSink(settings))
    assert isinstance(refused, AccessSinkError)
    assert "correct clickhouse.username and clickhouse.password" in str(refused)
    with pytest.raises(QueryError) as caught, ClickHouseReader(settings) as reader:
        reader.query("SELECT 1")
    assert not caught.value.transient
    for said in (str(refused), repr(refused.__cause__), str(caught.value), repr(settings)):
        assert settings.password.get_secret_value() not in said


async def test_qdrant_lets_in_who_has_the_key(qdrant: Callable[..., QdrantSettings]) -> None:
    sink = QdrantSink(qdrant(), "tiny@1.0", 2)
    await sink.open()
    await sink.write([a_frame()])
    await sink.close()
    async with VectorReader(qdrant()) as reader:
        assert [found.image_id for found in await reader.search(vector=[1.0, 0.0])] == ["photo"]


@pytest.mark.parametrize("key", [None, WRONG])
async def test_qdrant_tells_that_a_key_is_wrong_without_telling_it(
    key: str | None, qdrant: Callable[..., QdrantSettings]
) -> None:
    settings = qdrant(api_key=key)
    refused = await refusal_of(QdrantSink(settings, "tiny@1.0", 2))
    assert isinstance(refused, AccessSinkError)
    assert "correct qdrant.api_key" in str(refused)
    assert WRONG not in str(refused) + repr(refused.__cause__) + repr(settings)
