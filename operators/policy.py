"""Policies: what may pass, what a person must look at, and what is blocked.

Rules are data, not code: they stand in a TOML file with CEL conditions, so that moderators can
read and change them, and every verdict names the version that decided and each rule that fired.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from operators.calibration import Calibration, read_calibration
from operators.findings import ACTIONS, Action, RuleHit, Verdict
from operators.frame import Frame
from operators.policy_conditions import Context, ContextBuilder
from operators.policy_file import (
    MAX_BYTES,
    RULE_ERROR,
    PolicyError,
    PolicyText,
    Remark,
    Rule,
    read_policy,
)
from operators.policy_taxonomy import DEFAULT_TAXONOMY
from operators.policy_variables import FrameView

__all__ = ["DEFAULT_POLICY", "RULE_ERROR", "Policy", "PolicyError", "Rule"]

DEFAULT_POLICY = Path(__file__).with_name("default_policy.toml")

_LOG_AGAIN_AFTER_SECONDS = 60.0
"""A rule that fails on every frame of a fast feed is logged once a minute, not once a frame."""
_MOST_FEEDS = 10_000
"""Feeds whose rules are remembered. Producers name feeds, so there may be any number."""
_SECONDS_OF_A_DAY = 86_400

_logger = logging.getLogger(__name__)


class Policy:
    """A checked set of rules and its version.

    `evaluate` may be called from several threads at once.

    Attributes:
        rules: all, in the order of the file.
        version: name and content hash, as it stands in every verdict.
        taxonomy: group to its categories.
        remarks: doubts that came up when single rules were read.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        version: str,
        calibrations: Sequence[Calibration] = (),
        taxonomy: Mapping[str, tuple[str, ...]] = DEFAULT_TAXONOMY,
        remarks: tuple[Remark, ...] = (),
    ) -> None:
        self.rules = rules
        self.version = version
        self.taxonomy = taxonomy
        self.remarks = remarks
        self.calibrations = tuple(calibrations)
        enabled = [rule for rule in rules if rule.enabled]
        self._enabled = tuple(enabled)
        self._contexts = ContextBuilder(
            expression
            for rule in enabled
            for expression in (rule.condition, *rule.explanation.expressions)
        )
        self._expires = any(rule.expires is not None for rule in enabled)
        self._day = -1
        self._by_feed: dict[str, tuple[Rule, ...]] = {}
        self._logged: dict[str, float] = {}
        self.clean: Callable[[str], str] = str
        """What messages in the log go through, since they may quote what was read."""

    @classmethod
    def load(cls, path: Path | None = None, calibrations: Sequence[Path] = ()) -> Policy:
        """Read and check a policy file; `None` is the policy that ships with Imagewire.

        The version is the file's stem and the first 12 hex digits of the SHA-256 of its bytes
        (`default-1a2b3c4d5e6f`), so `sha256sum` tells which file decided. With calibrations, `+`
        and the start of their hash follow.

        Raises:
            PolicyError: the file cannot be read or is not a usable policy.
            operators.calibration.CalibrationError: one of `calibrations` cannot be used.
        """
        file = DEFAULT_POLICY if path is None else path
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise PolicyError(
                f"{file}: the policy cannot be read ({error.strerror}); name a readable TOML file"
            ) from error
        name = "default" if path is None else file.stem
        return cls.read(content, name, str(file), [read_calibration(one) for one in calibrations])

    @classmethod
    def read(
        cls, content: bytes, name: str, source: str, calibrations: Sequence[Calibration] = ()
    ) -> Policy:
        """Check a policy's text.

        Args:
            content: TOML in UTF-8.
            name: begins the version.
            source: names the text in errors.

        Raises:
            PolicyError
        """
        if len(content) > MAX_BYTES:
            raise PolicyError(f"{source}: larger than {MAX_BYTES} bytes; split the policy by feed")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PolicyError(
                f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8"
            ) from error
        read: PolicyText = read_policy(text, source)
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name)[:80] or "policy"
        version = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}"
        if calibrations:
            applied = hashlib.sha256(msgspec.json.encode(list(calibrations))).hexdigest()[:8]
            version = f"{version}+{applied}"
        return cls(read.rules, version, calibrations, read.taxonomy, read.remarks)

    def evaluate(self, frame: Frame) -> Verdict:
        """The verdict over what was found in `frame`.

        Of the rules that fire and are no shadow rules, those with the highest priority decide, by
        the strictest of their actions. A rule that cannot be evaluated, because it reads a metadata
        key that this frame lacks for example, neither passes silently nor costs the frame its
        verdict: it is listed under the name `rule-error` with the action `review`, which makes a
        verdict stricter and never milder.
        """
        view = FrameView(frame, self.calibrations)
        context = self._contexts.context(view)
        hits: list[RuleHit] = []
        for rule in self._rules_for(frame.feed):
            if rule.sample < 1.0 and not _sampled(rule, frame):
                continue
            try:
                fired = rule.condition.holds(context)
            except ValueError as error:
                hits.append(_error_hit(rule, error))
                self._log(rule, frame, error)
                continue
            if fired:
                hits.append(_hit(rule, context))
        return Verdict(decided(hits) if hits else "allow", self.version, hits)

    def _rules_for(self, feed: str) -> tuple[Rule, ...]:
        """The rules that look at `feed` today."""
        if self._expires and (day := int(time.time() // _SECONDS_OF_A_DAY)) != self._day:
            self._by_feed = {}
            self._day = day
        by_feed = self._by_feed
        rules = by_feed.get(feed)
        if rules is None:
            today = datetime.datetime.now(datetime.UTC).date()
            rules = tuple(
                rule
                for rule in self._enabled
                if not rule.expired(today)
                # What can never fire need not be asked.
                and rule.condition.always is not False
                and (not rule.feeds or any(fnmatchcase(feed, pattern) for pattern in rule.feeds))
            )
            if len(by_feed) >= _MOST_FEEDS:
                by_feed.clear()
            by_feed[feed] = rules
        return rules

    def _log(self, rule: Rule, frame: Frame, error: ValueError) -> None:
        now = time.monotonic()
        if now - self._logged.get(rule.name, -_LOG_AGAIN_AFTER_SECONDS) < _LOG_AGAIN_AFTER_SECONDS:
            return
        self._logged[rule.name] = now
        _logger.warning(
            "policy %s: rule '%s' could not be evaluated for image %s: %s; the image goes to "
            "review. Guard the rule, for example with has(metadata.key)",
            self.version,
            rule.name,
            frame.image_id,
            self.clean(str(error)),
        )


def decided(hits: Sequence[RuleHit]) -> Action:
    """The action that `hits` come to; see `Policy.evaluate`."""
    acting = [hit for hit in hits if not hit.shadow]
    regular = [hit for hit in acting if hit.rule != RULE_ERROR]
    highest = max((hit.priority for hit in regular), default=None)
    actions: list[Action] = [hit.action for hit in regular if hit.priority == highest]
    actions += [
        hit.action
        for hit in acting
        if hit.rule == RULE_ERROR and (highest is None or hit.priority >= highest)
    ]
    return max(actions, key=ACTIONS.index, default="allow")


def _hit(rule: Rule, context: Context) -> RuleHit:
    return RuleHit(
        rule.name,
        rule.action,
        rule.explanation.filled(context),
        rule.priority,
        rule.severity,
        rule.category,
        rule.shadow,
    )


def _error_hit(rule: Rule, error: ValueError) -> RuleHit:
    return RuleHit(
        RULE_ERROR,
        "review",
        f"rule '{rule.name}': {error}",
        rule.priority,
        rule.severity,
        rule.category,
        rule.shadow,
    )


def _sampled(rule: Rule, frame: Frame) -> bool:
    """Whether the rule looks at this image: always the same answer for the same content, and for
    each rule another part of the images."""
    prints = frame.findings.fingerprint
    identity = prints.content_id if prints is not None and prints.content_id else frame.image_id
    digest = hashlib.blake2b(
        f"{rule.name}\0{identity}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest) < rule.sample * 2**64
