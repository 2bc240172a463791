"""Ultralytics without what importing it does to the rest of the process.

Importing it replaces `PIL.Image.open` by a function that, for a picture that cannot be identified,
tries to install a HEIF decoder with pip and then raises `ModuleNotFoundError` instead of Pillow's
own error. Whatever in Imagewire needs Ultralytics imports it from here, where Pillow is put right
again; `models/__init__.py` sets the environment that keeps it silent and keeps pip out. Import this
module inside functions: it takes a second. OpenCV stays single-threaded as Ultralytics leaves it,
which suits a pipeline whose stages are threads themselves.
"""

from __future__ import annotations

from typing import Any

import PIL.Image

_pillow_open = PIL.Image.open

from ultralytics.nn import autobackend, modules, tasks  # noqa: E402 - Pillow's function is kept first
from ultralytics.utils import patches  # noqa: E402

# Somebody may have imported Ultralytics before; then it holds Pillow's function itself.
PIL.Image.open = getattr(patches, "_image_open", _pillow_open)

AutoBackend: Any = autobackend.AutoBackend
DetectionModel: Any = tasks.DetectionModel
load_checkpoint: Any = tasks.load_checkpoint
Conv: Any = modules.Conv
