"""Keeps the embedding of every image in Qdrant, so that similar ones can be found.

A point's id is derived from the image id and its collection from the embedder, so that writing
again overwrites, and that vectors of two models never meet. An alias points at the collection of
the embedder in force; those who search use the alias and need not know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import ClassVar

from qdrant_client import AsyncQdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from operators.findings import Embedding
from operators.frame import Frame
from sinks.qdrant.connection import ERRORS, as_sink_error, connect, is_conflict, is_not_found
from sinks.qdrant.erasing import VectorEraser
from sinks.qdrant.points import point
from sinks.qdrant.settings import QdrantSettings
from sinks.sink import PermanentSinkError, Sink, TransientSinkError

log = logging.getLogger(__name__)

_POINTS_AT_ONCE = 25
"""Points that are made before others on the event loop have their turn: some 40 µs each."""

PAYLOAD_INDEXES = {
    "feed": models.PayloadSchemaType.KEYWORD,
    "event_time": models.PayloadSchemaType.DATETIME,
    "stored_at": models.PayloadSchemaType.DATETIME,
    "verdict": models.PayloadSchemaType.KEYWORD,
    "labels": models.PayloadSchemaType.KEYWORD,
}


class QdrantSink(Sink):
    """One point for each frame that has an embedding; other frames are passed over.

    Args:
        settings: connection and names.
        model: `name@version` of the embedder in force.
        dimension: of its vectors.
    """

    name: ClassVar[str] = "qdrant"

    def __init__(self, settings: QdrantSettings, model: str, dimension: int) -> None:
        self._settings = settings
        self._model = model
        self._dimension = dimension
        self._collection = settings.collection_for(model)
        self._client: AsyncQdrantClient | None = None
        self._ready = False

    @property
    def collection(self) -> str:
        """The collection that is written."""
        return self._collection

    async def open(self) -> None:
        """Create collection and payload indexes where missing, and point the alias here."""
        await self._ready_client()

    async def write(self, frames: Sequence[Frame]) -> None:
        points: list[grpc.PointStruct] = []
        for number, frame in enumerate(frames, 1):
            embedding = frame.findings.embedding
            if not frame.failed and embedding is not None:
                points.append(self._point(frame, embedding))
            if number % _POINTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if not points:
            return
        client = await self._ready_client()
        step = self._settings.max_points_per_request
        for start in range(0, len(points), step):
            try:
                await self._upsert(client, points[start : start + step])
            except ERRORS as error:
                doing = f"writing {len(points)} points to {self._where}"
                if is_not_found(error):
                    # Somebody deleted the collection; the next attempt makes it anew.
                    self._ready = False
                    raise TransientSinkError(f"{doing}: the collection is gone") from error
                raise as_sink_error(error, doing) from error

    async def _upsert(self, client: AsyncQdrantClient, points: list[grpc.PointStruct]) -> None:
        if self._settings.prefer_grpc:
            request = grpc.UpsertPoints(collection_name=self._collection, wait=True, points=points)
            await client.grpc_points.Upsert(request, timeout=self._settings.timeout)
            return
        structs = [GrpcToRest.convert_point_struct(each) for each in points]
        await client.upsert(self._collection, structs, wait=True)

    async def erase(self, frames: Sequence[Frame]) -> None:
        """Take back what was written of `frames`: they were erased while they were written.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        async with VectorEraser(self._settings) as eraser:
            await eraser.erase([frame.image_id for frame in frames])

    async def close(self) -> None:
        client, self._client, self._ready = self._client, None, False
        if client is not None:
            await client.close()

    @property
    def _where(self) -> str:
        return f"Qdrant collection {self._collection} at {self._settings.address}"

    def _point(self, frame: Frame, embedding: Embedding) -> grpc.PointStruct:
        """The frame's point, checked here because Qdrant refuses a whole batch for one bad vector.

        Raises:
            PermanentSinkError: the vector is not this embedder's, or holds NaN or infinity.
        """
        wrong: object = None
        if embedding.model != self._model:
            wrong = f"is of model {embedding.model}, not {self._model}"
        elif len(embedding.vector) != self._dimension:
            wrong = f"has {len(embedding.vector)} components, not {self._dimension}"
        else:
            try:
                return point(frame, embedding, self._settings.max_text_characters)
            except ValueError as error:
                wrong = error
        raise PermanentSinkError(
            f"image {frame.image_id} cannot be stored in Qdrant: its embedding {wrong}"
        )

    async def _ready_client(self) -> AsyncQdrantClient:
        if self._client is None:
            self._client = connect(self._settings)
        if not self._ready:
            try:
                await self._prepare(self._client)
            except ERRORS as error:
                raise as_sink_error(error, f"preparing {self._where}") from error
            self._ready = True
        return self._client

    async def _prepare(self, client: AsyncQdrantClient) -> None:
        if not await client.collection_exists(self._collection):
            try:
                await client.create_collection(
                    self._collection,
                    vectors_config=models.VectorParams(
                        size=self._dimension, distance=models.Distance.COSINE
                    ),
                )
            except ERRORS as error:
                if not is_conflict(error):  # another worker was quicker
                    raise
        info = await client.get_collection(self._collection)
        vectors = info.config.params.vectors
        size = vectors.size if isinstance(vectors, models.VectorParams) else None
        if size != self._dimension:
            raise PermanentSinkError(
                f"{self._where} holds vectors of {size or 'several'} dimensions, but "
                f"{self._model} gives {self._dimension}; delete that collection, or set "
                "qdrant.collection to another name"
            )
        for field, schema in PAYLOAD_INDEXES.items():
            if field not in info.payload_schema:
                await client.create_payload_index(self._collection, field, schema, wait=True)
        await self._point_alias_here(client)

    async def _point_alias_here(self, client: AsyncQdrantClient) -> None:
        alias = self._settings.collection
        aliases = {
            each.alias_name: each.collection_name for each in (await client.get_aliases()).aliases
        }
        target = aliases.get(alias)
        if target == self._collection:
            return
        collections = (await client.get_collections()).collections
        if alias in {each.name for each in collections}:
            raise PermanentSinkError(
                f"Qdrant at {self._settings.address} has a collection called {alias}, the name "
                "meant for the alias; rename it, or set qdrant.collection to another name"
            )
        changes: list[models.AliasOperations] = []
        if target is not None:
            changes.append(
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            )
        changes.append(
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=self._collection, alias_name=alias)
            )
        )
        # Both at once, so that no search falls between them.
        await client.update_collection_aliases(changes)
        if target is not None:
            log.warning(
                "searches now use collection %s; %s is kept, but gets no new images",
                self._collection,
                target,
            )
