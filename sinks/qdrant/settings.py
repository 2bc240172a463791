"""How to reach Qdrant, and what the collections are called.

The same settings serve a Qdrant server and the embedded engine that `imagewire up` starts, since
both speak Qdrant's gRPC API.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, Field, SecretStr, field_validator


class QdrantSettings(BaseModel, extra="forbid"):
    """Connection, and the name under which images are searched."""

    enabled: bool = Field(default=True, description="Whether embeddings are stored at all.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Host name or address.")
    grpc_port: int = Field(default=6334, ge=1, le=65_535, description="Port of Qdrant's gRPC API.")
    port: int = Field(
        default=6333,
        ge=1,
        le=65_535,
        description="Port of Qdrant's REST API, used only if prefer_grpc is off.",
    )
    https: bool = Field(default=False, description="Whether connections use TLS.")
    prefer_grpc: bool = Field(
        default=True,
        description="Speak gRPC, which moves vectors several times faster than JSON; the embedded "
        "engine speaks nothing else.",
    )
    api_key: SecretStr | None = Field(default=None, description="Qdrant's API key.")
    timeout: int = Field(
        default=10, ge=1, description="Seconds after which an unanswered request has failed."
    )
    collection: str = Field(
        default="images",
        description="Alias under which the current collection is found. The collections themselves "
        "are called ALIAS_MODEL_VERSION, since vectors of two models cannot be compared.",
    )
    max_points_per_request: int = Field(
        default=100,
        ge=1,
        description="Larger batches are written in several requests, one after the other. Making a "
        "request of 100 points holds up a worker's event loop for about a millisecond.",
    )
    max_text_characters: int = Field(
        default=1000,
        ge=0,
        description="How much of the text that was read is kept beside the vector; 0 for none.",
    )

    @field_validator("collection")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(
                f"'{name}' is no collection name; use up to 64 letters, digits, '_', '-' and '.'"
            )
        return name

    def collection_for(self, model: str) -> str:
        """The collection of an embedder: `images_efficientnet-lite0_0.1.0`.

        Args:
            model: `name@version`. What Qdrant does not allow in names becomes `_`.
        """
        return f"{self.collection}_{re.sub(r'[^A-Za-z0-9.-]+', '_', model)}"

    @property
    def address(self) -> str:
        """HOST:PORT of the API in use, for messages."""
        return f"{self.host}:{self.grpc_port if self.prefer_grpc else self.port}"
