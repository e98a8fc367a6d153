"""Replacement of the networks that plans name by networks of this package."""

from collections.abc import Iterable, Mapping

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.networks import stored_name


def replacements(pairs: Iterable[tuple[type, type]]) -> dict[str, str]:
    """Dotted names of nnU-Net's networks → dotted names of this package's networks.

    Args:
        pairs: (nnU-Net's class, class of this package).
    """
    return {stored_name(network): stored_name(ours) for network, ours in pairs}


class ReplacesNetworks:
    """Mixin for trainers: the network of the plans, replaced by one of this package.

    Attributes:
        networks: as `replacements` gives it.
    """

    networks: Mapping[str, str] = {}

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager,
        configuration_manager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network; called by nnU-Net's trainer and predictor.

        Raises:
            MipError: the plans name a network that has no replacement.
        """
        name = configuration_manager.network_arch_class_name
        if name not in cls.networks and name not in cls.networks.values():
            raise MipError(
                f"plans: this trainer has no variant of the network {name}: choose a preset with a "
                "plain or residual encoder U-Net"
            )
        return get_network_from_plans(
            cls.networks.get(name, name),
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            allow_init=True,
            deep_supervision=enable_deep_supervision,
        )
