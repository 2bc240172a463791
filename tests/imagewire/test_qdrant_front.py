"""The embedded Qdrant answers any qdrant-client as a server would, and keeps what it confirmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from front_process import START_TIMEOUT, QdrantServer
from qdrant_client import QdrantClient, models

from imagewire.embedded.ports import free_port

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

KEY = "s3cret-of-the-test"
UNIT = models.VectorParams(size=4, distance=models.Distance.COSINE)


def client_for(port: int, key: str = KEY, host: str = "127.0.0.1") -> QdrantClient:
    return QdrantClient(
        host=host,
        grpc_port=port,
        prefer_grpc=True,
        api_key=key,
        https=False,
        check_compatibility=False,
        timeout=60,
        grpc_options={
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 100,
        },
    )


@pytest.fixture(scope="module")
def client(qdrant_front: QdrantServer) -> Iterator[QdrantClient]:
    client = client_for(qdrant_front.grpc_port, qdrant_front.api_key, qdrant_front.host)
    yield client
    client.close()


@pytest.fixture
def collection(client: QdrantClient, unique: Callable[[str], str]) -> str:
    name = unique("photos")
    client.create_collection(name, vectors_config=UNIT)
    return name


def code_of(failure: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return failure.value.code()


def details_of(failure: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(failure.value.details())


def three_points() -> list[models.PointStruct]:
    return [
        models.PointStruct(id=1, vector=[1, 0, 0, 0], payload={"feed": "a", "n": 1}),
        models.PointStruct(id=2, vector=[0, 1, 0, 0], payload={"feed": "b", "n": 2}),
        models.PointStruct(id=3, vector=[0.9, 0.1, 0, 0], payload={"feed": "a", "n": 3}),
    ]


PAYLOAD: dict[str, Any] = {
    "text": "ünï",
    "whole": 2**53 + 1,
    "real": 0.5,
    "yes": True,
    "nothing": None,
    "list": [1, "two", None, [3.5]],
    "nested": {"deep": {"er": [{"x": False}]}},
    "empty": {},
}


def test_a_payload_comes_back_as_it_was_given(client: QdrantClient, collection: str) -> None:
    identity = str(uuid.uuid4())
    point = models.PointStruct(id=identity, vector=[0.5, 0.5, 0.5, 0.5], payload=PAYLOAD)
    client.upsert(collection, [point], wait=True)
    [record] = client.retrieve(collection, [identity], with_vectors=True)
    assert record.id == identity
    assert record.payload == PAYLOAD
    assert record.vector == pytest.approx([0.5, 0.5, 0.5, 0.5])


def test_parts_of_a_payload_can_be_asked_for(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, three_points())
    [only_n] = client.retrieve(collection, [1], with_payload=["n"])
    [without_n] = client.retrieve(
        collection, [1], with_payload=models.PayloadSelectorExclude(exclude=["n"])
    )
    [nothing] = client.retrieve(collection, [1], with_payload=False)
    assert only_n.payload == {"n": 1}
    assert without_n.payload == {"feed": "a"}
    assert not nothing.payload


def test_the_nearest_come_first_with_limit_offset_and_threshold(
    client: QdrantClient, collection: str
) -> None:
    client.upsert(collection, three_points())

    def ids(**options: Any) -> list[Any]:
        return [p.id for p in client.query_points(collection, [1.0, 0, 0, 0], **options).points]

    assert ids() == [1, 3, 2]
    assert ids(limit=1) == [1]
    assert ids(limit=1, offset=1) == [3]
    assert ids(score_threshold=0.5) == [1, 3]
    assert [p.id for p in client.query_points(collection, 1).points] == [3, 2]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (models.Filter(must=[models.FieldCondition(key="feed", match={"value": "a"})]), {1, 3}),
        (models.Filter(must_not=[models.FieldCondition(key="feed", match={"value": "a"})]), {2}),
        (
            models.Filter(
                should=[
                    models.FieldCondition(key="n", match=models.MatchAny(any=[1, 9])),
                    models.FieldCondition(key="feed", match=models.MatchAny(any=["b"])),
                ]
            ),
            {1, 2},
        ),
        (models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gt=1))]), {2, 3}),
        (models.Filter(must=[models.HasIdCondition(has_id=[2, 3])]), {2, 3}),
        (models.Filter(must=[models.IsEmptyCondition(is_empty={"key": "x"})]), {1, 2, 3}),
        (
            models.Filter(
                must=[
                    models.Filter(
                        must_not=[
                            models.FieldCondition(
                                key="feed", match=models.MatchExcept(**{"except": ["b"]})
                            )
                        ]
                    )
                ]
            ),
            {2},
        ),
    ],
)
def test_filters_mean_what_they_mean_on_a_server(
    client: QdrantClient, collection: str, chosen: models.Filter, expected: set[int]
) -> None:
    client.upsert(collection, three_points())
    points, _ = client.scroll(collection, scroll_filter=chosen)
    assert {point.id for point in points} == expected
    assert client.count(collection, count_filter=chosen).count == len(expected)


def test_scrolling_sees_every_point_once(client: QdrantClient, collection: str) -> None:
    client.upsert(
        collection, [models.PointStruct(id=n, vector=[1, n, 0, 0], payload={}) for n in range(25)]
    )
    seen: list[Any] = []
    offset: Any = None
    while True:
        points, offset = client.scroll(collection, limit=10, offset=offset)
        seen += [point.id for point in points]
        if offset is None:
            break
    assert sorted(seen) == list(range(25))


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, three_points())
    client.delete(collection, [1])
    assert client.count(collection).count == 2
    client.delete(
        collection, models.Filter(must=[models.FieldCondition(key="feed", match={"value": "b"})])
    )
    assert [p.id for p in client.scroll(collection)[0]] == [3]
    with pytest.raises(grpc.RpcError) as failure:
        client.delete(collection, models.FilterSelector(filter=models.Filter()))
    assert "delete everything" in details_of(failure)
    assert client.count(collection).count == 1


def test_indexes_are_listed_and_facets_counted(client: QdrantClient, collection: str) -> None:
    client.create_payload_index(collection, "feed", models.PayloadSchemaType.KEYWORD)
    client.upsert(collection, three_points())
    info = client.get_collection(collection)
    assert info.points_count == 3
    assert info.payload_schema["feed"].data_type == models.PayloadSchemaType.KEYWORD
    facets = client.facet(collection, "feed").hits
    assert {hit.value: hit.count for hit in facets} == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        ([float("nan"), 0, 0, 0], "point 7: the vector holds NaN or infinity"),
        ([float("inf"), 0, 0, 0], "point 7: the vector holds NaN or infinity"),
        ([1.0, 0], "point 7: the vector has 2 components, the collection 4"),
    ],
)
def test_a_bad_vector_is_refused_and_nothing_of_its_request_is_kept(
    client: QdrantClient, collection: str, vector: list[float], complaint: str
) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.upsert(
            collection, [*three_points(), models.PointStruct(id=7, vector=vector, payload={})]
        )
    assert code_of(failure) is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(failure) == complaint
    assert client.count(collection).count == 0


def test_what_the_engine_cannot_do_is_refused_by_name(
    client: QdrantClient, collection: str
) -> None:
    requests: list[tuple[str, Callable[[], Any]]] = [
        ("method /qdrant.Points/ClearPayload", lambda: client.clear_payload(collection, [1])),
        (
            "'prefetch' in QueryPoints",
            lambda: client.query_points(
                collection, prefetch=[models.Prefetch(query=[1.0, 0, 0, 0])], query=[1.0, 0, 0, 0]
            ),
        ),
        (
            "named vectors",
            lambda: client.create_collection("named", vectors_config={"a": UNIT}),
        ),
        (
            "'geo_radius' in FieldCondition",
            lambda: client.count(
                collection,
                count_filter=models.Filter(
                    must=[
                        models.FieldCondition(
                            key="where",
                            geo_radius=models.GeoRadius(center={"lon": 1, "lat": 2}, radius=3),
                        )
                    ]
                ),
            ),
        ),
    ]
    for named, request in requests:
        with pytest.raises(grpc.RpcError) as failure:
            request()
        assert code_of(failure) is grpc.StatusCode.UNIMPLEMENTED
        assert named in details_of(failure)
        assert "run a Qdrant server" in details_of(failure)


def test_collections_are_listed_and_deleted_with_their_aliases(
    client: QdrantClient, collection: str
) -> None:
    alias = f"{collection}-alias"
    created = models.CreateAlias(collection_name=collection, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=created)])
    client.upsert(alias, three_points())
    assert client.count(collection).count == 3
    assert client.get_collection_aliases(collection).aliases[0].alias_name == alias
    assert collection in {each.name for each in client.get_collections().collections}

    client.delete_collection(collection)
    assert not client.collection_exists(collection)
    assert not client.collection_exists(alias)
    with pytest.raises(grpc.RpcError) as failure:
        client.count(alias)
    assert code_of(failure) is grpc.StatusCode.NOT_FOUND


def test_alias_changes_happen_all_or_none(client: QdrantClient, collection: str) -> None:
    alias = f"{collection}-alias"

    def pointing(target: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=target, alias_name=alias)
        )

    client.update_collection_aliases([pointing(collection)])
    with pytest.raises(grpc.RpcError) as failure:
        client.update_collection_aliases(
            [
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
                pointing("nowhere"),
            ]
        )
    assert code_of(failure) is grpc.StatusCode.NOT_FOUND
    assert client.collection_exists(alias)
    renamed = models.RenameAlias(old_alias_name=alias, new_alias_name=f"{alias}-2")
    client.update_collection_aliases([models.RenameAliasOperation(rename_alias=renamed)])
    assert client.collection_exists(f"{alias}-2")
    assert not client.collection_exists(alias)


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "x" * 300])
def test_a_name_that_is_no_folder_name_is_refused(client: QdrantClient, name: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.create_collection(name, vectors_config=UNIT)
    assert code_of(failure) is grpc.StatusCode.INVALID_ARGUMENT


def test_only_those_with_the_key_are_answered(qdrant_front: QdrantServer) -> None:
    address = f"{qdrant_front.host}:{qdrant_front.grpc_port}"
    bearer = f"Bearer {qdrant_front.api_key}"
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/qdrant.Qdrant/HealthCheck")
        unknown = channel.unary_unary("/qdrant.Qdrant/Nonsense")
        assert check(b"", metadata=[("api-key", qdrant_front.api_key)], wait_for_ready=True)
        assert check(b"", metadata=[("authorization", bearer)])
        for metadata in ([], [("api-key", "wrong")], [("api-key", "")]):
            for method in (check, unknown):
                with pytest.raises(grpc.RpcError) as failure:
                    method(b"", metadata=metadata)
                assert code_of(failure) is grpc.StatusCode.UNAUTHENTICATED


# -- the process -----------------------------------------------------------------------------------


def command(path: Path, port: int, *more: str) -> list[str]:
    module = (sys.executable, "-m", "imagewire.embedded.qdrant_front")
    return [*module, "--path", str(path), "--port", str(port), *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "IMAGEWIRE_QDRANT_API_KEY": KEY, **more}


def started(path: Path, port: int) -> tuple[subprocess.Popen[str], QdrantClient]:
    process = subprocess.Popen(
        command(path, port), env=environment(), stderr=subprocess.PIPE, text=True
    )
    client = client_for(port)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read())
        try:
            client.get_collections()
            return process, client
        except grpc.RpcError:
            time.sleep(0.05)
    raise AssertionError("the front did not answer")


def ended(process: subprocess.Popen[str], with_signal: int) -> int:
    process.send_signal(with_signal)
    process.communicate(timeout=60)
    return process.returncode


def test_data_and_aliases_survive_a_stop_and_a_crash(tmp_path: Path) -> None:
    port = free_port()
    process, client = started(tmp_path, port)
    try:
        client.create_collection("photos_1", vectors_config=UNIT)
        client.create_payload_index("photos_1", "feed", models.PayloadSchemaType.KEYWORD)
        created = models.CreateAlias(collection_name="photos_1", alias_name="photos")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=created)])
        client.upsert("photos", three_points(), wait=True)
        client.close()
        assert ended(process, signal.SIGTERM) == 0

        process, client = started(tmp_path, port)
        assert client.count("photos").count == 3
        assert "feed" in client.get_collection("photos_1").payload_schema
        more = [models.PointStruct(id=9, vector=[0, 0, 1, 0], payload={"feed": "c"})]
        client.upsert("photos", more, wait=True)
        client.close()
        assert ended(process, signal.SIGKILL) == -signal.SIGKILL

        process, client = started(tmp_path, port)
        assert client.query_points("photos", [0.0, 0, 1, 0], limit=1).points[0].id == 9
        assert client.count("photos").count == 4

        second = subprocess.run(
            command(tmp_path, free_port()), env=environment(), capture_output=True, text=True
        )
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        third = subprocess.run(
            command(tmp_path / "other", port), env=environment(), capture_output=True, text=True
        )
        assert third.returncode == 1
        assert f"127.0.0.1:{port} cannot be listened on" in third.stderr
        client.close()
    finally:
        ended(process, signal.SIGTERM)


def test_indexing_is_done_while_nothing_is_served_and_changes_no_answer(tmp_path: Path) -> None:
    port = free_port()
    process, client = started(tmp_path, port)
    try:
        client.create_collection("photos", vectors_config=UNIT)
        client.upsert("photos", three_points(), wait=True)
        before = client.query_points("photos", [1.0, 0, 0, 0]).points
        client.close()
        optimize = command(tmp_path, port, "--optimize")
        busy = subprocess.run(optimize, env=environment(), capture_output=True, text=True)
        assert busy.returncode == 1
        assert ended(process, signal.SIGTERM) == 0

        done = subprocess.run(optimize, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0
        process, client = started(tmp_path, port)
        after = client.query_points("photos", [1.0, 0, 0, 0]).points
        client.close()
        assert [point.id for point in after] == [point.id for point in before]
    finally:
        ended(process, signal.SIGTERM)


def test_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    process = subprocess.run(
        command(tmp_path, free_port()),
        env=environment(IMAGEWIRE_QDRANT_API_KEY=""),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "IMAGEWIRE_QDRANT_API_KEY" in process.stderr


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    port = free_port()
    parent = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, *command(tmp_path, port)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    client = client_for(port)
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            client.get_collections()
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline, "the front did not answer"
            time.sleep(0.05)
    client.close()
    process.kill()
    process.communicate()
    for _ in range(1200):
        if not _runs(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the front outlived the process that started it")


def _runs(pid: int) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
