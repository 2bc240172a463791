"""One of several processes that share a GPU: from encoded bytes to findings, again and again.

    python -m bench.parts.gpu.feeder DEVICE BATCH THREADS OPERATOR...

Says `ready`, then for each line `SECONDS` on standard input prints how many images a second it did
meanwhile. Ends when standard input does.
"""

from __future__ import annotations

import sys

import torch

from bench.parts.gpu.work import chain_of, pipeline_rate
from bench.photos import load_photos
from models.device import choose_device
from operators.decode import make_decoder
from operators.decoder import DecodeLimits


def main() -> None:
    device = choose_device(sys.argv[1])
    batch, threads = int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    photos = load_photos()
    chain = chain_of(device, sys.argv[4:])
    decoder = make_decoder(device, DecodeLimits(), threads)
    try:
        # Long enough to meet every photo a few times.
        pipeline_rate(decoder, chain, photos, batch, 6.0 if device.is_cuda else 0.1)
        print("ready", flush=True)
        for line in sys.stdin:
            print(pipeline_rate(decoder, chain, photos, batch, float(line)), flush=True)
    finally:
        decoder.close()
        chain.close()


if __name__ == "__main__":
    main()
