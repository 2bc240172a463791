"""The operator chain: every operator over a batch, then the policy, with each frame's fate its own.

An operator works on whole batches because networks are fast on batches. When one raises, the batch
is halved and tried again until only the guilty frame is left, so one strange picture costs
its neighbours a little time and never their findings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from operators.frame import Frame, Stage
from operators.least_size import LeastSize, largest
from operators.near_identical import SKIPPED, Likeness, NearIdentical
from operators.operator import Operator, OperatorError
from operators.policy import Policy

_logger = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]
"""Told after each stage: its name, how many frames it got, how many seconds it took."""


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
    ) -> None:
        """
        Args:
            near_identical: takes findings over from frames that look the same; without, and
                without the operator `fingerprint`, every frame is analysed.
        """
        self.operators = tuple(operators)
        self.policy = policy
        self._observe = observe
        self._near_identical = near_identical
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
        for operator in self.operators:
            self._apply(
                operator,
                [frame for frame in frames if frame not in alike]
                if operator.name in SKIPPED
                else frames,
            )
            if self._near_identical is not None and operator.name == "fingerprint":
                alike = self._near_identical.alike([frame for frame in frames if not frame.failed])
        if self._near_identical is not None:
            self._take_over(self._near_identical, alike, frames)
        for frame in frames:
            frame.pixels = None
        return self._out_of_memory if self._out_of_memory.times else None

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
        living = [frame for frame in frames if not frame.failed]
        if not living:
            return
        start = time.perf_counter()
        self._run(operator, living)
        self._report(operator.name, len(living), start)
        for frame in living:
            frame.findings.models.update(self._versions.get(operator.name, {}))

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
                error,
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
                "operator '%s' failed on image %s", operator.name, frame.image_id, exc_info=error
            )
            frame.fail(operator.name, reason, _detail(operator, frame, error, reason))

    def _decide(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        start = time.perf_counter()
        for frame in frames:
            try:
                frame.findings.verdict = self.policy.evaluate(frame)
            except Exception as error:
                _logger.exception("policy failed on image %s", frame.image_id)
                frame.fail(
                    Stage.POLICY,
                    "policy-error",
                    f"policy {self.policy.version} could not be evaluated: "
                    f"{type(error).__name__}: {error}; see the worker's log",
                )
        self._report(Stage.POLICY, len(frames), start)

    def _report(self, stage: str, size: int, start: float) -> None:
        if self._observe is not None:
            self._observe(str(stage), size, time.perf_counter() - start)


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
