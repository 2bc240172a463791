"""Recognises banned pictures, at the earliest moment that each way of telling allows.

A file is known by its bytes before it is decoded, a picture by its PDQ hash before any network has
looked at it, and what resembles an exemplar once it is embedded. Where the first two make the
policy block, nothing that networks could find would change that, so they need not look: the verdict
is given at once, and the findings say which operators were left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from operators.banlists import Banlists, strictest
from operators.findings import Fingerprint
from operators.frame import Frame
from operators.policy import Policy

KNOWN = "known_image"
"""The key in `findings.extra` under which a frame says which operators were left out because its
image is banned."""

_EARLY = frozenset({"hashes", "feed", "metadata"})
"""What a rule may read so that its word stands before any operator but `fingerprint` has run."""


class KnownImages:
    """Fills `findings.hashes` and `findings.similar`, and says whose verdict is settled.

    May be used from several threads.
    """

    def __init__(self, banlists: Banlists, *, skip_models: bool = True) -> None:
        """
        Args:
            skip_models: whether a verdict may be settled before all operators have run.
        """
        self._banlists = banlists
        self._skip_models = skip_models
        self._settling: WeakKeyDictionary[Policy, _SettlingRules] = WeakKeyDictionary()

    def by_content(self, frames: Sequence[Frame], policy: Policy) -> list[Frame]:
        """Look at the bytes of frames that are not decoded; sets `content_id`.

        Returns:
            Those whose verdict is settled.
        """
        for frame in frames:
            if frame.findings.fingerprint is None:
                # A gigabyte a second, with the interpreter's lock released.
                digest = hashlib.sha256(frame.content or b"").hexdigest()
                frame.findings.fingerprint = Fingerprint(content_id=digest)
            frame.findings.hashes = self._banlists.match_content(_content_id(frame))
        if any(banlist.action == "allow" for banlist in self._banlists.lists):
            # What the picture looks like may still speak for it.
            return []
        return self._settled(frames, policy)

    def by_picture(self, frames: Sequence[Frame], policy: Policy) -> list[Frame]:
        """Look at the PDQ hashes of frames that the operator `fingerprint` has seen.

        Returns:
            Those whose verdict is settled.
        """
        for frame in frames:
            self._match(frame)
        return self._settled(frames, policy)

    def by_embedding(self, frames: Sequence[Frame]) -> None:
        """Look at the embeddings of frames, where they have any."""
        embedded: dict[str, list[Frame]] = {}
        if self._banlists.has_exemplars:
            for frame in frames:
                if frame.findings.embedding is not None:
                    embedded.setdefault(frame.findings.embedding.model, []).append(frame)
        for model, same_model in embedded.items():
            vectors = [
                one.findings.embedding.vector for one in same_model if one.findings.embedding
            ]
            found = self._banlists.match_embedding(
                model, vectors, [_content_id(frame) for frame in same_model]
            )
            for frame, similar in zip(same_model, found, strict=True):
                frame.findings.similar = similar

    def again(self, frames: Sequence[Frame]) -> None:
        """Look once more at findings that were made earlier, when lists may have been others."""
        for frame in frames:
            frame.findings.similar = []
            self._match(frame)
        self.by_embedding(frames)

    def _match(self, frame: Frame) -> None:
        prints = frame.findings.fingerprint
        if prints is None:
            return
        matches = self._banlists.match_content(prints.content_id) if prints.content_id else []
        frame.findings.hashes = strictest(matches + self._banlists.match_picture(prints))

    def _settled(self, frames: Sequence[Frame], policy: Policy) -> list[Frame]:
        if not self._skip_models:
            return []
        return [
            frame
            for frame in frames
            if any(match.action == "block" for match in frame.findings.hashes)
            and self._rules_of(policy).settle(frame, policy)
        ]

    def _rules_of(self, policy: Policy) -> _SettlingRules:
        rules = self._settling.get(policy)
        if rules is None:
            rules = self._settling[policy] = _SettlingRules(policy)
        return rules


class _SettlingRules:
    """The rules of a policy whose word stands whatever operators find later."""

    def __init__(self, policy: Policy) -> None:
        acting = [rule for rule in policy.rules if rule.enabled and not rule.shadow]
        # A rule that outranks the others may allow what they block.
        later = [rule.priority for rule in acting if not rule.condition.variables <= _EARLY]
        least = max(later, default=None)
        self._names = {
            rule.name
            for rule in acting
            if rule.action == "block"
            and rule.condition.variables <= _EARLY
            and "hashes" in rule.condition.variables
            and (least is None or rule.priority >= least)
        }

    def settle(self, frame: Frame, policy: Policy) -> bool:
        if not self._names:
            return False
        verdict = policy.evaluate(frame)
        return verdict.action == "block" and any(
            hit.rule in self._names and not hit.shadow for hit in verdict.rules
        )


def _content_id(frame: Frame) -> str:
    prints = frame.findings.fingerprint
    return prints.content_id if prints is not None else ""
