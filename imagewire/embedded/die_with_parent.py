"""Run as a script in front of a child's command: the kernel kills the child when its parent dies.

    python -I -S die_with_parent.py PARENT_PID NICENESS PROGRAM ARGUMENTS...

It asks the kernel for that signal, is as much nicer to other processes as it is told (0 to 19,
setpriority(2)), and becomes the program. The alternative, code between fork and
exec in the parent, is unsafe in a process with threads, and wakes the fork handlers of gRPC.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arrange the signal and the niceness, then replace this process by the command."""
    parent, niceness, program, *arguments = sys.argv[1:]
    # Elsewhere than on Linux there is no such signal: orphans are then left to the engines.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the call above
            os._exit(1)
    os.nice(int(niceness))
    os.execv(program, [program, *arguments])  # noqa: S606 - the caller's own command


if __name__ == "__main__":
    main()
