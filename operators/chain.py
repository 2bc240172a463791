"""The operator chain: every operator over a batch, then the policy, with each frame's fate its own.

An operator works on whole batches because networks are fast on batches. When one raises, the batch
is halved and tried again until only the guilty frame is left, so one strange picture costs
its neighbours a little time and never their findings.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import torch

from operators.findings import RuleHit, Verdict
from operators.frame import Frame, Stage
from operators.known_images import KNOWN, KnownImages
from operators.least_size import LeastSize, largest
from operators.near_identical import SKIPPED, Likeness, NearIdentical
from operators.operator import Operator, OperatorError
from operators.policy import RULE_ERROR, Policy
from operators.redact import Redactor
from operators.redact_gate import TextGate
from operators.run_conditions import EVERY_FRAME, RunConditions
from operators.terms import TermLists

_logger = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]
"""Told after each stage: its name, how many frames it got, how many seconds it took."""
Saved = Callable[[str, str, int], None]
"""Told what an operator was spared: its name, by what (`banlist`, `near` or `when`), and for how
many frames."""


@dataclass(slots=True)
class OutOfMemory:
    """What a batch taught about the device's memory.

    Attributes:
        times: how often an operator ran out of it.
        batch_sizes: sizes that did not fit although both halves did. Empty if nothing but images
            that are too large by themselves was in the way: smaller batches would not help them.
        images: how many images were too large by themselves.
    """

    times: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    images: int = 0


class DeviceLostError(OperatorError):
    """The accelerator reported an error after which no further work on it succeeds.

    Restart the process: its frames have not been acknowledged and will be delivered again.
    """


class OperatorChain:
    """Runs `operators` in order over batches of decoded frames, then decides by `policy`.

    Like the operators in it, a chain belongs to one thread; only `decide` may be called from
    another, so that the device has its next batch while the policy looks at the last.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        policy: Policy,
        observe: Observe | None = None,
        near_identical: NearIdentical | None = None,
        *,
        known_images: KnownImages | None = None,
        conditions: RunConditions = EVERY_FRAME,
        saved: Saved | None = None,
        terms: TermLists | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """
        Args:
            terms: looked for before the policy decides; without, text is not normalised either.
            redactor: takes personal data out of findings once the policy has decided; without,
                they hold what was read.
            known_images: recognises banned pictures; without, and without the operator
                `fingerprint`, none is known by its looks.
            conditions: which operators look at which frames.
            near_identical: takes findings over from frames that look the same; without, and
                without the operator `fingerprint`, every frame is analysed.
        """
        self.operators = tuple(operators)
        self._text_gate = TextGate(terms, redactor)
        policy.clean = self._text_gate.clean
        self.policy = policy
        self._observe = observe
        self._near_identical = near_identical
        self._known_images = known_images
        self._conditions = conditions
        self._saved = saved
        self.on_settled: Callable[[list[Frame]], object] | None = None
        """Told, in the thread that analyses, of frames whose verdict can be given while `analyse`
        still works on the others. They carry `known_images.KNOWN`, and nothing here touches them
        any more."""
        self.on_decided: Callable[[Sequence[Frame]], None] | None = None
        """Called by `decide` with frames that have their verdicts, to put others in their place."""
        self._versions: dict[str, dict[str, str]] = {}
        self._out_of_memory = OutOfMemory()

    def setup(self) -> None:
        """Load every operator's models. What was loaded is released again if one cannot start.

        Raises:
            OperatorError, models.ModelError
        """
        try:
            for operator in self.operators:
                operator.setup()
                self._versions[operator.name] = operator.model_versions()
        except BaseException:
            self.close()
            raise

    def process(self, frames: Sequence[Frame]) -> OutOfMemory | None:
        """Analyse `frames` and decide over them: `analyse`, then `decide`."""
        shortage = self.analyse(frames)
        self.decide(frames)
        return shortage

    def analyse(self, frames: Sequence[Frame]) -> OutOfMemory | None:
        """Fill the findings of every frame that has not failed, but for the verdict.

        A frame that an operator cannot analyse fails with the operator's name as its stage and
        `operator-error`, `out-of-memory` or the operator's own reason. Frames that had failed
        before are left as they are. Afterwards no frame holds its pixels any more.

        Returns:
            What did not fit into memory; `None` if all did.

        Raises:
            DeviceLostError: the accelerator cannot be used any more; no frame has been blamed.
        """
        self._out_of_memory = OutOfMemory()
        alike: dict[Frame, Likeness] = {}
        for position, operator in enumerate(self.operators):
            self._apply(
                operator,
                [frame for frame in frames if frame not in alike]
                if operator.name in SKIPPED
                else frames,
            )
            if operator.name == "fingerprint":
                frames = self._without_settled(frames, self.operators[position + 1 :])
                if self._near_identical is not None:
                    living = [frame for frame in frames if not frame.failed]
                    alike = self._near_identical.alike(living)
        if self._near_identical is not None:
            self._take_over(self._near_identical, alike, frames)
        if self._known_images is not None:
            self._known_images.by_embedding([frame for frame in frames if not frame.failed])
        for frame in frames:
            frame.pixels = None
            if frame.failed:
                self._text_gate.out(frame)
        return self._out_of_memory if self._out_of_memory.times else None

    def recognise(self, frames: Sequence[Frame]) -> list[Frame]:
        """Look for frames whose bytes are banned, before they are decoded. It touches nothing that
        `analyse` does, so the two may run side by side for different batches.

        Returns:
            Those whose verdict is settled; they need neither decoding nor analysis.
        """
        if self._known_images is None:
            return []
        settled = self._known_images.by_content(frames, self.policy)
        self._settle(settled, self.operators)
        return settled

    def recognise_again(self, frames: Sequence[Frame]) -> None:
        """Look whether findings that were made earlier are of images that are banned by now."""
        if self._known_images is not None:
            self._known_images.again(frames)

    def decide(self, frames: Sequence[Frame]) -> None:
        """Give every frame that has not failed its verdict. It needs no pixels, and touches nothing
        that `analyse` does, so the two may run side by side for different batches."""
        living = [frame for frame in frames if not frame.failed]
        self._decide(living)
        if self.on_decided is not None and living:
            self.on_decided(living)

    @property
    def depends_on_content_only(self) -> bool:
        """Whether equal bytes have equal findings, whatever feed or metadata they come with."""
        return all(operator.depends_on_content_only for operator in self.operators)

    def model_versions(self) -> dict[str, str]:
        """Role to `name@version` for every model that the operators use, once they are set up."""
        return {role: model for roles in self._versions.values() for role, model in roles.items()}

    def least_size(self) -> LeastSize | None:
        """The picture that is large enough for every operator, once they are set up; `None` if one
        needs the full size."""
        return largest(operator.least_size() for operator in self.operators)

    def close(self) -> None:
        """Release every operator; one that fails to close does not keep the others open."""
        for operator in reversed(self.operators):
            try:
                operator.close()
            except Exception:
                _logger.exception("operator '%s' could not be closed", operator.name)

    def _apply(self, operator: Operator, frames: Sequence[Frame]) -> None:
        living: Sequence[Frame] = [frame for frame in frames if not frame.failed]
        wanted = self._conditions.wanted(operator.name, living)
        self._spare(operator, "when", len(living) - len(wanted))
        living = wanted
        if not living:
            return
        start = time.perf_counter()
        self._run(operator, living)
        self._report(operator.name, len(living), start)
        for frame in living:
            frame.findings.models.update(self._versions.get(operator.name, {}))

    def _without_settled(
        self, frames: Sequence[Frame], left: Sequence[Operator]
    ) -> Sequence[Frame]:
        """`frames`, less those that are banned by their looks and whose verdict that settles."""
        if self._known_images is None:
            return frames
        living = [frame for frame in frames if not frame.failed]
        settled = self._known_images.by_picture(living, self.policy)
        if not settled:
            return frames
        self._settle(settled, left)
        if self.on_settled is not None:
            self.on_settled(settled)
        done = set(settled)
        return [frame for frame in frames if frame not in done]

    def _settle(self, frames: Sequence[Frame], left: Sequence[Operator]) -> None:
        for frame in frames:
            frame.findings.extra[KNOWN] = {"skipped": [operator.name for operator in left]}
            frame.content = None
            frame.pixels = None
        for operator in left:
            self._spare(operator, "banlist", len(frames))

    def _spare(self, operator: Operator, rung: str, frames: int) -> None:
        if frames and self._saved is not None:
            self._saved(operator.name, rung, frames)

    def _take_over(
        self,
        near_identical: NearIdentical,
        alike: Mapping[Frame, Likeness],
        frames: Sequence[Frame],
    ) -> None:
        skipped = [operator for operator in self.operators if operator.name in SKIPPED]
        orphans = near_identical.fill(
            alike,
            [frame for frame in frames if frame.failed],
            [operator.name for operator in skipped],
        )
        for operator in skipped:
            self._spare(operator, "near", len(alike) - len(orphans))
            self._apply(operator, orphans)
            for frame in alike:
                if not frame.failed:
                    frame.findings.models.update(self._versions.get(operator.name, {}))

    def _run(self, operator: Operator, frames: Sequence[Frame]) -> None:
        try:
            operator.process(frames)
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            self._out_of_memory.times += 1
            self._halve(operator, frames, error, "out-of-memory")
        except torch.AcceleratorError as error:
            # Such errors (an illegal address, a device-side assertion) leave the CUDA context
            # unusable: going on would turn every later image into a dead letter.
            raise DeviceLostError(
                f"operator '{operator.name}' lost {operator.device.torch_device}: {error}; "
                "restart the worker, its unacknowledged images are delivered again"
            ) from error
        except Exception as error:  # noqa: BLE001 - whatever it is, one frame carries it
            self._halve(operator, frames, error, "operator-error")

    def _halve(
        self, operator: Operator, frames: Sequence[Frame], error: BaseException, reason: str
    ) -> None:
        """Try each half of a batch that failed with `error`, or give up its only frame."""
        # The operator may have marked some frames itself before it raised.
        frames = [frame for frame in frames if not frame.failed]
        if len(frames) > 1:
            _logger.info(
                "operator '%s': %s (%s) in a batch of %d; trying halves",
                operator.name,
                reason,
                self._text_gate.clean(str(error)),
                len(frames),
            )
            # The traceback holds the failed attempt's tensors; on a full device they must go first.
            error.__traceback__ = None
            if reason == "out-of-memory" and operator.device.is_cuda:
                torch.cuda.empty_cache()
            middle = len(frames) // 2
            learned = self._out_of_memory
            before = (len(learned.batch_sizes), learned.images)
            self._run(operator, frames[:middle])
            self._run(operator, frames[middle:])
            fitted = before == (len(learned.batch_sizes), learned.images)
            if reason == "out-of-memory" and fitted:
                learned.batch_sizes.append(len(frames))
            return
        if reason == "out-of-memory":
            self._out_of_memory.images += len(frames)
        for frame in frames:
            _logger.warning(
                "operator '%s' failed on image %s\n%s",
                operator.name,
                frame.image_id,
                self._text_gate.clean("".join(traceback.format_exception(error)), frame),
            )
            frame.fail(operator.name, reason, _detail(operator, frame, error, reason))

    def use_policy(self, policy: Policy) -> None:
        """Decide by another policy from the next batch on. May be called from another thread."""
        policy.clean = self._text_gate.clean
        self.policy = policy

    def _decide(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        start = time.perf_counter()
        self._text_gate.look_for_changes()
        # Another policy may come at any moment: a batch has one.
        policy = self.policy
        for frame in frames:
            try:
                self._text_gate.into(frame)
                frame.findings.verdict = _never_unseen(frame, policy.evaluate(frame))
            except Exception as error:  # noqa: BLE001 - one frame carries it, and the log tells
                _logger.error(
                    "policy failed on image %s\n%s",
                    frame.image_id,
                    self._text_gate.clean(traceback.format_exc(), frame),
                )
                frame.fail(
                    Stage.POLICY,
                    "policy-error",
                    f"policy {policy.version} could not be evaluated: "
                    f"{type(error).__name__}: {error}; see the worker's log",
                )
            self._text_gate.out(frame)
        self._report(Stage.POLICY, len(frames), start)

    def _report(self, stage: str, size: int, start: float) -> None:
        if self._observe is not None:
            self._observe(str(stage), size, time.perf_counter() - start)


def _never_unseen(frame: Frame, verdict: Verdict) -> Verdict:
    """`verdict`, or `review` where it would allow an image that no operator looked at: the policy
    that blocked it for its hash alone was exchanged before this one was asked."""
    if verdict.action != "allow" or KNOWN not in frame.findings.extra:
        return verdict
    why = "it was not analysed, as the policy before this one blocked it for being on a banlist"
    hit = RuleHit(RULE_ERROR, "review", why)
    return msgspec.structs.replace(verdict, action="review", rules=[*verdict.rules, hit])


def _detail(operator: Operator, frame: Frame, error: BaseException, reason: str) -> str:
    if reason == "out-of-memory":
        size = tuple(frame.pixels.shape) if frame.pixels is not None else "no pixels"
        return (
            f"operator '{operator.name}' ran out of memory on this image alone ({size}); "
            "lower the limit on image size or give the worker more memory"
        )
    return (
        f"operator '{operator.name}' failed on this image alone: {type(error).__name__}: {error}; "
        "the worker's log has the traceback"
    )
