"""Policies: what may pass, what a person must look at, and what is blocked.

Rules are data, not code: they stand in a TOML file with CEL conditions, so that moderators can
read and change them, and every verdict names the version that decided and each rule that fired.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path

from operators.findings import ACTIONS, Action, RuleHit, Verdict
from operators.frame import Frame
from operators.policy_conditions import ContextBuilder
from operators.policy_file import RULE_ERROR, PolicyError, Rule, read_rules

__all__ = ["RULE_ERROR", "Policy", "PolicyError", "Rule"]

DEFAULT_POLICY = Path(__file__).with_name("default_policy.toml")

_LOG_AGAIN_AFTER_SECONDS = 60.0
"""A rule that fails on every frame of a fast feed is logged once a minute, not once a frame."""

_logger = logging.getLogger(__name__)


class Policy:
    """A checked set of rules and its version.

    `evaluate` may be called from several threads at once.
    """

    def __init__(self, rules: tuple[Rule, ...], version: str) -> None:
        self.rules = rules
        self.version = version
        self._active = tuple(rule for rule in rules if rule.enabled)
        self._contexts = ContextBuilder(rule.condition for rule in self._active)
        self._logged: dict[str, float] = {}

    @classmethod
    def load(cls, path: Path | None = None) -> Policy:
        """Read and check a policy file; `None` is the policy that ships with Imagewire.

        The version is the file's stem and the first 12 hex digits of the SHA-256 of its bytes
        (`default-1a2b3c4d5e6f`), so `sha256sum` tells which file decided.

        Raises:
            PolicyError: the file cannot be read or is not a usable policy.
        """
        file = DEFAULT_POLICY if path is None else path
        try:
            content = file.read_bytes()
            text = content.decode("utf-8")
        except OSError as error:
            raise PolicyError(
                f"{file}: the policy cannot be read ({error.strerror}); name a readable TOML file"
            ) from error
        except UnicodeDecodeError as error:
            raise PolicyError(
                f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8"
            ) from error
        name = "default" if path is None else re.sub(r"[^A-Za-z0-9_.]+", "-", file.stem) or "policy"
        version = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
        return cls(read_rules(text, str(file)), version)

    def evaluate(self, frame: Frame) -> Verdict:
        """The verdict over what was found in `frame`: the strictest action of all rules that fire.

        A rule that cannot be evaluated, because it reads a metadata key that this frame lacks for
        example, neither passes silently nor costs the frame its verdict: it is listed under the
        name `rule-error` with the action `review`, so that a person looks.
        """
        context = self._contexts.context(frame)
        hits: list[RuleHit] = []
        for rule in self._active:
            if rule.feeds and not any(fnmatchcase(frame.feed, feed) for feed in rule.feeds):
                continue
            try:
                if rule.condition.holds(context):
                    hits.append(RuleHit(rule.name, rule.action, rule.explanation))
            except ValueError as error:
                hits.append(RuleHit(RULE_ERROR, "review", f"rule '{rule.name}': {error}"))
                self._log(rule, frame, error)
        action: Action = max((hit.action for hit in hits), key=ACTIONS.index, default="allow")
        return Verdict(action, self.version, hits)

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
            error,
        )
