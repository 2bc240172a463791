"""Pictures and words to search by, embedded as the worker embeds images.

Pictures come from strangers, so the contained decoder reads them. A model is loaded when somebody
first searches by what it embeds, and one thread has it: two at once would only share a processor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from imagewire.api.giving_way import give_way, use_few_processors
from imagewire.api.problems import Problem
from imagewire.settings import Settings

if TYPE_CHECKING:
    from models.text_encoders import TextEncoder
    from operators.decoder import Decoder
    from operators.embedding import EmbeddingOperator
    from operators.findings import Embedding

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_WAITING = 32
"""Pictures and texts that may wait for the model; a picture holds its bytes."""


class Looking:
    """Embeds pictures with the embedder that the settings name, and words with its text half."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "looking", give_way)
        self._loaded: tuple[Decoder, EmbeddingOperator] | None = None
        self._words: TextEncoder | None = None
        self._no_words = ""
        self._waiting = 0

    async def embedding(self, content: bytes) -> Embedding:
        """The embedding of the picture that `content` is: `vector` and the model's full name.

        Raises:
            Problem: 422, it is no picture that is decoded; 503, embeddings are off, or too many
                wait.
        """
        return await self._in_turn(lambda: self._embed(content))

    async def of_words(self, text: str) -> list[float]:
        """The vector of a description, in the space of the pictures' vectors.

        Raises:
            Problem: 422, the embedder was not trained on words; 503, its text half cannot be used,
                embeddings are off, or too many wait.
        """
        return await self._in_turn(lambda: self._embed_words(text))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise Problem(
                503,
                "busy",
                "Too much is asked at once",
                "too many searches wait for the model; ask again",
                headers={"Retry-After": "2"},
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
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

    def _embed_words(self, text: str) -> list[float]:
        from models.errors import ModelError

        try:
            return self._text_half().embed(text)
        except ModelError as error:
            logger.error("searching by words: %s", error)
            raise Problem(
                503,
                "text-half-away",
                "Words cannot be embedded",
                "the text half of the embedder cannot be used; the log of the service says why",
            ) from error

    def _text_half(self) -> TextEncoder:
        if self._words is None and not self._no_words:
            from models.catalog import load_catalog
            from models.text_encoders import load_text_encoder
            from operators.embedding import EmbeddingOptions

            use_few_processors()
            model = EmbeddingOptions.model_validate(self._options()).model
            catalog = load_catalog(self._settings.models.catalogs)
            self._words = load_text_encoder(catalog.get(model), catalog)
            if self._words is None:
                self._no_words = (
                    f"the embedder in force, {model}, was not trained on words, or its catalogue "
                    "entry names no text half; search by a picture, an id or a vector"
                )
        if self._words is None:
            raise Problem(
                422, "no-text-tower", "Images cannot be searched by words here", self._no_words
            )
        return self._words

    def _options(self) -> dict[str, Any]:
        """Of the operator `embedding`."""
        options = dict(self._settings.operators.get("embedding", {}))
        options.pop("when", None)
        if not options.pop("enabled", True):
            raise Problem(
                503,
                "no-embedder",
                "There is no embedder",
                "operators.embedding is switched off, so nothing can be searched by picture or "
                "words",
            )
        return options

    def _load(self) -> tuple[Decoder, EmbeddingOperator]:
        if self._loaded is None:
            from models.catalog import load_catalog
            from models.device import choose_device
            from operators.decode import make_decoder
            from operators.embedding import EmbeddingOperator

            use_few_processors()
            settings = self._settings
            options = self._options()
            device = choose_device(settings.api.device, settings.models.precision)
            limits = settings.decode.limits(settings.fetch.max_bytes)
            operator = EmbeddingOperator(options, device, load_catalog(settings.models.catalogs))
            operator.setup()
            decoder = make_decoder(device, limits, threads=1, isolation="process")
            self._loaded = (decoder, operator)
        return self._loaded

    def _unload(self) -> None:
        self._words = None
        if self._loaded is not None:
            decoder, operator = self._loaded
            self._loaded = None
            operator.close()
            decoder.close()
