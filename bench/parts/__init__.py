"""The parts of the bench, a module or package each. Every part has `run(options) -> Report`.

A part that makes sense on one kind of device only says so: `DEVICES = ("cpu",)` or `("cuda",)`;
without it, the part runs on whatever device is asked for.
"""
