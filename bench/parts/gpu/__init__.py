"""What a GPU adds: rates by operator, batch and precision, decoding, and processes that share it.

Everything is in process, without Kafka and stores, on the photos of the other parts: this part says
where the time goes on the device. `ceiling` and `end_to_end`, run on the same device, say how much
of it is left of the whole pipeline.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from bench.figures import Figure, Options, Report, figure
from bench.parts.gpu.crowd import Crowd
from bench.parts.gpu.work import (
    chain_of,
    chain_rate,
    decode_rate,
    decoded,
    pipeline_rate,
    warm,
)
from bench.photos import MIX, load_photos
from models.device import Device, choose_device
from models.precision import Precision
from operators.chain import OperatorChain
from operators.decode_contained import ContainedDecoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.decoder import DecodeLimits, Decoder
from operators.registry import BUILT_IN

DEVICES = ("cuda",)
BATCHES = (1, 8, 32, 64)
BEST = 64
"""The batch of the comparisons that are not about batches."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
DECODE_SIZES = ((640, 480), (1920, 1080), (4000, 3000))
PROCESSES = (1, 2, 3, 4)

Cell = tuple[str, ...]
Rates = dict[Cell, list[float]]


def run(options: Options) -> Report:
    """Measure; about four minutes."""
    seconds = 0.1 if options.quick else 1.0
    device = choose_device(options.device)
    mixed = load_photos(different=4 if options.quick else 60)
    pixels = decoded(mixed, len(mixed.pictures), device.torch_device)
    text, figures = [f"Photos: {MIX}. Rates are images a second, medians of the repeats.\n"], []

    operators = _by_operator(options, device, pixels, seconds)
    text.append("\n**Operators by batch**, preloaded on the device\n")
    text.append(_table("operator", [str(batch) for batch in _batches(options)], operators))
    best = str(_batches(options)[-1])
    whole = operators[("default set", best)]
    figures.append(figure("default_set_images_per_second", whole, unit="images/s"))

    precisions = _by_precision(options, pixels, seconds)
    text.append(f"\n**Precision**, default set, batches of {best}\n")
    text.append(_table("precision", ["rate"], precisions))

    decoders = _decoding(options, device, seconds)
    sizes = [f"{width}×{height}" for width, height in _sizes(options)]
    text.append("\n**Decoding**, screening included, pixels on the device\n")
    text.append(_table("decoder", sizes, decoders))

    crowds = _crowds(options, seconds)
    text.append(
        "\n**Processes on one device**, from encoded bytes to findings, without Kafka and stores\n"
    )
    text.append(_table("processes", ["rate"], crowds))
    figures += _crowd_figures(crowds, statistics.median(whole))
    return Report("On a GPU", "make bench-gpu ONLY=gpu", "".join(text), figures)


def _batches(options: Options) -> Sequence[int]:
    return (1, 2) if options.quick else BATCHES


def _sizes(options: Options) -> Sequence[tuple[int, int]]:
    return DECODE_SIZES[:1] if options.quick else DECODE_SIZES


def _by_operator(
    options: Options, device: Device, pixels: Sequence[torch.Tensor], seconds: float
) -> Rates:
    rates: Rates = {}
    wanted = {name: (name,) for name in BUILT_IN} | {"default set": BUILT_IN}
    if options.quick:
        wanted = {"default set": ("fingerprint", "objects")}
    for name, only in wanted.items():
        options.report(f"{name} by batch")
        chain = chain_of(device, only)
        try:
            for batch in _batches(options):
                warm(chain, pixels, batch, seconds)
            for _ in range(options.repeats):
                for batch in _batches(options):
                    cell = rates.setdefault((name, str(batch)), [])
                    cell.append(chain_rate(chain, pixels, batch, seconds))
        finally:
            chain.close()
    return rates


def _by_precision(options: Options, pixels: Sequence[torch.Tensor], seconds: float) -> Rates:
    rates: Rates = {}
    batch = _batches(options)[-1]
    chains: dict[str, OperatorChain] = {}
    on_gpu = options.device.startswith("cuda")
    try:
        for precision in PRECISIONS if on_gpu else ("fp32",):
            options.report(f"precision {precision}")
            only = ("fingerprint",) if options.quick else BUILT_IN
            chains[precision] = chain_of(choose_device(options.device, precision), only)
            warm(chains[precision], pixels, batch, seconds)
        for _ in range(options.repeats):
            for precision, chain in chains.items():
                cell = rates.setdefault((precision, "rate"), [])
                cell.append(chain_rate(chain, pixels, batch, seconds))
    finally:
        for chain in chains.values():
            chain.close()
    return rates


def _decoders(device: Device) -> Iterator[tuple[str, Callable[[], Decoder]]]:
    limits = DecodeLimits()
    target = device.torch_device
    yield "processor, copied to the device", lambda: ContainedDecoder(target, limits)
    if dali_is_installed():
        yield (
            "DALI on the device",
            lambda: DaliDecoder(target, limits, ContainedDecoder(target, limits, 1)),
        )


def _decoding(options: Options, device: Device, seconds: float) -> Rates:
    rates: Rates = {}
    decoders = {name: make() for name, make in _decoders(device)}
    try:
        for size in _sizes(options):
            options.report(f"decoding {size[0]}x{size[1]}")
            photos = load_photos([size], different=4 if options.quick else 20)
            # 64 photos of 12 megapixels are 2.3 GB.
            batch = 2 if options.quick else 64
            for decoder in decoders.values():
                decode_rate(decoder, photos, batch, seconds)
            for _ in range(options.repeats):
                for name, decoder in decoders.items():
                    cell = rates.setdefault((name, f"{size[0]}×{size[1]}"), [])
                    cell.append(decode_rate(decoder, photos, batch, seconds))
    finally:
        for decoder in decoders.values():
            decoder.close()
    return rates


def _crowds(options: Options, seconds: float) -> Rates:
    if options.quick:
        return _alone(options, seconds)
    rates: Rates = {}
    for count in PROCESSES:
        options.report(f"{count} processes on the device")
        with Crowd(count, options.device, BEST) as crowd:
            # Not interleaved: processes that wait would hold memory and clocks that others need.
            rates[(str(count), "rate")] = [crowd.rate(3 * seconds) for _ in range(options.repeats)]
    return rates


def _alone(options: Options, seconds: float) -> Rates:
    """For the smoke run: the loop of one process, in this one."""
    photos = load_photos(different=2)
    device = choose_device(options.device)
    chain = chain_of(device, ("fingerprint",))
    decoder = ContainedDecoder(device.torch_device, DecodeLimits(), 1)
    try:
        return {("1", "rate"): [pipeline_rate(decoder, chain, photos, 2, seconds)]}
    finally:
        decoder.close()
        chain.close()


def _crowd_figures(crowds: Rates, ceiling: float) -> list[Figure]:
    one = crowds[("1", "rate")]
    found = [
        figure(
            "decode_and_operators_over_ceiling",
            [rate / ceiling for rate in one],
            note="one process, in process: photos decoded and analysed, over the default set's "
            "rate on preloaded batches",
        )
    ]
    best = max(crowds, key=lambda cell: statistics.median(crowds[cell]))
    found.append(
        figure(
            "best_processes_images_per_second",
            crowds[best],
            unit="images/s",
            note=f"with {best[0]} processes on one device",
        )
    )
    return found


def _table(first: str, columns: Sequence[str], rates: Rates) -> str:
    rows = list(dict.fromkeys(cell[0] for cell in rates))
    lines = ["", f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = []
        for column in columns:
            found = rates.get((row, column))
            if not found:
                cells.append("–")
                continue
            cells.append(f"{statistics.median(found):,.0f} ({min(found):,.0f}–{max(found):,.0f})")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
