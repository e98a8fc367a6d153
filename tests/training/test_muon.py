"""Muon: what its steps are, which weights take them, and going on from a saved state."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunetv2_mip.training.muon import MOMENTUM, QUINTIC, MuonAdamW, orthogonalised

RATE, FACTOR, DECAY = 0.01, 5.0, 0.1


@settings(deadline=None)
@given(rows=st.integers(2, 24), columns=st.integers(2, 60), seed=st.integers(0, 99))
def test_all_directions_get_about_the_same_length(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    made = orthogonalised(matrix)
    assert (made.shape, made.dtype) == (matrix.shape, matrix.dtype)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # In the matrix' own directions, so that it is a step downhill …
    along = torch.diagonal(left.T @ made @ right.T)
    # (what is smaller than bfloat16 tells apart stays small, as in the source)
    assert (along[values > 0.02 * values.max()] > 0.5).all()
    # … and none longer than another by much.
    assert torch.linalg.svdvals(made).max() < 1.35


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),  # an image's one channel
        nn.Conv2d(2, 2, (1, 3)),  # the only hidden kernel
        nn.InstanceNorm2d(2, affine=True),
        nn.ConvTranspose2d(2, 2, 2, 2),
        nn.Conv2d(2, 2, 1),  # an output
    )


def test_muon_moves_hidden_kernels_and_adamw_the_rest():
    trained = network()
    beside = copy.deepcopy(trained)
    muon = MuonAdamW(trained, RATE, FACTOR, DECAY)
    adamw = torch.optim.AdamW(beside.parameters(), RATE, weight_decay=DECAY)
    torch.manual_seed(1)
    for _ in range(3):
        for one, other in zip(trained.parameters(), beside.parameters()):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.step()
        adamw.step()
    for (name, one), other in zip(trained.named_parameters(), beside.parameters()):
        assert torch.equal(one, other) == (name != "1.weight"), name


def test_a_step_by_hand():
    """Two rows at right angles and of one length: each is turned into the polynomial's value."""
    trained = network()
    kernel = trained[1].weight
    before = kernel.detach().clone()
    kernel.grad = torch.zeros_like(kernel)
    kernel.grad[0, 0, 0, 0] = kernel.grad[1, 1, 0, 2] = 7.0
    MuonAdamW(trained, RATE, FACTOR, DECAY).step()

    a, b, c = QUINTIC
    value = 1 / math.sqrt(2)  # of a matrix of norm 1
    for _ in range(5):
        value = a * value + b * value**3 + c * value**5
    expected = before * (1 - RATE * DECAY)
    expected[0, 0, 0, 0] -= RATE * FACTOR * value
    expected[1, 1, 0, 2] -= RATE * FACTOR * value
    # bfloat16 has three digits
    torch.testing.assert_close(kernel.detach(), expected, atol=RATE * FACTOR * 0.02, rtol=0)


def test_rows_beyond_columns_make_longer_steps():
    tall = nn.Sequential(nn.Conv2d(2, 24, (1, 3)))
    nn.init.zeros_(tall[0].weight)
    torch.manual_seed(0)
    tall[0].weight.grad = torch.randn_like(tall[0].weight)
    direction = orthogonalised(tall[0].weight.grad.flatten(1))
    MuonAdamW(tall, RATE, FACTOR, DECAY).step()
    made = tall[0].weight.detach().flatten(1)
    torch.testing.assert_close(made, -RATE * FACTOR * 2 * direction, atol=4e-3, rtol=0)


def test_the_momentum_outlives_a_gradient():
    trained = network()
    kernel = trained[1].weight
    muon = MuonAdamW(trained, RATE, FACTOR, 0.0)
    kernel.grad = torch.randn_like(kernel)
    muon.step()
    held = muon.state[kernel]["momentum"].clone()
    torch.testing.assert_close(held, (1 - MOMENTUM) * kernel.grad)
    kernel.grad = torch.zeros_like(kernel)
    before = kernel.detach().clone()
    muon.step()
    assert not torch.equal(kernel, before)
    torch.testing.assert_close(muon.state[kernel]["momentum"], MOMENTUM * held)


def test_weights_without_a_gradient_stay():
    trained = network()
    before = copy.deepcopy(trained.state_dict())
    MuonAdamW(trained, RATE, FACTOR, DECAY).step()
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_network_without_hidden_kernels_is_adamw_alone():
    linear = nn.Linear(2, 2)
    muon = MuonAdamW(linear, RATE, FACTOR, DECAY)
    assert [group["muon_factor"] for group in muon.param_groups] == [None]


def test_training_goes_on_from_a_saved_state():
    torch.manual_seed(2)
    gradients = [[torch.randn_like(p) for p in network().parameters()] for _ in range(4)]

    def train(trained, muon, steps):
        for step in steps:
            for parameter, gradient in zip(trained.parameters(), gradients[step]):
                parameter.grad = gradient
            muon.step()

    through, stopped = network(), network()
    muon = MuonAdamW(through, RATE, FACTOR, DECAY)
    train(through, muon, range(4))
    first = MuonAdamW(stopped, RATE, FACTOR, DECAY)
    train(stopped, first, range(2))
    second = MuonAdamW(stopped, RATE, FACTOR, DECAY)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(stopped, second, range(2, 4))
    for one, other in zip(through.parameters(), stopped.parameters()):
        assert torch.equal(one, other)


def test_a_closure_is_called_with_gradients():
    linear = nn.Linear(2, 1)
    muon = MuonAdamW(linear, RATE, FACTOR, DECAY)

    def closure():
        muon.zero_grad()
        loss = linear(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    first = muon.step(closure)
    assert muon.step(closure) < first


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_changes_nothing(memory_format):
    trained = network().to(memory_format=memory_format)
    torch.manual_seed(3)
    trained[1].weight.grad = torch.randn(2, 2, 1, 3)
    MuonAdamW(trained, RATE, FACTOR, DECAY).step()
    plain = network()
    torch.manual_seed(3)
    plain[1].weight.grad = torch.randn(2, 2, 1, 3)
    MuonAdamW(plain, RATE, FACTOR, DECAY).step()
    torch.testing.assert_close(trained[1].weight.detach(), plain[1].weight.detach())
