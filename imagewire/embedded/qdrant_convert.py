"""Qdrant's gRPC messages in terms of its embedded engine, and back.

The embedded engine speaks Python objects of its own. Every request is read against a list of the
fields that are understood: a field outside it is refused by name, because an option that is
silently ignored gives wrong answers that nobody notices.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

import grpc
import qdrant_edge as edge
from google.protobuf.message import Message
from qdrant_client import grpc as api

PointId = int | uuid.UUID | str
"""As the engine takes it; what comes from a request is never a bare string that is no UUID."""


class RequestError(Exception):
    """A request that is answered with a gRPC status.

    Attributes:
        code: the status.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RequestError:
    """The request is wrong; sending it again would not help."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def unsupported(what: str) -> RequestError:
    """The request is right, but for a Qdrant server."""
    return RequestError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"the embedded Qdrant does not offer {what}; "
        "run a Qdrant server and set qdrant.host for it",
    )


def only(message: Message, *understood: str) -> None:
    """Refuse `message` if a field outside `understood` is set."""
    for field, _ in message.ListFields():
        if field.name not in understood:
            raise unsupported(f"'{field.name}' in {message.DESCRIPTOR.name}")


# -- points ----------------------------------------------------------------------------------------


def point_id(message: Any) -> PointId:
    """A whole number, or a UUID in its usual spelling."""
    match message.WhichOneof("point_id_options"):
        case "num":
            return int(message.num)
        case "uuid":
            try:
                return uuid.UUID(message.uuid)
            except ValueError:
                raise invalid(
                    f"point id '{message.uuid}' is neither a whole number nor a UUID"
                ) from None
    raise invalid("a point has no id; give a whole number or a UUID")


def point_id_message(value: Any) -> Any:
    if isinstance(value, int):
        return api.PointId(num=value)
    return api.PointId(uuid=str(value))


def vector(values: Iterable[float], dimension: int, where: str) -> list[float]:
    """Checked here because the engine accepts NaN, and refuses a whole batch for one wrong length.

    Raises:
        RequestError: wrong dimension, or a component that is not a finite number.
    """
    numbers = list(values)
    if len(numbers) != dimension:
        raise invalid(
            f"{where}: the vector has {len(numbers)} components, the collection {dimension}"
        )
    # A sum is finite exactly if all its 32-bit terms are (doubles cannot overflow on them), and is
    # an order of magnitude quicker than looking at each.
    if not math.isfinite(sum(numbers)):
        raise invalid(f"{where}: the vector holds NaN or infinity")
    return numbers


def point(message: Any, dimension: int) -> edge.Point:
    """A point with one dense, unnamed vector and its payload."""
    identity = point_id(message.id)
    where = f"point {identity}"
    if message.vectors.WhichOneof("vectors_options") != "vector":
        raise unsupported("named vectors, or points without a vector")
    given = message.vectors.vector
    match given.WhichOneof("vector"):
        case "dense":
            numbers = given.dense.data
        case None:  # how clients before 1.16 put it
            only(given, "data")
            numbers = given.data
        case other:
            raise unsupported(f"{other} vectors")
    return edge.Point(identity, vector(numbers, dimension, where), payload(message.payload))


def vectors_message(value: Any) -> Any:
    if value is None:
        return None
    return api.VectorsOutput(vector=api.VectorOutput(dense=api.DenseVector(data=value)))


# -- payloads --------------------------------------------------------------------------------------


def payload(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A payload as plain JSON values."""
    return {key: _json(value) for key, value in fields.items()}


def _json(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "integer_value":
            return value.integer_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_json(item) for item in value.list_value.values]
        case "struct_value":
            return payload(value.struct_value.fields)
    return None


def payload_message(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Plain JSON values as a payload map."""
    return {key: _value(item) for key, item in (value or {}).items()}


def _value(item: Any) -> Any:
    if item is None:
        return api.Value(null_value=api.NullValue.NULL_VALUE)
    if isinstance(item, bool):  # before int, which it is a kind of
        return api.Value(bool_value=item)
    if isinstance(item, int):
        return api.Value(integer_value=item)
    if isinstance(item, float):
        return api.Value(double_value=item)
    if isinstance(item, str):
        return api.Value(string_value=item)
    if isinstance(item, Mapping):
        return api.Value(struct_value=api.Struct(fields=payload_message(item)))
    return api.Value(list_value=api.ListValue(values=[_value(each) for each in item]))


def payload_selector(message: Any) -> Any:
    """What of the payload is asked for; nothing if the request does not say."""
    match message.WhichOneof("selector_options"):
        case "enable":
            return bool(message.enable)
        case "include":
            return edge.PayloadSelector.Include(list(message.include.fields))
        case "exclude":
            return edge.PayloadSelector.Exclude(list(message.exclude.fields))
    return False


def vectors_selector(message: Any) -> bool:
    if message.WhichOneof("selector_options") == "include":
        raise unsupported("named vectors")
    return bool(message.enable)


# -- filters ---------------------------------------------------------------------------------------


def filter_of(message: Any) -> edge.Filter | None:
    """A filter, or None for one without conditions."""
    only(message, "must", "should", "must_not", "min_should")
    if not message.ListFields():
        return None
    minimum = None
    if message.HasField("min_should"):
        minimum = edge.MinShould(
            [condition(each) for each in message.min_should.conditions],
            message.min_should.min_count,
        )
    return edge.Filter(
        must=[condition(each) for each in message.must] or None,
        should=[condition(each) for each in message.should] or None,
        must_not=[condition(each) for each in message.must_not] or None,
        min_should=minimum,
    )


def condition(message: Any) -> Any:
    match message.WhichOneof("condition_one_of"):
        case "field":
            return _field_condition(message.field)
        case "is_empty":
            return edge.IsEmptyCondition(message.is_empty.key)
        case "is_null":
            return edge.IsNullCondition(message.is_null.key)
        case "has_id":
            return edge.HasIdCondition({point_id(each) for each in message.has_id.has_id})
        case "filter":
            return filter_of(message.filter) or edge.Filter()
        case None:
            raise invalid("a filter holds an empty condition")
        case other:
            raise unsupported(f"filter condition '{other}'")


def _field_condition(message: Any) -> edge.FieldCondition:
    only(message, "key", "match", "range", "datetime_range", "is_empty", "is_null")
    limits: Any = None
    if message.HasField("range"):
        limits = edge.RangeFloat(**_bounds(message.range))
    elif message.HasField("datetime_range"):
        limits = edge.RangeDateTime(
            **{
                name: moment.ToDatetime(tzinfo=UTC).isoformat()
                for name, moment in _bounds(message.datetime_range).items()
            }
        )
    return edge.FieldCondition(
        message.key,
        match=_match(message.match) if message.HasField("match") else None,
        range=limits,
        is_empty=message.is_empty if message.HasField("is_empty") else None,
        is_null=message.is_null if message.HasField("is_null") else None,
    )


def _bounds(message: Any) -> dict[str, Any]:
    return {
        name: getattr(message, name)
        for name in ("gt", "gte", "lt", "lte")
        if message.HasField(name)
    }


def _match(message: Any) -> Any:
    match message.WhichOneof("match_value"):
        case "keyword" | "integer" | "boolean" as kind:
            return edge.MatchValue(getattr(message, kind))
        case "keywords":
            return edge.MatchAny(list(message.keywords.strings))
        case "integers":
            return edge.MatchAny(list(message.integers.integers))
        case "except_keywords":
            return edge.MatchExcept(list(message.except_keywords.strings))
        case "except_integers":
            return edge.MatchExcept(list(message.except_integers.integers))
        case "text":
            return edge.MatchText(message.text)
        case other:
            raise unsupported(f"match '{other}'")


# -- schemas ---------------------------------------------------------------------------------------

DISTANCES = {
    api.Distance.Cosine: edge.Distance.Cosine,
    api.Distance.Euclid: edge.Distance.Euclid,
    api.Distance.Dot: edge.Distance.Dot,
    api.Distance.Manhattan: edge.Distance.Manhattan,
}

INDEX_TYPES = {
    api.FieldType.FieldTypeKeyword: edge.PayloadSchemaType.Keyword,
    api.FieldType.FieldTypeInteger: edge.PayloadSchemaType.Integer,
    api.FieldType.FieldTypeFloat: edge.PayloadSchemaType.Float,
    api.FieldType.FieldTypeText: edge.PayloadSchemaType.Text,
    api.FieldType.FieldTypeBool: edge.PayloadSchemaType.Bool,
    api.FieldType.FieldTypeDatetime: edge.PayloadSchemaType.Datetime,
    api.FieldType.FieldTypeUuid: edge.PayloadSchemaType.Uuid,
}

# As the engine names the type of an index, and as Qdrant's API numbers it.
SCHEMA_TYPES = {
    str(kind): number
    for kind, number in (
        (edge.PayloadSchemaType.Keyword, api.PayloadSchemaType.Keyword),
        (edge.PayloadSchemaType.Integer, api.PayloadSchemaType.Integer),
        (edge.PayloadSchemaType.Float, api.PayloadSchemaType.Float),
        (edge.PayloadSchemaType.Text, api.PayloadSchemaType.Text),
        (edge.PayloadSchemaType.Bool, api.PayloadSchemaType.Bool),
        (edge.PayloadSchemaType.Datetime, api.PayloadSchemaType.Datetime),
        (edge.PayloadSchemaType.Uuid, api.PayloadSchemaType.Uuid),
    )
}
