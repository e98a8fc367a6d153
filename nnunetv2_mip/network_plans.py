"""Networks of this package in place of those that plans name."""

from collections.abc import Iterable, Mapping

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_mip.errors import MipError


def replacements(pairs: Iterable[tuple[type, type]]) -> dict[str, str]:
    """Dotted names of nnU-Net's networks → those of ours, from the classes."""
    return {_dotted(network): _dotted(ours) for network, ours in pairs}


def network_in_place(
    replaced: Mapping[str, str],
    configuration_manager,
    input_channels: int,
    output_channels: int,
    deep_supervision: bool,
) -> nn.Module:
    """The network of the plans, ours in place of nnU-Net's.

    Args:
        replaced: as `replacements` gives it.
        configuration_manager: nnU-Net's, of the configuration.
        input_channels, output_channels, deep_supervision: as nnU-Net's trainers get them.

    Raises:
        MipError: the plans name a network that has no replacement.
    """
    name = configuration_manager.network_arch_class_name
    if name not in replaced and name not in replaced.values():
        raise MipError(
            f"plans: this trainer has no variant of the network {name}: choose a preset with a "
            "plain or residual encoder U-Net"
        )
    return get_network_from_plans(
        replaced.get(name, name),
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        input_channels,
        output_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )


def _dotted(network: type) -> str:
    return f"{network.__module__}.{network.__qualname__}"
