"""The names of the precisions that networks can be asked to compute in.

They stand apart from `models.device`, so that settings can be read without loading torch, which
takes seconds: a command that only talks to Kafka or a store should not wait for it.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
