"""Put weights into a network, and say in one sentence why they do not fit.

torch's own message lists every tensor, which for the wrong size of YOLO is 15 000 characters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from models.catalog import ModelCard
from models.errors import ModelError


def load_weights(
    card: ModelCard, network: nn.Module, weights: Mapping[str, Tensor], spare: Collection[str] = ()
) -> None:
    """Load `weights` into `network`, all of them.

    Args:
        spare: parts of the network (the first piece of a tensor's name) that may be in `weights`
            and are not used.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape.
    """
    wanted = network.state_dict()
    offered = {
        name: value
        for name, value in weights.items()
        if name in wanted or name.split(".")[0] not in spare
    }
    missing = [name for name in wanted if name not in offered]
    unknown = [name for name in offered if name not in wanted]
    misshapen = [
        name for name in offered if name in wanted and offered[name].shape != wanted[name].shape
    ]
    if missing or unknown or misshapen:
        raise ModelError(
            f"model '{card.full_name}': its weights do not fit the network '{card.network}' "
            f"({len(missing)} tensors are missing, {len(unknown)} unknown, {len(misshapen)} of "
            f"another shape, such as '{(misshapen or unknown or missing)[0]}'); name the network "
            "that they were trained with"
        )
    network.load_state_dict(offered)
