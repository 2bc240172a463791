"""Secrets from files: `IMAGEWIRE_KAFKA__SASL_PASSWORD_FILE=/run/secrets/kafka`.

Docker, Kubernetes and systemd hand secrets over as files, since an environment is inherited by
every child process and shown by many tools. So every setting that is a secret may be named by a
variable with `_FILE` behind its name, which holds a path.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

SUFFIX = "_file"
_LARGEST_BYTES = 65_536


class SecretFileError(Exception):
    """What a variable names holds no secret; the message never quotes what it does hold."""


def secret_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the settings that are secrets."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from secret_keys(annotation, f"{prefix}{name}.")
        elif annotation is SecretStr or (
            typing.get_origin(annotation) in (types.UnionType, typing.Union)
            and SecretStr in typing.get_args(annotation)
        ):
            yield prefix + name


def named_by_file(model: type[BaseModel], variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` (dotted key to variable name) with the secret's key for each that names its file.

    Raises:
        SecretFileError: a secret is given twice.
    """
    keys = dict(variables)
    for secret in secret_keys(model):
        if name := keys.pop(secret + SUFFIX, None):
            if secret in keys:
                raise SecretFileError(
                    f"{keys[secret]} and {name} are both set; keep the one that is meant"
                )
            keys[secret] = name
    return keys


def read_secret_files(
    model: type[BaseModel], values: dict[str, Any], variables: Mapping[str, str]
) -> None:
    """Put what the files hold into `values` (nested tables), in place of their paths.

    A line break at the end is not part of a secret: editors and `echo` add one.

    Raises:
        SecretFileError
    """
    for secret in secret_keys(model):
        *tables, key = secret.split(".")
        table: Any = values
        for name in tables:
            table = table.get(name, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict) and (path := table.pop(key + SUFFIX, None)) is not None:
            table[key] = _read(str(path), variables.get(secret, secret + SUFFIX))


def _read(path: str, variable: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise SecretFileError(f"{variable}: {path} is too large for a secret")
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SecretFileError(f"{variable}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SecretFileError(f"{variable}: {path} is not UTF-8 text") from None
    except ValueError:
        raise SecretFileError(f"{variable}: the path holds a zero byte") from None
    if not text:
        raise SecretFileError(f"{variable}: {path} is empty; put the secret into it")
    return text
