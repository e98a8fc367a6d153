"""Moving average of a network's weights: by hand, against its formula, and from a checkpoint."""

import pytest
import torch
from torch import nn

from nnunetv2_mip.training.weight_average import WeightAverage

DECAY = 0.3


def averaged_weights(average: WeightAverage, network: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of the network while it computes with the average."""
    with average.in_place(network):
        return {name: value.clone() for name, value in network.state_dict().items()}


def random_step(network: nn.Module) -> None:
    """A training step on random data: weights and buffers move."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()


@pytest.fixture
def network() -> nn.Module:
    """A convolution and a norm with buffers, one of them an integer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))


def expected_step(average: dict, network: nn.Module, steps: int) -> dict[str, torch.Tensor]:
    """The formula: d = min(decay, (1 + n) / (10 + n)); integers are copied."""
    keep = min(DECAY, (1 + steps) / (10 + steps))
    return {
        name: average[name].lerp(value, 1 - keep) if value.is_floating_point() else value.clone()
        for name, value in network.state_dict().items()
    }


def test_the_average_follows_the_weights():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = WeightAverage(network, 0.5)
    nn.init.constant_(network.weight, 1.0)
    # d is 2/11, then 3/12, as the formula says.
    for expected in (9 / 11, 9 / 11 + (1 - 9 / 11) * 0.75):
        average.update_parameters(network)
        assert averaged_weights(average, network)["weight"].item() == pytest.approx(expected)
        assert network.weight.item() == 1.0


def test_equals_its_formula_to_the_last_bit(network):
    average = WeightAverage(network, DECAY)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for steps in range(1, 9):
        random_step(network)
        average.update_parameters(network)
        expected = expected_step(expected, network, steps)
        assert average.steps == steps
        found = averaged_weights(average, network)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_goes_on_from_a_checkpoint(network):
    """The trainer saves the average as the network's weights, and the number of steps."""
    whole = WeightAverage(network, DECAY)
    for _ in range(3):
        random_step(network)
        whole.update_parameters(network)
    saved, live = averaged_weights(whole, network), network.state_dict()
    resumed = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    resumed.load_state_dict(saved)
    average = WeightAverage(resumed, DECAY)
    average.steps = 3
    resumed.load_state_dict(live)
    random_step(network)
    resumed.load_state_dict(network.state_dict())
    whole.update_parameters(network)
    average.update_parameters(resumed)
    assert average.steps == whole.steps == 4
    expected = averaged_weights(whole, network)
    for name, value in averaged_weights(average, resumed).items():
        assert torch.equal(value, expected[name])


def test_layers_with_two_names_are_exchanged_once():
    """nnU-Net's blocks list their layers twice; both names share one tensor."""
    layer = nn.Linear(2, 2)
    network = nn.ModuleDict({"one": layer, "again": layer})
    average = WeightAverage(network, 0.5)
    nn.init.constant_(layer.weight, 3.0)
    average.update_parameters(network)
    held = averaged_weights(average, network)["one.weight"]
    assert not (held == 3).any()
    for _ in range(3):
        with average.in_place(network):
            torch.testing.assert_close(network["again"].weight.detach(), held)
        assert (layer.weight == 3).all()
