"""What is wrong with settings, in words: which key, where it was written, what to write instead.

pydantic knows what is wrong, but not whether a value came from the file or from a variable, nor
what the name was meant to be. Values are never quoted: they may be secrets.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError


class NotJsonError(ValueError):
    """A variable that stands for a list or a table does not hold JSON."""

    def __init__(self, field: str, text: object) -> None:
        super().__init__(f"{field} is not JSON")
        self.field = field
        self.text = text


class Mistakes:
    """Explains mistakes in settings that came from one file and one environment."""

    def __init__(
        self,
        model: type[BaseModel],
        prefix: str,
        variables: Mapping[str, str],
        path: Path | None,
        in_file: Collection[str],
    ) -> None:
        """
        Args:
            model: all settings.
            prefix: with which the variables begin.
            variables: dotted key to the name of the variable that sets it.
            path: the file that was read.
            in_file: the dotted keys that it sets.
        """
        self._model = model
        self._prefix = prefix
        self._variables = variables
        self._path = path
        self._in_file = in_file

    def unknown_variables(self) -> str:
        """One line for each variable whose table there is not; empty if there is none.

        A wrong key below a table that exists is found by validation.
        """
        return "\n".join(
            f"the environment variable {name} names no setting; {self._meant(key)}"
            for key, name in self._variables.items()
            if key.split(".")[0] not in self._model.model_fields
        )

    def explain(self, error: ValidationError) -> str:
        """One line for each wrong key.

        A value that could be of several kinds fails as each of them; that is one mistake.
        """
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines: dict[str, str] = {}
        for problem in problems:
            keys = [str(part) for part in problem["loc"] if not _is_kind(part)]
            where = self._where(keys)
            what = self._what(problem["type"], problem["msg"], keys)
            # Where no kind was tried, each message is a mistake of its own.
            tried = len(keys) < len(problem["loc"])
            lines.setdefault(where if tried else f"{where} {what}", f"{where}: {what}")
        return "\n".join(lines.values())

    def explain_not_json(self, error: NotJsonError) -> str:
        """Which variable it is, and how lists and tables are written."""
        names = [
            name
            for key, name in self._variables.items()
            if key.split(".")[-1] == error.field and os.environ.get(name) == error.text
        ]
        return (
            f"{' or '.join(names) or error.field}: this is a list or a table, which a variable "
            'holds as JSON, such as ["one", "two"] or {"key": "value"}'
        )

    def _where(self, keys: list[str]) -> str:
        """The variable that a mistake came from, else the file and the key, else the key."""
        for length in range(len(keys), 0, -1):
            if name := self._variables.get(".".join(keys[:length])):
                return name if length == len(keys) else f"{name}, key '{'.'.join(keys[length:])}'"
        dotted = ".".join(keys)
        found = []
        if self._path is not None and any(
            key == dotted or key.startswith(f"{dotted}.") or dotted.startswith(f"{key}.")
            for key in self._in_file
        ):
            found.append(f"{self._path}, key '{dotted}'")
        # A rule about a whole table is broken by the keys in it.
        found += [name for key, name in self._variables.items() if key.startswith(f"{dotted}.")]
        return " and ".join(found) or f"'{dotted}'"

    def _what(self, kind: str, message: str, keys: list[str]) -> str:
        if kind == "extra_forbidden":
            return f"there is no such key{self._nearest(keys[-1], keys[:-1])}"
        if kind in ("model_type", "dict_type", "model_attributes_type"):
            return f"this is a table with keys of its own, such as [{'.'.join(keys)}]"
        if kind == "string_type":
            return "must be text, in quotes"
        if kind in ("ip_v4_network", "ip_v6_network"):
            return (
                "must be a network such as 10.0.0.0/8 or fd00::/8, with no bits set after its "
                "prefix"
            )
        return message.removeprefix("Value error, ").replace("Input should be", "must be")

    def _meant(self, key: str) -> str:
        tables = list(self._model.model_fields)
        for table in tables:
            if key.startswith(f"{table}_"):
                right = f"{self._prefix}{table}__{key[len(table) + 1 :]}".upper()
                return f"two underscores part the table from the key: {right.replace('.', '__')}"
        first, *rest = key.split(".")
        close = difflib.get_close_matches(first, tables, n=1, cutoff=0.5)
        if close:
            return f"did you mean {self._prefix}{'__'.join([close[0], *rest]).upper()}?"
        return f"names begin with {self._prefix} and one of: {', '.join(tables).upper()}"

    def _nearest(self, name: str, table: list[str]) -> str:
        names = list(_model_at(self._model, table).model_fields)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(names)}"


def _is_kind(part: int | str) -> bool:
    """Whether a part of a place is pydantic's name of a kind that it tried, and no key:
    `function-plain[...]`, `lax-or-strict[...]`. Keys of tables hold no brackets."""
    return isinstance(part, str) and part.endswith("]") and "[" in part


def _model_at(model: type[BaseModel], keys: list[str]) -> type[BaseModel]:
    for key in keys:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return model
