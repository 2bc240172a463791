"""Where the HTTP API listens, who may ask what, and how much a request may take."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from streams.settings import MEBIBYTE, Section

ScopeName = Literal["publish", "read", "review", "admin"]

_LEAST_KEY_LENGTH = 16
"""Characters; 16 random ones cannot be found by trying."""
_LARGEST_KEY_FILE = 4096


class ApiKeyError(ValueError):
    """A key cannot be used; the message never quotes it."""


class ApiKeySettings(Section):
    """A key of the HTTP API: who has it and what it opens."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")] = Field(
        description="Who has it: the name in logs, metrics and, of reviewers, in decisions.",
    )
    key: SecretStr | None = Field(
        None,
        description="The key itself, at least 16 characters. Better kept in a file or a variable.",
    )
    key_file: Path | None = Field(None, description="File that holds the key.")
    key_variable: str | None = Field(None, description="Environment variable that holds the key.")
    scopes: frozenset[ScopeName] = Field(
        frozenset({"read"}),
        min_length=1,
        description="What it opens: publish images, read what was found, review (decide over "
        "images, see them unblurred), admin (everything, bans included).",
    )
    feeds: tuple[str, ...] = Field(
        (),
        description="Only images of these feeds; all when empty. What spans all feeds, such as "
        "SQL, is refused then.",
    )

    @model_validator(mode="after")
    def _is_given_once(self) -> Self:
        given = [each for each in (self.key, self.key_file, self.key_variable) if each is not None]
        if len(given) != 1:
            raise ValueError(
                f"the key '{self.name}' needs exactly one of key, key_file and key_variable"
            )
        if self.feeds and "admin" in self.scopes:
            raise ValueError(
                f"the key '{self.name}' has the scope admin, which no list of feeds confines; "
                "leave out one of the two"
            )
        return self

    def secret(self) -> str:
        """The key.

        Raises:
            ApiKeyError: its file or variable is missing, or it is too short.
        """
        if self.key is not None:
            text = self.key.get_secret_value()
        elif self.key_file is not None:
            try:
                with self.key_file.open("rb") as file:
                    text = file.read(_LARGEST_KEY_FILE).decode("utf-8").strip()
            except (OSError, ValueError) as error:
                raise ApiKeyError(
                    f"api.keys '{self.name}': key_file {self.key_file} cannot be read "
                    f"({type(error).__name__})"
                ) from None
        else:
            text = os.environ.get(self.key_variable or "", "")
            if not text:
                raise ApiKeyError(
                    f"api.keys '{self.name}': the variable {self.key_variable} is not set"
                )
        if len(text) < _LEAST_KEY_LENGTH or not text.isascii() or not text.isprintable():
            raise ApiKeyError(
                f"api.keys '{self.name}': a key has at least {_LEAST_KEY_LENGTH} printable ASCII "
                "characters; make one with: openssl rand -base64 32"
            )
        return text


class ApiSettings(Section):
    """The HTTP API and the console that it serves. docs/api.md says more."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to bind to. Any other than a loopback address needs keys.",
    )
    port: int = Field(8080, ge=0, le=65_535, description="Port; 0 takes any free one.")
    keys: tuple[ApiKeySettings, ...] = Field(
        (),
        description="Who may ask what, each a table [[api.keys]]. Without any, whoever reaches "
        "the loopback address may do everything.",
    )
    hosts: tuple[str, ...] = Field(
        (),
        description="Names under which the API may be asked for while there are no keys, beside "
        "those of the loopback address. Keeps web sites from reaching it by a name of their own.",
    )
    max_upload_bytes: int = Field(
        34 * MEBIBYTE,
        ge=1024,
        le=1024 * MEBIBYTE,
        description="Largest body of a request that carries a picture, its form included; the "
        "picture itself may have fetch.max_bytes.",
    )
    max_json_bytes: int = Field(
        4 * MEBIBYTE, ge=1024, le=64 * MEBIBYTE, description="Largest body of any other request."
    )
    body_timeout: float = Field(
        60.0, gt=0, le=3600, description="Seconds in which the body of a request must arrive."
    )
    requests_per_second: float = Field(
        200.0, gt=0, description="Requests of one key, or of one address without a key."
    )
    burst: int = Field(
        1000, ge=1, description="Requests at once before requests_per_second counts."
    )
    max_requests: int = Field(
        256, ge=1, le=10_000, description="Requests being answered at the same time."
    )
    max_uploads: int = Field(
        8,
        ge=1,
        le=1000,
        description="Requests with pictures being read at the same time; each holds up to "
        "max_upload_bytes in memory.",
    )
    max_wait: float = Field(
        60.0, ge=0, le=600, description="Longest that ?wait= may ask for, in seconds."
    )
    max_batch: int = Field(
        1000, ge=1, le=10_000, description="Most references in one POST /v1/images:batch."
    )
    max_streams: int = Field(
        64, ge=1, le=1000, description="Readers of /v1/verdicts/stream at the same time."
    )
    queries: int = Field(
        4, ge=1, le=64, description="Questions to ClickHouse at the same time, SQL of users apart."
    )
    sql_at_once: int = Field(
        2,
        ge=1,
        le=64,
        description="Statements of POST /v1/sql at the same time; others wait, or are told to "
        "come again.",
    )
    device: str = Field(
        "cpu",
        description="Where pictures of searches are embedded and faces of pictures shown are "
        "looked for: 'cpu', 'auto' or 'cuda:N'.",
    )

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        names = [key.name for key in self.keys]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"the name {', '.join(doubled)} stands on more than one of api.keys")
        if not self.keys and not is_loopback(self.host):
            raise ValueError(
                f"host '{self.host}' can be reached from other machines, so keys are needed; "
                "add a table [[api.keys]], or bind to 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, can mean this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
