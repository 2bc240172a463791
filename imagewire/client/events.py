"""Server-sent events, as the stream of verdicts has them.

Lines are parted here and not by httpx, which takes U+2028 for the end of a line: ids may hold it.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from imagewire.client.models import VerdictEvent

logger = logging.getLogger(__name__)


class EventReader:
    """Puts bytes together to events.

    Attributes:
        last_id: of the last event, with which a broken stream is taken up again.
        retry_seconds: to wait before that.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._id = last_id
        self.retry_seconds = 1.0
        self._event = ""
        self._data: list[str] = []
        self._begun = b""

    def headers(self) -> dict[str, str]:
        """For a request that goes on where this one ends."""
        known = {} if self.last_id is None else {"Last-Event-ID": self.last_id}
        return {"Accept": "text/event-stream", **known}

    def broken(self) -> None:
        """The stream broke off: what was begun is not whole."""
        self._event, self._data, self._begun = "", [], b""
        self._id = self.last_id

    def take(self, content: bytes) -> list[VerdictEvent]:
        """Take in what came; the verdicts that it completes."""
        *lines, self._begun = (self._begun + content).split(b"\n")
        found = (self._line(line.removesuffix(b"\r").decode("utf-8", "replace")) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str) -> VerdictEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value  # in force with the event's end: a half one has to come again
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal():
            self.retry_seconds = int(value) / 1000
        return None

    def _dispatch(self) -> VerdictEvent | None:
        event, data = self._event, "\n".join(self._data)
        self._event, self._data = "", []
        self.last_id = self._id
        if event == "gap":
            logger.warning(
                "verdicts are missing from the stream, since Kafka no longer has them (%s); read "
                "what came meanwhile from the list of images",
                data,
            )
        if event != "verdict" or not data:
            return None
        record: dict[str, Any] = msgspec.json.decode(data)
        return VerdictEvent(
            image_id=record["image_id"],
            feed=record["feed"],
            action=record["action"],
            record=record,
            event_id=self.last_id or "",
        )
