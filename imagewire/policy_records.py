"""What stands on the topic of policies under one name, and which of it is in force.

The newest record decides, and where it cannot be used the newest before it that can: so whoever
starts after a bad one came decides as those do that were running before. Without any since the last
withdrawal, the policy of the settings is in force.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from imagewire.policy_settings import PolicySettings
from operators.calibration import read_calibration
from operators.operator import OperatorError
from operators.policy import Policy

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024 * 1024
"""Of records that wait for a look, which at a start are all that stand on the topic; of more, the
oldest are let go. Policies are published by people, and most take some kilobytes."""


@dataclass(frozen=True, slots=True)
class Newest:
    """What a look at records, and at the settings' policy, found.

    Attributes:
        policy: `None` if nothing can be used.
        place: its record's place among those that were looked at; `None` for the settings' policy.
        trouble: why a newer one cannot be used.
    """

    policy: Policy | None
    place: int | None
    trouble: str | None


class PolicyRecords:
    """The records of the policy that the settings name, the oldest first."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._records: list[bytes] = []

    def take(self, key: bytes | None, value: bytes | None) -> bool:
        """Take in a record of the topic; whether it is of this policy."""
        if key != self._settings.name.encode():
            return False
        if value is None:
            self._records.clear()
            return True
        self._records.append(value)
        size = sum(map(len, self._records))
        while size > _MOST_BYTES:
            size -= len(self._records.pop(0))
        return True

    @property
    def now(self) -> tuple[bytes, ...]:
        """Those that may be in force."""
        return tuple(self._records)

    def newest(self, records: Sequence[bytes], *, settings_too: bool = True) -> Newest:
        """Which of `records` is in force. Blocking; may run in any thread.

        Args:
            settings_too: whether the settings' policy may stand in where none can be used.
        """
        trouble: str | None = None
        for place in reversed(range(len(records))):
            policy, mistake = self._tried(records[place])
            if policy is not None:
                return Newest(policy, place, trouble)
            trouble = trouble or mistake
        if records and not settings_too:
            return Newest(None, None, trouble)
        policy, mistake = self._tried(None)
        return Newest(policy, None, trouble or mistake)

    def looked_at(self, records: Sequence[bytes], found: Newest) -> None:
        """Let go of those between the one in force and the newest: they will not be asked again."""
        if records and self.now[: len(records)] == records:
            last = len(records) - 1
            kept = {last} if found.place is None else {found.place, last}
            self._records[: len(records)] = [records[each] for each in sorted(kept)]

    def _tried(self, published: bytes | None) -> tuple[Policy | None, str | None]:
        try:
            return self._read(published), None
        except OperatorError as error:
            return None, str(error)
        except Exception as error:
            # Whoever may write to the topic may write anything; what a defect of ours does to one
            # policy must not end the process.
            logger.exception("a policy could not be read")
            return None, f"{type(error).__name__}: {error}"

    def _read(self, published: bytes | None) -> Policy:
        settings = self._settings
        files = settings.calibration_files()
        if published is None:
            return Policy.load(settings.file, files)
        calibrations = [read_calibration(file) for file in files]
        source = f"policy '{settings.name}' on the topic"
        return Policy.read(published, settings.name, source, calibrations)
