"""`python -m imagewire.policy_check FILE`: whether a policy file can be used.

A process of its own, because the policy's modules bring torch along, and `imagewire up` should not
hold that in memory for as long as it runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_UNUSABLE = 2
_TIMEOUT = 120.0


def mistake_in_policy(file: Path) -> str | None:
    """What is wrong with the file, with line and column; `None` if a worker would take it.

    `None` too where the check itself cannot run: the worker, which reads the file again, tells.
    """
    command = [sys.executable, "-m", "imagewire.policy_check", str(file)]
    try:
        checked = subprocess.run(  # noqa: S603 - this very module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return checked.stdout.strip() if checked.returncode == _UNUSABLE else None


def _main(file: Path) -> int:
    from operators.policy import Policy, PolicyError

    try:
        Policy.load(file)
    except PolicyError as error:
        sys.stdout.write(f"{error}\n")
        return _UNUSABLE
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
