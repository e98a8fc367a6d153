"""Costs: operations of a network, time, memory and energy of a piece of work."""

import socket
import sys

import numpy as np
import pytest
import torch

from nnunetv2_mip.efficiency.cost import (
    Meter,
    forward_operations,
    training_cost,
    training_operations,
)


def test_operations_of_a_network_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1, bias=False))
    # Per pixel and output channel 2 × 9 products with their additions.
    forward = 2 * 5 * (4 * 6) * 3 * (2 * 9)
    assert forward_operations(network, (5, 2, 4, 6)) == forward
    # Backward: the same for the weights; the input needs no gradient.
    assert training_operations(network, (5, 2, 4, 6)) == 2 * forward
    assert next(network.parameters()).device.type == "cpu"


def test_memory_and_time_of_one_piece_of_work():
    meter = Meter("cpu", energy=False)
    with meter.measuring() as small:
        pass
    with meter.measuring() as large:
        block = np.ones(40_000_000)
        block += 1
    del block
    with meter.measuring() as after:
        pass
    assert large.peak_mb - small.peak_mb > 250
    assert after.peak_mb < large.peak_mb - 200
    assert large.cpu_seconds > small.cpu_seconds and large.seconds > 0
    assert (large.energy_wh, meter.reason) == (None, "not asked for")


@pytest.mark.slow
def test_energy_without_network(monkeypatch, tmp_path):
    pytest.importorskip("codecarbon", reason="the extra study is not installed")
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    meter = Meter("cpu")
    assert meter.reason is None
    network = torch.nn.Conv2d(1, 8, 3, padding=1)
    found = training_cost(network, (1, 1, 64, 64), 8, "cpu", meter, 20)
    assert found["energy_wh"] > 0
    assert 0 <= found["processor_wh"] <= found["energy_wh"]
    assert list(tmp_path.iterdir()) == []


def test_no_energy_without_codecarbon(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    meter = Meter("cpu")
    assert 'pip install ".[study]"' in meter.reason
    with meter.measuring() as cost:
        pass
    assert cost.energy_wh is None and cost.seconds >= 0
