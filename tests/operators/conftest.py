"""Lets the tests of operators share the photos in `analysed_photos`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
