"""Who is told of verdicts over HTTP, and how: one table `[[webhooks]]` for each receiver."""

from __future__ import annotations

import base64
import binascii
import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

import yarl
from pydantic import Field, SecretStr, field_validator, model_validator

from operators.findings import Action
from streams.settings import Section

_SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix
_LEAST_SECRET_BYTES = 24


class WebhookSecretError(ValueError):
    """A webhook has no usable secret; the message never quotes what there is."""


class WebhookSettings(Section):
    """A receiver of verdicts."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        description="What it is called in metrics, logs and dead letters; also names the consumer "
        "group, so that a receiver that is renamed begins anew.",
    )
    url: SecretStr = Field(
        min_length=1,
        max_length=2048,
        description="Where verdicts are posted; https, unless allow_http is set. Masked wherever "
        "settings print, since such addresses often hold a token.",
    )
    actions: frozenset[Action] = Field(
        frozenset({"block"}), min_length=1, description="Verdicts that are told."
    )
    feeds: tuple[str, ...] = Field((), description="Only images of these feeds; of any if empty.")
    secret: SecretStr | None = Field(
        None,
        description="Key of the signature: 'whsec_' and base64, or at least 24 bytes of text. "
        "Better kept in a file or a variable.",
    )
    secret_file: Path | None = Field(None, description="File that holds the secret.")
    secret_variable: str | None = Field(
        None, description="Environment variable that holds the secret."
    )
    timeout: float = Field(10.0, gt=0, le=60, description="Seconds for one attempt.")
    max_age: float = Field(
        86_400.0,
        ge=0,
        le=2_592_000,
        description="Seconds after the verdict for which a delivery is tried again; then it "
        "becomes a dead letter at the stage webhook.",
    )
    concurrency: int = Field(8, ge=1, le=256, description="Deliveries at the same time.")
    allow_http: bool = Field(False, description="Let the address be http, without encryption.")
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="Networks reachable although they are not public, such as '10.1.0.0/16'.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: SecretStr) -> SecretStr:
        try:
            parsed = yarl.URL(url.get_secret_value())
            port = parsed.port
        except (ValueError, IndexError):
            raise ValueError("the webhook's url is no address") from None
        if parsed.scheme not in ("http", "https") or not parsed.raw_host or port is None:
            raise ValueError("a webhook's url begins with https:// and names a host")
        if parsed.user is not None or parsed.password is not None:
            raise ValueError("a webhook's url carries no user name or password; it is signed")
        return url

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if yarl.URL(self.url.get_secret_value()).scheme == "http" and not self.allow_http:
            raise ValueError(
                f"webhook '{self.name}' would post verdicts unencrypted; use https, or set "
                "allow_http = true"
            )
        given = [each for each in (self.secret, self.secret_file, self.secret_variable) if each]
        if len(given) != 1:
            raise ValueError(
                f"webhook '{self.name}' needs exactly one of secret, secret_file and "
                "secret_variable, to sign with"
            )
        return self

    def key(self) -> bytes:
        """The bytes to sign with.

        Raises:
            WebhookSecretError: the file or variable is missing, or the secret is too short.
        """
        if self.secret is not None:
            text = self.secret.get_secret_value()
        elif self.secret_file is not None:
            try:
                text = self.secret_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise WebhookSecretError(
                    f"webhook '{self.name}': secret_file {self.secret_file} cannot be read "
                    f"({type(error).__name__})"
                ) from None
        else:
            text = os.environ.get(self.secret_variable or "", "")
            if not text:
                raise WebhookSecretError(
                    f"webhook '{self.name}': the variable {self.secret_variable} is not set"
                )
        return _key_bytes(self.name, text)


def _key_bytes(name: str, text: str) -> bytes:
    if text.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise WebhookSecretError(
                f"webhook '{name}': what follows whsec_ in its secret is no base64"
            ) from None
    else:
        key = text.encode()
    if len(key) < _LEAST_SECRET_BYTES:
        raise WebhookSecretError(
            f"webhook '{name}': its secret has {len(key)} bytes; at least {_LEAST_SECRET_BYTES}. "
            "Make one with: echo whsec_$(openssl rand -base64 32)"
        )
    return key
