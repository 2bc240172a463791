"""What the OpenAPI says of publishing: bodies of two kinds, which no annotation can tell."""

from __future__ import annotations

from typing import Any

from streams.record_fields import MAX_FEED_LENGTH, MAX_ID_LENGTH
from streams.records import MAX_URI_LENGTH

_TEXT: dict[str, dict[str, Any]] = {
    "id": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_LENGTH,
        "description": "The producer's name for the image; publishing it again overwrites. One is "
        "made when it is left out.",
    },
    "feed": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_FEED_LENGTH,
        "description": "The source that it belongs to; 'default' when left out, or the only feed "
        "of a key.",
    },
    "lane": {
        "type": "string",
        "enum": ["live", "bulk"],
        "description": "Bulk never delays live images.",
    },
}
_CAPTURED_AT = "When the picture was taken: RFC 3339, or milliseconds since the epoch."
_METADATA = "Anything else worth keeping, at most 64 KiB as JSON and 16 levels deep."

REFERENCE: dict[str, Any] = {
    "title": "ImageReference",
    "type": "object",
    "required": ["uri"],
    "properties": {
        "uri": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_URI_LENGTH,
            "description": "Where the image is: https:, http:, s3:, gs:, az:, file: or data:.",
        },
        **_TEXT,
        "captured_at": {
            "type": ["string", "integer"],
            "description": _CAPTURED_AT,
        },
        "metadata": {"type": "object", "description": _METADATA},
    },
    "description": "Unknown fields are kept as metadata.",
    "example": {
        "id": "gate-7/000123",
        "feed": "gate-7",
        "uri": "https://cameras.example.com/gate-7/000123.jpg",
        "captured_at": "2026-01-31T08:15:00Z",
        "metadata": {"shift": "early"},
    },
}

_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["picture"],
    "additionalProperties": False,
    "properties": {
        "picture": {
            "type": "string",
            "format": "binary",
            "minLength": 1,
            "description": "The encoded image: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF.",
        },
        **_TEXT,
        "captured_at": {"type": "string", "description": _CAPTURED_AT},
        "metadata": {"type": "string", "description": f"An object in JSON. {_METADATA}"},
    },
}

_PLACE: dict[str, Any] = {
    "image_id": {"type": "string"},
    "topic": {"type": "string"},
    "partition": {"type": "integer"},
    "offset": {"type": "integer"},
}

_ACCEPTED: dict[str, Any] = {
    "title": "PublishedImage",
    "type": "object",
    "required": [*_PLACE, "findings", "failure"],
    "properties": {
        **_PLACE,
        "findings": {
            "type": ["object", "null"],
            "description": "The record of images.findings, if `wait` was given and it came in "
            "time.",
        },
        "failure": {
            "type": ["object", "null"],
            "description": "Why it became a dead letter instead.",
            "required": ["stage", "reason", "detail"],
            "properties": {
                "stage": {"type": "string"},
                "reason": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
    },
    "example": {
        "image_id": "gate-7/000123",
        "topic": "images",
        "partition": 2,
        "offset": 417,
        "findings": None,
        "failure": None,
    },
}


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "202": {
            "description": "It is on Kafka, on every replica.",
            "content": {"application/json": {"schema": schema}},
        },
        "415": {"description": "The body is of another kind."},
    }


ONE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": REFERENCE},
            "multipart/form-data": {"schema": _FORM},
        },
    },
    "responses": _answer(_ACCEPTED),
}

BATCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1000,
                            "items": REFERENCE,
                        }
                    },
                }
            }
        },
    },
    "responses": _answer(
        {
            "title": "PublishedImages",
            "type": "object",
            "required": ["images"],
            "properties": {
                "images": {
                    "type": "array",
                    "description": "In the order in which they were sent.",
                    "items": {"type": "object", "required": list(_PLACE), "properties": _PLACE},
                }
            },
        }
    ),
}
