"""The bench is no installed package, so the folder that holds it is put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: nothing there may stand before what is installed.
sys.path.append(str(Path(__file__).parents[2]))
