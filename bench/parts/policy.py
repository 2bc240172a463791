"""What a policy costs: processor time an image, for the shipped policy and for 5 to 500 rules.

No stream, no models: frames with findings as they come from a moderated feed, evaluated one after
another on one thread, measured in processor time so that other work on the machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.figures import Options, Report, figure
from operators.findings import Detection, Fingerprint, HashMatch, ImageInfo, TextLine
from operators.frame import Frame, Origin
from operators.policy import Policy

SIZES = (5, 50, 500)
TARGETS = {"default": 40.0, "50": 300.0}
"""Microseconds an image."""

_QUAD = ((0.0, 0.0), (400.0, 0.0), (400.0, 30.0), (0.0, 30.0))
_LINES = (
    "SUMMER SALE", "up to 50% off", "all shoes and bags", "Main Street 12", "open 9-18",
    "call now: 555 0100 200", "follow us", "while stocks last",
)  # fmt: skip
_SHAPES = (
    "objects.exists(o, o.label == 'LABEL_{n}' && o.score >= 0.6)",
    "objects.exists(o, o.score >= 0.5 && o.label in ['LABEL_{n}', 'OTHER_{n}', 'THIRD_{n}'])",
    "[' phrase {n} ', ' words of {n} ', ' other {n} '].exists(p, words.contains(p))",
    "'nsfw' in scores && scores['nsfw'] >= 0.9{n}",
    "objects.filter(o, o.label == 'FACE_{n}' && o.area > 0.05).size() >= 2",
    "image.width < {n} || image.height < {n}",
    "hashes.exists(h, h.list == 'list-{n}' && h.distance <= 20)",
    "words.contains(' call {n} ') && text.matches('[0-9][0-9 -]{{5,}}[0-9]')",
    "feed.startsWith('shop-{n}-') && faces.size() > 2",
    "has(metadata.country) && metadata.country == 'x{n}'",
)
"""What rules look like, in turn. The last goes through CEL for every image, since nobody knows the
types of metadata; the eighth only for images with the phrase."""


def run(options: Options) -> Report:
    """Measure every policy by turns."""
    frames = _frames()
    policies = {"default": Policy.load()} | {str(size): _policy(size) for size in SIZES}
    spent: dict[str, list[float]] = {name: [] for name in policies}
    through_cel: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(1 if options.quick else options.repeats):
        for name, policy in policies.items():
            rounds = 1 if options.quick else max(2, 4_000 // (len(policy.rules) + 5))
            spent[name].append(_microseconds(policy, frames, rounds))
        options.report("  ".join(f"{name}: {times[-1]:.1f} µs" for name, times in spent.items()))
    for name, policy in policies.items():
        compiled = [rule.condition.compiled for rule in policy.rules]
        for rule in policy.rules:
            rule.condition.compiled = None
        through_cel[name].append(_microseconds(policy, frames, 1))
        for rule, function in zip(policy.rules, compiled, strict=True):
            rule.condition.compiled = function
    rows = [
        f"| {'the shipped policy' if name == 'default' else f'{name} rules'} "
        f"| {len(policy.rules)} | {_median(spent[name]):.1f} | {through_cel[name][0]:.1f} |"
        for name, policy in policies.items()
    ]
    text = (
        "Microseconds of processor time an image, mean over images of which half have three "
        "objects and eight lines of text, and half have neither. The last column is the same with "
        "every condition evaluated by CEL.\n\n"
        "| policy | rules | µs an image | all by CEL |\n|---|---|---|---|\n" + "\n".join(rows)
    )
    return Report(
        "Policy evaluation",
        "make bench ONLY=policy",
        text,
        [
            figure(
                f"policy_{name}_us", spent[name], target=TARGETS.get(name), better="lower",
                unit="µs",
            )
            for name in policies
        ],
    )  # fmt: skip


def _policy(size: int) -> Policy:
    rules = (
        f"[[rules]]\nname = 'rule-{n}'\nwhen = '''{_SHAPES[n % len(_SHAPES)].format(n=n)}'''\n"
        "action = 'review'\n"
        for n in range(size)
    )
    return Policy.read("\n".join(rules).encode(), f"bench-{size}", "bench.toml")


def _frames() -> list[Frame]:
    frames = []
    for number in range(20):
        frame = Frame(
            f"image-{number}", "shop-7", 0, Origin("images", 0, number, 0),
            metadata={"shop": "7", "country": "no", "tags": ["a", "b"]},
        )  # fmt: skip
        findings = frame.findings
        findings.image = ImageInfo(1280, 720, "jpeg", 180_000)
        findings.fingerprint = Fingerprint(f"{number:064x}", f"{number:064x}", 90)
        findings.scores = {"nsfw": 0.02}
        findings.models = {"objects": "nudenet-320n@3.4.2", "scores": "open-nsfw@1.0.0"}
        if number % 2:
            findings.objects = [
                Detection(label, 0.8, (100.0, 50.0, 400.0, 500.0))
                for label in ("FACE_FEMALE", "ARMPITS_COVERED", "FEET_COVERED")
            ]
            findings.texts = [TextLine(line, 0.95, _QUAD) for line in _LINES]
        if number == 19:
            findings.hashes = [HashMatch("other", "pdq", 12, "known", "review")]
        frames.append(frame)
    return frames


def _microseconds(policy: Policy, frames: Sequence[Frame], rounds: int) -> float:
    start = time.process_time()
    for _ in range(rounds):
        for frame in frames:
            policy.evaluate(frame)
    return (time.process_time() - start) / (rounds * len(frames)) * 1e6


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
