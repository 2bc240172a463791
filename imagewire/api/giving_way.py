"""What looks at pictures for the API gives way to the stream, which runs on the same machine.

A picture that a person waits for takes a tenth of a second longer; images that wait because people
look at pictures would be late for all who read verdicts.
"""

from __future__ import annotations

import logging
import os
import threading

from models.processors import available_processors

logger = logging.getLogger(__name__)

_NICE = 10
_SHARE = 4
"""Of so many processors one is used by a network at a time."""


def give_way() -> None:
    """Lower the priority of this thread, and of threads and processes that it starts. For the
    `initializer` of a pool; where it is not possible, nothing changes."""
    try:
        # On Linux a thread has a priority of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    except (AttributeError, OSError) as error:
        logger.debug("this thread keeps its priority: %s", error)


def use_few_processors() -> None:
    """Let networks of this thread use a quarter of the processors. Loads torch."""
    import torch

    torch.set_num_threads(max(1, available_processors() // _SHARE))
