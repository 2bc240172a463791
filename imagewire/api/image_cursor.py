"""Where a page of images ends, as an opaque text that stays right while images arrive.

A page is continued after the last image that was shown and not after a number of images, so that
nothing is shown twice or left out when newer ones come in between.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

import msgspec

_LONGEST = 4096
_Time = Annotated[int, msgspec.Meta(ge=-(10**13), le=2 * 10**13)]
"""Milliseconds since the epoch, beyond what the tables hold on either side."""


class CursorError(ValueError):
    """The text is no cursor that a page of images ended with."""


@dataclass(frozen=True, slots=True)
class ImageCursor:
    """The last image of a page. `event_time_ms`: milliseconds since the epoch."""

    event_time_ms: int
    image_id: str
    feed: str

    def text(self) -> str:
        """The cursor as it may stand in an address."""
        fields = msgspec.json.encode((self.event_time_ms, self.image_id, self.feed))
        return base64.urlsafe_b64encode(fields).rstrip(b"=").decode()

    @classmethod
    def of(cls, text: str) -> ImageCursor:
        """The cursor that `text` spells.

        Raises:
            CursorError
        """
        wrong = CursorError("this is no cursor; give `next` of an earlier page, unchanged")
        if len(text) > _LONGEST:
            raise wrong
        try:
            fields = base64.b64decode(
                text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
            )
            return cls(*msgspec.json.decode(fields, type=tuple[_Time, str, str]))
        except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise wrong from error
