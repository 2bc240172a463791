"""Where a picture shows what must not be seen: faces, and what the detector calls by chosen labels.

A picture that leaves the service is searched anew, whatever was found in it when it came: findings
may be of an operator that was off, of another model or of a higher threshold, and a face that is
missed cannot be called back. What findings do know is hidden as well. If faces cannot be looked
for, nothing is shown.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

from models.catalog import Catalog
from models.device import Device
from models.errors import nearest
from models.faces import INSTALL, NotInstalledError
from operators.faces import FacesOperator
from operators.findings import Box, Findings
from operators.frame import Frame
from operators.objects import ObjectsOperator
from operators.operator import OperatorError
from operators.privacy_options import FACES, PrivacyOptions

log = logging.getLogger(__name__)

_OBJECTS_SIDE = 640
_FACE_PREFIX = "FACE_"
"""NudeNet's labels of faces, which stand in for CenterFace where that is not installed."""


class PrivatePlaces:
    """Finds what `options` hide. One instance belongs to one thread."""

    def __init__(
        self,
        options: PrivacyOptions,
        device: Device,
        catalog: Catalog,
        objects: Mapping[str, Any] | None = None,
        side: int = 640,
    ) -> None:
        """Load the detectors that are needed for it.

        Args:
            objects: options of the operator `objects`, whose model it is that labels belong to.
            side: the longer side in pixels at which pictures are searched for faces; at least that
                of the largest picture that will be shown, so that whoever can be recognised in it
                is found.

        Raises:
            OperatorError: a label is none of the detector's, or faces cannot be looked for.
            ModelError: the detector cannot be used.
        """
        self._labels = frozenset(options.blur) - {FACES}
        self._faces: FacesOperator | None = None
        self._objects: ObjectsOperator | None = None
        self._stand_in = False
        confidence = {"confidence": options.confidence}
        if FACES in options.blur:
            self._faces = _face_finder(
                {"model": options.model, "input_size": -(-side // 32) * 32, **confidence},
                device,
                catalog,
            )
            self._stand_in = self._faces is None
        if self._labels or self._stand_in:
            asked = {k: v for k, v in (objects or {}).items() if k not in ("enabled", "when")}
            self._objects = _object_finder({**asked, **confidence}, device, catalog)
            self._check(self._objects)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(
        self, frames: Sequence[Frame], known: Sequence[Findings | None] | None = None
    ) -> list[list[Box]]:
        """The places to hide in each frame, in pixels of its original.

        Args:
            frames: decoded and not failed; their findings are filled.
            known: what was found in each when it was analysed.
        """
        if self._faces is not None:
            self._faces.process(frames)
        if self._objects is not None:
            self._objects.process(frames)
        places = [self._of(frame.findings) for frame in frames]
        for own, findings in zip(places, known or (), strict=False):
            own += self._of(findings) if findings is not None else []
        return places

    def close(self) -> None:
        """Let go of the networks."""
        for operator in (self._faces, self._objects):
            if operator is not None:
                operator.close()

    def _of(self, findings: Findings) -> list[Box]:
        hides_faces = self._faces is not None or self._stand_in
        places = [face.box for face in findings.faces] if hides_faces else []
        return places + [
            found.box
            for found in findings.objects
            if found.label in self._labels or (hides_faces and found.label.startswith(_FACE_PREFIX))
        ]

    def _check(self, finder: ObjectsOperator) -> None:
        labels = finder.labels()
        for label in sorted(self._labels - labels):
            raise OperatorError(
                f"privacy.blur names '{label}', which is no label of the detector"
                f"{nearest(label, labels)}; name one of its labels, or 'faces'"
            )
        if self._stand_in and not any(label.startswith(_FACE_PREFIX) for label in labels):
            raise OperatorError(
                "privacy.blur names 'faces', but neither CenterFace is installed nor does the "
                f"detector know faces, so no picture can be shown; run: {INSTALL}"
            )


def _face_finder(
    options: Mapping[str, Any], device: Device, catalog: Catalog
) -> FacesOperator | None:
    finder = FacesOperator(options, device, catalog)
    try:
        finder.setup()
    except NotInstalledError as error:
        log.warning(
            "faces are hidden where NudeNet sees them, which misses small ones and those from the "
            "side: %s",
            error,
        )
        return None
    return finder


def _object_finder(options: Mapping[str, Any], device: Device, catalog: Catalog) -> ObjectsOperator:
    """At a larger size than the stream can afford, if the detector takes it: of the two faces in
    Ultralytics' photo of a bus NudeNet misses one at 320 pixels, and none at 640."""
    larger = {**options, "input_size": max(_OBJECTS_SIDE, options.get("input_size") or 0)}
    try:
        finder = ObjectsOperator(larger, device, catalog)
        finder.setup()
    except OperatorError:  # exported for one size only
        finder = ObjectsOperator(options, device, catalog)
        finder.setup()
    return finder
