"""What a worker takes of its machine: memory with that of its children, and the accelerator's.

`process_resident_memory_bytes` counts one process, while images are decoded in children; a limit is
set on all of them together. Read when Prometheus asks, which takes about a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from models.device import Device

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class MachineMetrics(Collector):
    """Memory of this process and its children, and of its device.

    Args:
        copies: of the models, each of which is busy for at most one second a second.
        limit_file: where the kernel says how much memory the control group may take.
    """

    def __init__(self, device: Device, copies: int, limit_file: Path = _CGROUP_LIMIT) -> None:
        self._device = device
        self._copies = copies
        self._limit_file = limit_file
        self._process = psutil.Process()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = GaugeMetricFamily(
            "imagewire_memory_bytes",
            "Resident memory of the worker itself and of the children that decode for it",
            labels=["part"],
        )
        memory.add_metric(["worker"], self._process.memory_info().rss)
        memory.add_metric(["children"], self._children())
        yield memory
        yield GaugeMetricFamily(
            "imagewire_memory_limit_bytes",
            "Memory that may be taken: the control group's limit, else all that there is",
            self.limit(),
        )
        yield GaugeMetricFamily(
            "imagewire_model_copies",
            "Copies of the models, which work side by side",
            self._copies,
        )
        if self._device.is_cuda:
            yield self._device_memory()

    def limit(self) -> int:
        """Bytes that this process and its children may take together."""
        total = int(psutil.virtual_memory().total)
        try:
            words = self._limit_file.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            return total
        return min(total, int(words[0])) if words and words[0].isdigit() else total

    def _children(self) -> int:
        total = 0
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue  # it has just ended
        return total

    def _device_memory(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "imagewire_device_memory_bytes",
            "Memory of the accelerator: all of it, what is free, what torch holds, and what "
            "tensors take",
            labels=["kind"],
        )
        device = self._device.torch_device
        free, total = torch.cuda.mem_get_info(device)
        family.add_metric(["total"], total)
        family.add_metric(["free"], free)
        family.add_metric(["reserved"], torch.cuda.memory_reserved(device))
        family.add_metric(["allocated"], torch.cuda.memory_allocated(device))
        return family
