"""The part of Qdrant's gRPC API that the embedded engine answers.

One function a method, each taking the collections and the request and returning the response; the
table at the end says what there is. Whatever is not in it is answered UNIMPLEMENTED by the front.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, cast

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as api

from imagewire.embedded.qdrant_collections import Collection, CollectionConfig, CollectionStore
from imagewire.embedded.qdrant_convert import (
    DISTANCES,
    INDEX_TYPES,
    SCHEMA_TYPES,
    RequestError,
    filter_of,
    invalid,
    only,
    payload_message,
    payload_selector,
    point,
    point_id,
    point_id_message,
    unsupported,
    vector,
    vectors_message,
    vectors_selector,
)

Method = Callable[[CollectionStore, Any], Any]

# Options that only matter in a cluster, or state how long to wait: one process answers at once and
# reads its own writes, so they hold without being looked at.
_CLUSTER = ("ordering", "read_consistency", "timeout")


def _write(collection: Collection, operation: edge.UpdateOperation, wait: bool) -> Any:
    """Apply `operation`; with `wait` it is on the disk before this returns."""
    collection.write(operation, wait)
    status = api.UpdateStatus.Completed if wait else api.UpdateStatus.Acknowledged
    return api.UpdateResult(status=status)


def upsert(store: CollectionStore, request: Any) -> Any:
    only(request, "collection_name", "wait", "points", *_CLUSTER)
    collection = store.find(request.collection_name)
    points = [point(each, collection.config.size) for each in request.points]
    result = _write(collection, edge.UpdateOperation.upsert_points(points), request.wait)
    return api.PointsOperationResponse(result=result)


def delete(store: CollectionStore, request: Any) -> Any:
    only(request, "collection_name", "wait", "points", *_CLUSTER)
    collection = store.find(request.collection_name)
    match request.points.WhichOneof("points_selector_one_of"):
        case "points":
            ids = [point_id(each) for each in request.points.points.ids]
            operation = edge.UpdateOperation.delete_points(ids)
        case "filter":
            chosen = filter_of(request.points.filter)
            if chosen is None:
                raise invalid(
                    "a deletion by an empty filter would delete everything; "
                    "delete the collection if that is meant"
                )
            operation = edge.UpdateOperation.delete_points_by_filter(chosen)
        case _:
            raise invalid("a deletion names neither points nor a filter")
    return api.PointsOperationResponse(result=_write(collection, operation, request.wait))


def get(store: CollectionStore, request: Any) -> Any:
    only(request, "collection_name", "ids", "with_payload", "with_vectors", *_CLUSTER)
    records = store.find(request.collection_name).shard.retrieve(
        [point_id(each) for each in request.ids],
        payload_selector(request.with_payload),
        vectors_selector(request.with_vectors),
    )
    return api.GetResponse(result=[_retrieved(record) for record in records])


def query(store: CollectionStore, request: Any) -> Any:
    only(
        request,
        *("collection_name", "query", "filter", "params", "score_threshold", "limit", "offset"),
        *("with_vectors", "with_payload"),
        *_CLUSTER,
    )
    collection = store.find(request.collection_name)
    chosen = filter_of(request.filter)
    nearest = None
    if request.HasField("query"):
        nearest, chosen = _nearest(collection, request.query, chosen)
    found = collection.shard.query(
        edge.QueryRequest(
            limit=request.limit if request.HasField("limit") else 10,
            offset=request.offset,
            query=nearest,
            with_vector=vectors_selector(request.with_vectors),
            with_payload=payload_selector(request.with_payload),
            filter=chosen,
            score_threshold=request.score_threshold
            if request.HasField("score_threshold")
            else None,
            params=_search_params(request.params) if request.HasField("params") else None,
        )
    )
    return api.QueryResponse(result=[_scored(each) for each in found])


def _nearest(
    collection: Collection, message: Any, chosen: edge.Filter | None
) -> tuple[edge.Query, edge.Filter | None]:
    """The query, and the filter that leaves out the point that is searched for by its id."""
    if message.WhichOneof("variant") != "nearest":
        raise unsupported(f"the query '{message.WhichOneof('variant')}'")
    given = message.nearest
    match given.WhichOneof("variant"):
        case "dense":
            numbers = vector(given.dense.data, collection.config.size, "query")
        case "id":
            identity = point_id(given.id)
            records = collection.shard.retrieve([identity], False, True)
            if not records:
                raise RequestError(
                    grpc.StatusCode.NOT_FOUND, f"Not found: No point with id {identity} found"
                )
            numbers = cast(list[float], records[0].vector)
            others = edge.HasIdCondition({identity})
            chosen = edge.Filter(must=[chosen] if chosen else None, must_not=[others])
        case other:
            raise unsupported(f"search by '{other}'")
    return edge.Query.Nearest(numbers), chosen


def _search_params(message: Any) -> edge.SearchParams:
    only(message, "hnsw_ef", "exact", "indexed_only")
    return edge.SearchParams(
        hnsw_ef=message.hnsw_ef if message.HasField("hnsw_ef") else None,
        exact=message.exact,
        indexed_only=message.indexed_only,
    )


def scroll(store: CollectionStore, request: Any) -> Any:
    only(
        request,
        *("collection_name", "filter", "offset", "limit", "with_payload", "with_vectors"),
        *_CLUSTER,
    )
    records, following = store.find(request.collection_name).shard.scroll(
        edge.ScrollRequest(
            offset=point_id(request.offset) if request.HasField("offset") else None,
            limit=request.limit if request.HasField("limit") else 10,
            filter=filter_of(request.filter),
            with_payload=payload_selector(request.with_payload),
            with_vector=vectors_selector(request.with_vectors),
        )
    )
    return api.ScrollResponse(
        result=[_retrieved(record) for record in records],
        next_page_offset=None if following is None else point_id_message(following),
    )


def count(store: CollectionStore, request: Any) -> Any:
    only(request, "collection_name", "filter", "exact", *_CLUSTER)
    # As on a server, counting is exact unless that is declined.
    exact = request.exact if request.HasField("exact") else True
    number = store.find(request.collection_name).shard.count(
        edge.CountRequest(exact=exact, filter=filter_of(request.filter))
    )
    return api.CountResponse(result=api.CountResult(count=number))


def facet(store: CollectionStore, request: Any) -> Any:
    only(request, "collection_name", "key", "filter", "limit", "exact", *_CLUSTER)
    response = store.find(request.collection_name).shard.facet(
        edge.FacetRequest(
            request.key,
            limit=request.limit if request.HasField("limit") else 10,
            exact=request.exact,
            filter=filter_of(request.filter),
        )
    )
    return api.FacetResponse(
        hits=[api.FacetHit(value=_facet_value(hit.value), count=hit.count) for hit in response.hits]
    )


def _facet_value(value: Any) -> Any:
    if isinstance(value, bool):
        return api.FacetValue(bool_value=value)
    if isinstance(value, int):
        return api.FacetValue(integer_value=value)
    return api.FacetValue(string_value=str(value))


def create_field_index(store: CollectionStore, request: Any) -> Any:
    # The parameters of an index place it in memory or on disk and speed up tenants; they change no
    # answer, and the engine's own defaults suit one machine.
    only(
        request,
        *("collection_name", "wait", "field_name", "field_type", "field_index_params"),
        *_CLUSTER,
    )
    collection = store.find(request.collection_name)
    kind = INDEX_TYPES.get(request.field_type)
    if kind is None:
        raise unsupported(f"payload index type {request.field_type}")
    operation = edge.UpdateOperation.create_field_index(request.field_name, kind)
    return api.PointsOperationResponse(result=_write(collection, operation, request.wait))


def _retrieved(record: Any) -> Any:
    return api.RetrievedPoint(
        id=point_id_message(record.id),
        payload=payload_message(record.payload),
        vectors=vectors_message(record.vector),
    )


def _scored(found: Any) -> Any:
    return api.ScoredPoint(
        id=point_id_message(found.id),
        payload=payload_message(found.payload),
        score=found.score,
        version=found.version,
        vectors=vectors_message(found.vector),
    )


def create_collection(store: CollectionStore, request: Any) -> Any:
    # Where data lies (`on_disk…`) and how graphs and logs are built is the engine's choice here.
    only(
        request,
        *("collection_name", "vectors_config", "hnsw_config", "wal_config", "optimizers_config"),
        *("shard_number", "on_disk_payload", "replication_factor", "write_consistency_factor"),
        *_CLUSTER,
    )
    if request.vectors_config.WhichOneof("config") != "params":
        raise unsupported("named vectors, or a collection without vectors")
    params = request.vectors_config.params
    only(params, "size", "distance", "hnsw_config", "on_disk")
    if params.distance not in DISTANCES or not 1 <= params.size <= 65_536:
        raise invalid("a collection needs a distance, and vectors of 1 to 65536 dimensions")
    distance = api.Distance.Name(params.distance)
    store.create(request.collection_name, CollectionConfig(params.size, distance))
    return api.CollectionOperationResponse(result=True)


def delete_collection(store: CollectionStore, request: Any) -> Any:
    return api.CollectionOperationResponse(result=store.delete(request.collection_name))


def collection_exists(store: CollectionStore, request: Any) -> Any:
    exists = store.exists(request.collection_name)
    return api.CollectionExistsResponse(result=api.CollectionExists(exists=exists))


def list_collections(store: CollectionStore, request: Any) -> Any:
    return api.ListCollectionsResponse(
        collections=[api.CollectionDescription(name=name) for name in store.names()]
    )


def get_collection(store: CollectionStore, request: Any) -> Any:
    collection = store.find(request.collection_name)
    info = collection.shard.info()
    config = collection.config
    params = api.VectorParams(size=config.size, distance=api.Distance.Value(config.distance))
    schema = {
        key: api.PayloadSchemaInfo(
            data_type=SCHEMA_TYPES.get(str(index.data_type), api.PayloadSchemaType.UnknownType),
            points=index.points,
        )
        for key, index in info.payload_schema.items()
    }
    return api.GetCollectionInfoResponse(
        result=api.CollectionInfo(
            status=api.CollectionStatus.Green,
            optimizer_status=api.OptimizerStatus(ok=True),
            segments_count=info.segments_count,
            points_count=info.points_count,
            indexed_vectors_count=info.indexed_vectors_count,
            config=api.CollectionConfig(
                params=api.CollectionParams(
                    shard_number=1,
                    on_disk_payload=True,
                    vectors_config=api.VectorsConfig(params=params),
                    replication_factor=1,
                    write_consistency_factor=1,
                ),
                # Qdrant's own defaults: the client's reader insists on their being there.
                hnsw_config=api.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=api.OptimizersConfigDiff(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                ),
                wal_config=api.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            ),
            payload_schema=schema,
        )
    )


def update_aliases(store: CollectionStore, request: Any) -> Any:
    def changes() -> Iterator[tuple[str, str | None]]:
        for operation in request.actions:
            match operation.WhichOneof("action"):
                case "create_alias":
                    created = operation.create_alias
                    yield created.alias_name, created.collection_name
                case "rename_alias":
                    renamed = operation.rename_alias
                    yield renamed.new_alias_name, renamed.old_alias_name
                    yield renamed.old_alias_name, None
                case "delete_alias":
                    yield operation.delete_alias.alias_name, None

    store.change_aliases(changes())
    return api.CollectionOperationResponse(result=True)


def list_aliases(store: CollectionStore, request: Any) -> Any:
    return _aliases(store.aliases())


def list_collection_aliases(store: CollectionStore, request: Any) -> Any:
    target = store.find(request.collection_name).name
    return _aliases([pair for pair in store.aliases() if pair[1] == target])


def _aliases(pairs: list[tuple[str, str]]) -> Any:
    return api.ListAliasesResponse(
        aliases=[
            api.AliasDescription(alias_name=alias, collection_name=collection)
            for alias, collection in pairs
        ]
    )


def health_check(store: CollectionStore, request: Any) -> Any:
    return api.HealthCheckReply(title="imagewire embedded qdrant", version=version("qdrant-client"))


def timed(method: Method) -> Method:
    """Fill in the seconds that answering took, which every response but one kind states."""

    def answer(store: CollectionStore, request: Any) -> Any:
        started = time.monotonic()
        response = method(store, request)
        if "time" in response.DESCRIPTOR.fields_by_name:
            response.time = time.monotonic() - started
        return response

    return answer


METHODS: dict[str, tuple[Any, Method]] = {
    "/qdrant.Points/Upsert": (api.UpsertPoints, upsert),
    "/qdrant.Points/Delete": (api.DeletePoints, delete),
    "/qdrant.Points/Get": (api.GetPoints, get),
    "/qdrant.Points/Query": (api.QueryPoints, query),
    "/qdrant.Points/Scroll": (api.ScrollPoints, scroll),
    "/qdrant.Points/Count": (api.CountPoints, count),
    "/qdrant.Points/Facet": (api.FacetCounts, facet),
    "/qdrant.Points/CreateFieldIndex": (api.CreateFieldIndexCollection, create_field_index),
    "/qdrant.Collections/Create": (api.CreateCollection, create_collection),
    "/qdrant.Collections/Delete": (api.DeleteCollection, delete_collection),
    "/qdrant.Collections/Get": (api.GetCollectionInfoRequest, get_collection),
    "/qdrant.Collections/List": (api.ListCollectionsRequest, list_collections),
    "/qdrant.Collections/CollectionExists": (api.CollectionExistsRequest, collection_exists),
    "/qdrant.Collections/UpdateAliases": (api.ChangeAliases, update_aliases),
    "/qdrant.Collections/ListAliases": (api.ListAliasesRequest, list_aliases),
    "/qdrant.Collections/ListCollectionAliases": (
        api.ListCollectionAliasesRequest,
        list_collection_aliases,
    ),
    "/qdrant.Qdrant/HealthCheck": (api.HealthCheckRequest, health_check),
}
"""Method to the type of its request and the function that answers it."""
