"""What decides: where the policy is, and what it is told of scores."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from streams.settings import Section


class PolicySettings(Section):
    """What decides."""

    file: Path | None = Field(
        None,
        description="The policy's TOML file; the one that is shipped when not set. A worker takes "
        "over changes while it runs.",
    )
    calibrations: tuple[Path, ...] = Field(
        (), description="Files written by 'imagewire calibrate', for rules that read 'calibrated'."
    )
    calibrations_folder: Path | None = Field(
        None,
        description="Folder in which every file NAME.calibration.json applies as well, and into "
        "which 'imagewire calibrate' writes. 'imagewire up' has one in its data directory.",
    )
    name: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$",
        description="Which policy of the topic kafka.topics.policy this worker follows.",
    )
    follow: bool = Field(
        True,
        description="Take over policies that are published on kafka.topics.policy ('imagewire "
        "policy publish'). While one stands there, it is in force instead of the file.",
    )
    check_seconds: float = Field(
        2.0, ge=0.1, le=3600, description="Seconds between two looks at the files for changes."
    )

    def calibration_files(self) -> tuple[Path, ...]:
        """The files that are named and those in the folder, which may change at any time.

        Raises:
            operators.calibration.CalibrationError: the folder cannot be read.
        """
        # It imports torch, which is not needed to read settings.
        from operators.calibration import calibration_files

        return calibration_files(self.calibrations, self.calibrations_folder)
