"""Fuzz what meets bytes from strangers: records, references, headers and decoders.

    python tests/fuzz/fuzz.py [--inputs 50000] [--seed 1] [--target NAME] [--keep FOLDER]

Prints a line for each target and ends with 1 if a promise was broken. Inputs that broke one, and
those that killed or held up a decoder, are written to the folder given by --keep.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from mutation import Mutator
from targets import TARGETS, Complaint, Decoding

BATCH = 64


def fuzz(name: str, inputs: int, seed: int) -> tuple[list[Complaint], list[Complaint], str]:
    """Run one target.

    Returns:
        What broke a promise, what was contained, and a line about the run.
    """
    target = TARGETS[name]()
    try:
        mutator = Mutator(target.seeds(), random.Random(f"{name}-{seed}"), target.words)
        complaints: list[Complaint] = []
        started = time.monotonic()
        for done in range(0, inputs, BATCH):
            complaints += target.run([mutator.next() for _ in range(min(BATCH, inputs - done))])
        seconds = time.monotonic() - started
        contained = target.contained if isinstance(target, Decoding) else []
        line = f"{name}: {inputs} inputs in {seconds:.0f} s, {len(complaints)} promises broken"
        if isinstance(target, Decoding):
            outcomes = sorted(target.outcomes.items(), key=lambda item: -item[1])
            line += f", {len(contained)} contained (" + ", ".join(
                f"{reason} {count}" for reason, count in outcomes
            )
            line += ")"
        return complaints, contained, line
    finally:
        target.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    broken = False
    for name in options.target or TARGETS:
        complaints, contained, line = fuzz(name, options.inputs, options.seed)
        print(line, flush=True)
        for content, said in complaints[:10] + contained[:10]:
            digest = hashlib.sha256(content).hexdigest()[:12]
            print(f"  {name}-{digest}: {said[:300]}")
            if options.keep is not None:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{name}-{digest}").write_bytes(content)
        broken = broken or bool(complaints)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
