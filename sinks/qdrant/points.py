"""Frames as points in Qdrant's wire format.

The client's own models check every component of a vector and turn it into a message one by one. A
packed list of floats is, on the wire, just their bytes, so they are packed in one go.
"""

from __future__ import annotations

import math
import struct
import time
from functools import lru_cache

from qdrant_client import grpc

from operators.findings import Embedding
from operators.frame import Frame
from sinks.event_time import rfc3339

_PACKED_FLOATS = b"\x0a"
"""Tag of `DenseVector.data`: field 1, length-delimited."""


def point(frame: Frame, embedding: Embedding, max_text_characters: int) -> grpc.PointStruct:
    """The frame's point, with what searches filter by and show.

    Args:
        max_text_characters: how much of the text that was read is kept; 0 for none.

    Raises:
        ValueError: the vector holds what 32 bits cannot hold.
    """
    return grpc.PointStruct(
        id=grpc.PointId(uuid=frame.point_id),
        vectors=grpc.Vectors(vector=grpc.Vector(dense=_dense(embedding.vector))),
        payload=_payload(frame, max_text_characters),
    )


def _dense(vector: list[float]) -> grpc.DenseVector:
    if not math.isfinite(sum(vector)):
        raise ValueError("holds NaN or infinity")
    try:
        data = _packer(len(vector)).pack(*vector)
    except OverflowError as error:
        raise ValueError("holds a number too large for 32 bits") from error
    dense: grpc.DenseVector = grpc.DenseVector.FromString(
        _PACKED_FLOATS + _varint(len(data)) + data
    )
    return dense


@lru_cache(8)
def _packer(dimension: int) -> struct.Struct:
    return struct.Struct(f"<{dimension}f")


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _payload(frame: Frame, max_text_characters: int) -> dict[str, grpc.Value]:
    findings = frame.findings
    labels = sorted({detection.label for detection in findings.objects})
    payload = {
        "image_id": _text(frame.image_id),
        "content_id": _text(findings.fingerprint.content_id if findings.fingerprint else None),
        "feed": _text(frame.feed),
        "event_time": _text(rfc3339(frame.event_time_ms)),
        # What retention counts from: an archive of old pictures should not vanish at once.
        "stored_at": _text(rfc3339(time.time_ns() // 1_000_000)),
        "verdict": _text(findings.verdict.action if findings.verdict else None),
        "labels": grpc.Value(list_value=grpc.ListValue(values=[_text(label) for label in labels])),
        # `data:` addresses are the picture itself, which has no place in a payload.
        "uri": _text(None if frame.uri is None or frame.uri[:5].lower() == "data:" else frame.uri),
    }
    if max_text_characters and findings.texts:
        text = "\n".join(line.text for line in findings.texts)
        payload["text"] = _text(text[:max_text_characters])
    return payload


def _text(value: str | None) -> grpc.Value:
    return _NULL if value is None else grpc.Value(string_value=value)


_NULL = grpc.Value(null_value=grpc.NullValue.NULL_VALUE)
