"""Categories of rules: a taxonomy of two levels, `group/sub`.

Verdicts are counted and compared by category, which only works if everybody spells it alike. So a
policy uses the list here or declares its own, and any other category is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SEVERITIES = ("low", "medium", "high", "critical")

DEFAULT_TAXONOMY: Mapping[str, tuple[str, ...]] = {
    "sexual": ("explicit", "nudity", "suggestive"),
    "child-safety": ("abuse", "sexualisation", "grooming"),
    "violence": ("graphic", "threat", "weapons", "extremism"),
    "hate": ("symbols", "slurs", "harassment"),
    "self-harm": ("promotion", "depiction"),
    "illegal": ("drugs", "goods", "documents"),
    "deception": ("spam", "scam", "impersonation"),
    "privacy": ("personal-data", "contact", "faces"),
    "known": ("banned", "similar"),
    "quality": ("unreadable", "small", "unsupported"),
    "audit": ("sample", "trusted"),
}
"""In force unless a policy declares `[taxonomy]`."""


def categories(taxonomy: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Every category of `taxonomy`, written `group/sub`."""
    return tuple(f"{group}/{sub}" for group, subs in taxonomy.items() for sub in subs)
