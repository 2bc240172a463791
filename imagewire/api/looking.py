"""Pictures to search by, decoded and embedded as the worker does it.

They come from strangers, so the contained decoder reads them. The model is loaded when somebody
first searches by a picture, and one thread has it: two pictures at once would only share a
processor.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from imagewire.api.giving_way import give_way, use_few_processors
from imagewire.api.problems import Problem
from imagewire.settings import Settings

if TYPE_CHECKING:
    from operators.decoder import Decoder
    from operators.embedding import EmbeddingOperator
    from operators.findings import Embedding

_MOST_WAITING = 32
"""Pictures that may wait for the model; each holds its bytes."""


class Looking:
    """Embeds pictures with the embedder that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "looking", give_way)
        self._loaded: tuple[Decoder, EmbeddingOperator] | None = None
        self._waiting = 0

    async def embedding(self, content: bytes) -> Embedding:
        """The embedding of the picture that `content` is: `vector` and the model's full name.

        Raises:
            Problem: 422, it is no picture that is decoded; 503, embeddings are off, or too many
                wait.
        """
        if self._waiting >= _MOST_WAITING:
            raise Problem(
                503,
                "busy",
                "Too much is asked at once",
                "too many pictures wait for the model; ask again",
                headers={"Retry-After": "2"},
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._embed, content)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Let go of the model and end the processes that decode."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._unload)
        self._thread.shutdown(wait=False)

    def _embed(self, content: bytes) -> Embedding:
        from operators.frame import Frame, Origin

        decoder, operator = self._load()
        frame = Frame("query", "query", 0, Origin("", 0, 0, 0), content=content)
        decoder.decode([frame])
        if not frame.failed:
            operator.process([frame])
        frame.pixels = None
        if frame.failure is not None:
            raise Problem(
                422,
                "unusable-picture",
                "The picture cannot be used",
                f"the picture cannot be decoded: {frame.failure.detail}",
                reason=frame.failure.reason,
            )
        if frame.findings.embedding is None:
            raise Problem(
                422, "unusable-picture", "The picture cannot be used", "it has no embedding"
            )
        return frame.findings.embedding

    def _load(self) -> tuple[Decoder, EmbeddingOperator]:
        if self._loaded is None:
            from models.catalog import load_catalog
            from models.device import choose_device
            from operators.decode import make_decoder
            from operators.embedding import EmbeddingOperator

            use_few_processors()
            settings = self._settings
            options = dict(settings.operators.get("embedding", {}))
            options.pop("when", None)
            if not options.pop("enabled", True):
                raise Problem(
                    503,
                    "no-embedder",
                    "There is no embedder",
                    "operators.embedding is switched off, so nothing can be searched by picture",
                )
            device = choose_device(settings.api.device, settings.models.precision)
            limits = settings.decode.limits(settings.fetch.max_bytes)
            operator = EmbeddingOperator(options, device, load_catalog(settings.models.catalogs))
            operator.setup()
            decoder = make_decoder(device, limits, threads=1, isolation="process")
            self._loaded = (decoder, operator)
        return self._loaded

    def _unload(self) -> None:
        if self._loaded is not None:
            decoder, operator = self._loaded
            self._loaded = None
            operator.close()
            decoder.close()
