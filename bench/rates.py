"""Images a second from the times at which verdicts came: what is left when the beginning and the
end of a lap, in which not everything is at work, are cut off."""

from __future__ import annotations

from collections.abc import Sequence


def steady_rate(times: Sequence[float], warm_up: int, cool_down: int = 0) -> float:
    """Images a second between the first `warm_up` verdicts and the last `cool_down` of them.

    Verdicts of one batch come together, so counting begins behind the batch in which the warm-up
    ends, and stops behind the one in which the cool-down begins.

    Args:
        times: of the verdicts, ascending.

    Raises:
        ValueError: nothing is left in between.
    """
    # Verdicts within a hundredth of a second are one batch's.
    began, ended = (
        max(at for at in times[index:] if at <= times[index] + 0.01)
        for index in (warm_up, len(times) - 1 - cool_down)
    )
    if ended <= began:
        raise ValueError(
            f"{len(times)} verdicts, with a warm-up of {warm_up} and a cool-down of {cool_down}, "
            "are too few to time"
        )
    return sum(began < at <= ended for at in times) / (ended - began)
