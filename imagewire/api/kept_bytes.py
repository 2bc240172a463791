"""The bytes that were used last, as many as have room, so that they need not be made again."""

from __future__ import annotations

from collections import OrderedDict


class KeptBytes:
    """A cache by name, bounded in bytes. `most_bytes`: of all values together."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, name: str) -> bytes | None:
        """The value of that name, if it is still kept."""
        found = self._values.get(name)
        if found is not None:
            self._values.move_to_end(name)
        return found

    def put(self, name: str, value: bytes) -> None:
        """Keep `value`, and let go of the oldest for it. One that would push most others out is
        not kept."""
        self._held -= len(self._values.pop(name, b""))
        if len(value) <= self._most // 4:
            self._values[name] = value
            self._held += len(value)
        while self._held > self._most:
            _, dropped = self._values.popitem(last=False)
            self._held -= len(dropped)
