"""Conditions under which operators run: `when` in an operator's table of the settings.

Reading text costs a hundred times what finding objects costs, and many feeds need it only where a
detector saw something. A condition is a CEL expression like those of policies, over what is known
by the time its operator's turn comes; everything else is refused when the settings are read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from operators.frame import Frame
from operators.operator import OperatorError
from operators.policy_conditions import Condition, ConditionError, ContextBuilder
from operators.policy_variables import FrameView

WHEN = "when"
"""The key in an operator's table."""

_ALWAYS = ("feed", "metadata", "image")
_FOUND_BY: Mapping[str, tuple[str, ...]] = {
    "fingerprint": ("fingerprint",),
    "objects": ("objects",),
    "text": ("texts", "text", "words", "terms"),
    "scores": ("scores",),
    "faces": ("faces",),
}
_LOG_AGAIN_AFTER_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class RunConditions:
    """Which operators look at which frames."""

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        """
        Args:
            conditions: by the operator's name; those that are not named look at every frame.
        """
        self._conditions = dict(conditions)
        self._contexts = {
            name: ContextBuilder([condition]) for name, condition in conditions.items()
        }
        self._logged: dict[str, float] = {}

    @classmethod
    def read(cls, config: Mapping[str, Mapping[str, Any]], running: Sequence[str]) -> RunConditions:
        """The conditions in the operators' tables.

        Args:
            config: the operators' tables.
            running: names of the operators that run, in their order.

        Raises:
            OperatorError: a condition cannot work, or reads what is not known in time.
        """
        conditions = {}
        known = list(_ALWAYS)
        for name in running:
            if (source := config.get(name, {}).get(WHEN)) is not None:
                conditions[name] = _condition(name, source, known)
            known += _FOUND_BY.get(name, ())
        return cls(conditions)

    @property
    def depend_on(self) -> Literal["content", "feed", "frame"]:
        """What else than an image's bytes decides which operators look at it: nothing (`content`),
        its feed as well, or everything about the frame."""
        read = frozenset[str]().union(*(one.variables for one in self._conditions.values()))
        if "metadata" in read:
            return "frame"
        return "feed" if "feed" in read else "content"

    def wanted(self, operator: str, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Those of `frames` that `operator` is to look at. One whose condition cannot be evaluated
        is among them: looking too often loses nothing."""
        condition = self._conditions.get(operator)
        if condition is None:
            return frames
        return [frame for frame in frames if self._holds(operator, condition, frame)]

    def _holds(self, operator: str, condition: Condition, frame: Frame) -> bool:
        try:
            return condition.holds(self._contexts[operator].context(FrameView(frame)))
        except ValueError as error:
            now = time.monotonic()
            if now - self._logged.get(operator, -_LOG_AGAIN_AFTER_SECONDS) >= (
                _LOG_AGAIN_AFTER_SECONDS
            ):
                self._logged[operator] = now
                _logger.warning(
                    "operators.%s.when could not be evaluated for image %s, which the operator "
                    "therefore looks at: %s",
                    *(operator, frame.image_id, error),
                )
            return True


EVERY_FRAME = RunConditions({})
"""No conditions: every operator looks at every frame."""


def _condition(operator: str, source: object, known: Sequence[str]) -> Condition:
    where = f"operators.{operator}.when"
    if not isinstance(source, str):
        raise OperatorError(
            f"{where} is {source!r}; write a condition in quotes, such as \"feed != 'cctv'\""
        )
    try:
        condition = Condition(source)
    except ConditionError as error:
        raise OperatorError(
            f"{where}, line {error.line}, column {error.column}: {error.message}"
        ) from error
    if late := sorted(condition.variables - set(known)):
        raise OperatorError(
            f"{where} reads '{late[0]}', which is not known when '{operator}' has its turn; it "
            f"can read {', '.join(known)}"
        )
    return condition
