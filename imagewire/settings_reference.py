"""Settings as people read them: what is in force and why, and the page that explains each key."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, SecretStr, TypeAdapter

from imagewire.settings import PREFIX, LoadedSettings, Settings

DEFAULT_PAGE = Path("docs/settings.md")

_PAGE_START = """\
# Settings

One file, `imagewire.toml` in the working folder (or the file that `--config` or `IMAGEWIRE_CONFIG`
names), and the environment. Each key can be overridden by a variable: `IMAGEWIRE_`, the table, two
underscores, the key. Variables win over the file, the file over the defaults:

```toml
[kafka]
bootstrap_servers = "kafka-1:9092,kafka-2:9092"

[operators.text]
enabled = false
```

```sh
IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092
IMAGEWIRE_OPERATORS__TEXT__ENABLED=false
IMAGEWIRE_FETCH__FILE_ROOTS='["/srv/photos"]'
```

Every secret can come from a file instead, as Docker, Kubernetes and systemd hand them over: put
`_FILE` behind its variable's name and give a path. A line break at the end of the file is left out.

```sh
IMAGEWIRE_KAFKA__SASL_PASSWORD_FILE=/run/secrets/kafka-password
```

Lists and tables in variables are JSON. A key or a variable that does not exist is refused, with the
nearest name that does. `imagewire config` prints what is in force and where each value came from;
secrets are masked.

Three more variables are no settings: `IMAGEWIRE_CONFIG` names the file, `IMAGEWIRE_CACHE` the
folder for what is fetched once, `IMAGEWIRE_KAFKA_HOME` an installation of Apache Kafka for
`imagewire up`.

This page is made by `imagewire config --reference` from the code.
"""


class DescribedSetting(msgspec.Struct, frozen=True):
    """One setting as people read it: `value` is plain JSON, secrets masked; `origin` is
    `default`, `file` or the name of an environment variable."""

    key: str
    value: Any
    origin: str
    description: str


def describe_settings(loaded: LoadedSettings) -> list[DescribedSetting]:
    """Every setting in force, in the order of the tables."""
    masked = loaded.settings.model_dump(mode="json")
    return _describe(Settings, masked, loaded.origins, "")


def _describe(
    model: type[BaseModel], values: Mapping[str, Any], origins: Mapping[str, str], prefix: str
) -> list[DescribedSetting]:
    found = []
    for name, field in model.model_fields.items():
        key, value = f"{prefix}{name}", values[name]
        nested = _table(field.annotation)
        if nested is not None:
            found += _describe(nested, value, origins, f"{key}.")
            continue
        below = sorted({origin for name, origin in origins.items() if name.startswith(f"{key}.")})
        origin = origins.get(key) or ", ".join(below) or "default"
        found.append(DescribedSetting(key, value, origin, field.description or ""))
    return found


def settings_page() -> str:
    """Every setting with its variable, default and meaning, in Markdown."""
    sections = [_PAGE_START]
    defaults = Settings.model_construct().model_dump(mode="json")
    for name, field in Settings.model_fields.items():
        nested = _table(field.annotation)
        repeated = _repeated_table(field.annotation)
        if repeated is not None:
            sections += _repeated_section(name, repeated, field.description or "")
        elif nested is None:
            sections.append(
                f"## `[{name}.NAME]`\n\n{field.description} See [operators.md](operators.md).\n"
            )
        else:
            sections += _section(name, nested, defaults[name])
    return "\n".join(sections)


def _section(table: str, model: type[BaseModel], defaults: Mapping[str, Any]) -> list[str]:
    nested = {
        name: below
        for name, field in model.model_fields.items()
        if (below := _table(field.annotation)) is not None
    }
    repeated = {
        name: below
        for name, field in model.model_fields.items()
        if (below := _repeated_table(field.annotation)) is not None
    }
    meaning = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    lines = [
        f"## `[{table}]`\n\n{' '.join(meaning.split())}\n",
        "| key | kind | default | meaning |\n|---|---|---|---|",
    ]
    rows = [
        f"| `{name}` | {_kind(field.annotation)} | {_default(defaults[name], field.annotation)} "
        f"| {_cell(field.description or '')} |"
        for name, field in model.model_fields.items()
        if name not in nested and name not in repeated
    ]
    variable = f"{PREFIX}{table.replace('.', '__')}__".upper()
    found = ["\n".join([lines[0], lines[1], *rows]) + f"\n\nVariables: `{variable}KEY`.\n"]
    for name, below in nested.items():
        found += _section(f"{table}.{name}", below, defaults[name])
    for name, below in repeated.items():
        description = model.model_fields[name].description or ""
        found += _repeated_section(f"{table}.{name}", below, description)
    return found


def _repeated_section(name: str, model: type[BaseModel], meaning: str) -> list[str]:
    """A table that may stand several times, whose keys have defaults of their own or none."""
    rows = []
    for key, field in model.model_fields.items():
        default = "needed"
        if not field.is_required():
            plain = TypeAdapter(field.annotation).dump_python(field.get_default(), mode="json")
            default = _default(plain, field.annotation)
        kind, text = _kind(field.annotation), _cell(field.description or "")
        rows.append(f"| `{key}` | {kind} | {default} | {text} |")
    head = "| key | kind | default | meaning |\n|---|---|---|---|"
    variable = f"{PREFIX}{name.replace('.', '__')}".upper()
    return [
        "\n".join([f"## `[[{name}]]`\n\n{meaning}\n", head, *rows])
        + f"\n\nVariable: `{variable}`, a JSON list of such tables.\n"
    ]


def _repeated_table(annotation: Any) -> type[BaseModel] | None:
    arguments = typing.get_args(annotation)
    return _table(arguments[0]) if typing.get_origin(annotation) is tuple and arguments else None


def _table(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _kind(annotation: Any) -> str:
    """An annotation in the words of TOML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        kinds = dict.fromkeys(_kind(item) for item in arguments if item is not type(None))
        return " or ".join(kinds)
    if origin is typing.Literal:
        return ", ".join(f"`{item}`" for item in arguments)
    if origin in (tuple, list, frozenset, set):
        return f"list of {_kind(arguments[0])}"
    if annotation is SecretStr:
        return "secret"
    words = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    return words.get(annotation, "text")


def _default(value: Any, annotation: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, list):
        ordered = sorted(value) if typing.get_origin(annotation) is frozenset else value
        return f"`{msgspec.json.encode(ordered).decode()}`" if value else "`[]`"
    return f"`{value}`" if isinstance(value, str) else f"`{msgspec.json.encode(value).decode()}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
