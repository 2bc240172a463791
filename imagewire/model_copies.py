"""The copies of the models that a worker runs: how many, and what each is made of."""

from __future__ import annotations

from collections.abc import Callable

from imagewire.settings import ConfigurationError, Settings
from models.catalog import load_catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.near_identical import NearIdentical
from operators.operator import Operator
from operators.registry import build_operators
from operators.replicas import Replicas, replicas_for
from operators.run_conditions import RunConditions

MakesChain = Callable[[list[Operator], RunConditions, NearIdentical | None], OperatorChain]


def copies_of_models(
    settings: Settings, device: Device, threads: int, make: MakesChain
) -> tuple[Replicas, RunConditions]:
    """Chains as the settings ask for them, not yet set up, and when which operator runs.

    Args:
        threads: torch threads, which the copies share.
        make: makes a chain of operators, when they run, and what it takes findings over by.

    Raises:
        ConfigurationError, models.ModelError, operators.OperatorError: they cannot be built.
    """
    catalog = load_catalog(settings.models.catalogs)
    near = settings.reuse.near_distance

    def operators() -> list[Operator]:
        return build_operators(settings.operators, device, catalog)

    first = operators()
    conditions = RunConditions.read(settings.operators, [operator.name for operator in first])

    def chain(operators: list[Operator]) -> OperatorChain:
        alike = NearIdentical(near, settings.reuse.near_frames) if near else None
        return make(operators, conditions, alike)

    chains = [chain(first)]
    count = settings.models.replicas
    if count is None:
        count = 1 if near else replicas_for(device, threads, chains[0])
    elif near and count > 1:
        raise ConfigurationError(
            f"reuse.near_distance compares each image with those before it, which {count} copies "
            "of the models do not see; leave models.replicas out, or set it to 1"
        )
    chains += [chain(operators()) for _ in range(count - 1)]
    return Replicas(chains, device, threads), conditions
