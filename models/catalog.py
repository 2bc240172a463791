"""The catalogue of models: what each is for, where its weights are, and how they are checked.

It is data, not code: the bundled `catalog.toml` and any number of the user's own files in the same
form, read in order, a later entry replacing an earlier one of the same name. Everything downstream
names models by their catalogue name, so a model is exchanged by one line of settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from models.errors import ModelError, nearest
from models.validation import explain
from models.weights import is_remote, verified_weights

Task = Literal[
    "detection",
    "face-detection",
    "text-detection",
    "text-recognition",
    "embedding",
    "text-embedding",
    "tokenizer",
    "classification",
]
Format = Literal[
    "onnx", "torch-state-dict", "torchscript", "ultralytics-pt", "engine", "tokenizer-json"
]

BUNDLED = Path(__file__).with_name("catalog.toml")


def _labels_by_index(value: Any) -> Any:
    """A list numbers its labels from 0; a mapping may leave indices out (TOML keys are strings)."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return value


def _square(value: Any) -> Any:
    """A single number stands for a square."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Labels = Annotated[dict[int, str], BeforeValidator(_labels_by_index)]
Size = Annotated[tuple[int, int], BeforeValidator(_square)]


class ModelCard(BaseModel):
    """One model of the catalogue.

    Attributes:
        name: how settings name it.
        version: of the weights; stands beside the name in everything that is stored.
        task: which operator can use it.
        weights: `package:<module>/<path>`, a path, `file:`, `http(s)://`, `s3://`, `gs://` or
            `az://`. `load_catalog` takes relative paths from the folder of the catalogue file.
        sha256: of the weights, 64 hex digits; they are refused when it differs.
        licence: SPDX identifier of the weights' licence.
        format: how the weights are stored.
        network: which network they belong to, where the format does not say it itself; each loader
            documents its names.
        labels: class index to label. A list is numbered from 0. Classes left out of a mapping are
            not reported.
        input_size: (height, width) in pixels that the network is fed; a single number in a
            catalogue file is a square.
        thresholds: the model's own, which an operator's options override.
        trust: loading these weights executes code that is stored in them (pickle), and that is
            accepted.
        options: settings of the loader, such as `mean` and `std`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    task: Task
    weights: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)
    format: Format
    network: str | None = None
    labels: Labels = {}
    input_size: Size | None = None
    thresholds: dict[str, float] = {}
    trust: bool = False
    options: dict[str, Any] = {}

    @field_validator("sha256", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("input_size")
    @classmethod
    def _positive(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            raise ValueError("both sides must be at least 1 pixel")
        return value

    @property
    def full_name(self) -> str:
        """`name@version`, as it is stored with every finding."""
        return f"{self.name}@{self.version}"

    def verified_path(self) -> Path:
        """The local file with the weights, fetched into the cache if need be, SHA-256 checked.

        Raises:
            ModelError: they are missing, unreachable, or not those that the catalogue promises.
        """
        return verified_weights(self.full_name, self.weights, self.sha256)


class Catalog:
    """The models that can be named in settings, by name."""

    def __init__(self, cards: Mapping[str, ModelCard] | Sequence[ModelCard]) -> None:
        entries = cards.values() if isinstance(cards, Mapping) else cards
        self._cards = {card.name: card for card in entries}

    def get(self, name: str) -> ModelCard:
        """The card of the model called `name`.

        Raises:
            ModelError: there is none; the message names the nearest one.
        """
        try:
            return self._cards[name]
        except KeyError:
            raise ModelError(
                f"the catalogue has no model '{name}'{nearest(name, self._cards)}; "
                "name one of its models, or describe yours in a catalogue file of your own"
            ) from None

    def names(self, task: Task | None = None) -> list[str]:
        """The names of all models, or of those for `task`, in the order of the catalogue."""
        return [card.name for card in self if task is None or card.task == task]

    def __iter__(self) -> Iterator[ModelCard]:
        return iter(self._cards.values())

    def __len__(self) -> int:
        return len(self._cards)

    def __contains__(self, name: object) -> bool:
        return name in self._cards


def load_catalog(extra: Sequence[Path] = ()) -> Catalog:
    """The bundled catalogue, extended and overridden by the files in `extra`, in their order.

    Raises:
        ModelError: a file cannot be read or an entry is wrong; the message names file, model, key.
    """
    cards: dict[str, ModelCard] = {}
    for path in (BUNDLED, *extra):
        for card in _read(Path(path)):
            cards[card.name] = card
    return Catalog(cards)


def _read(path: Path) -> list[ModelCard]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"the model catalogue '{path}' cannot be read ({error.strerror}); "
            "correct its path in models.catalogs"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"the model catalogue '{path}' is not valid TOML: {error}") from error
    for key in document:
        if key != "model":
            raise ModelError(
                f"the model catalogue '{path}' has an unknown key '{key}'; "
                "each model is a table [model.<its name>]"
            )
    tables = document.get("model", {})
    if not isinstance(tables, dict):
        raise ModelError(f"the model catalogue '{path}': each model is a table [model.<its name>]")
    return [_card(path, name, table) for name, table in tables.items()]


def _card(path: Path, name: str, table: Any) -> ModelCard:
    if not isinstance(table, dict):
        raise ModelError(f"{path}: model '{name}' is not a table; write [model.{name}]")
    try:
        card = ModelCard.model_validate({**table, "name": name})
    except ValidationError as error:
        problems = "; ".join(explain(error, ModelCard, ignore="name"))
        raise ModelError(f"{path}: model '{name}': {problems}") from error
    if card.weights.startswith("package:") or ":/" in card.weights or is_remote(card.weights):
        return card
    weights = Path(card.weights).expanduser()
    return card.model_copy(update={"weights": str(path.resolve().parent / weights)})
