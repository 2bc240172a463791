"""What glibc and oneDNN read from the environment when a process starts, as models need it.

By default glibc gives every tensor of more than 128 KiB fresh pages from the kernel and returns
them at once, so each batch pays for page faults and throughput falls as batches grow: on two CPU
cores EfficientNet-Lite0 at batch 16 gave 47 images/s with the defaults, 95 with the first three
settings. Threads other than the first have arenas made of heaps of 64 MiB, though, and a tensor
that fits into none is mapped and unmapped each time. In one arena for all it is not.

Where the kernel gives huge pages on request (transparent_hugepage/enabled is madvise), glibc 2.35
and later can request them: reading text in one thread took 64 to 75 ms a picture instead of 80 to
83 (medians of three processes each, by turns). Elsewhere this changes nothing.

oneDNN keeps the code that it made for a shape of tensors, of 1024 shapes by default. Lines of text
come in many widths and numbers, and looking for the oldest shape took more time than most layers.

A worker that reads text (two cores, two copies of the models, medians of four laps by turns):

| | images/s | page faults an image | resident |
|---|---|---|---|
| the first three settings | 12.5 | 7750 | 4.2 GiB |
| one arena beside them | 13.4 | | |
| 4096 shapes beside them | 13.4 (with 8192) | | |
| both | 15.3 | 120 | 3.0 GiB |
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_ONEDNN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "4096"}
NATIVE_SETTINGS = {**_MALLOC, **_ONEDNN}


def native_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that `environment` lacks; of malloc none where it is not glibc's or is
    replaced.

    A value that is set already is the user's choice and stays.
    """
    glibc = platform.libc_ver()[0] == "glibc" and "LD_PRELOAD" not in environment
    wanted = NATIVE_SETTINGS if glibc else _ONEDNN
    return {name: value for name, value in wanted.items() if name not in environment}
