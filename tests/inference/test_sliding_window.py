"""The predictor's own windows, copies and folds against nnU-Net's, engine against engine."""

import socket

import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference import impulse_noise as prefilter
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.deadline import Cancelled, Deadline, WorkDone
from nnunetv2_mip.inference.engine import ENGINE_VARIABLE, Network
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.sliding_window import MOST_PATCHES_AT_ONCE, Windows, mirrored_copies

PIXEL = (4.0, 4.0)


def levels(views: int, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, (views, rows, columns)).astype(np.uint8)


def stock(predictor: MIPPredictor, stack: np.ndarray) -> np.ndarray:
    """What `nnUNetPredictor.predict_single_npy_array` says."""
    nnunet = predictor._nnunet
    nnunet.use_mirroring = predictor.config.tta
    properties = {"spacing": [1000.0, *PIXEL]}
    _, probabilities = nnunet.predict_single_npy_array(
        stack[None].astype(np.float32), properties, None, None, True
    )
    return probabilities[1]


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("shape", [(1, 20, 24), (2, 32, 32), (1, 75, 50)])
def test_patches_give_what_stock_nnunet_gives(tiny_predictor, shape, tta):
    predictor = tiny_predictor.override(tiling="patch", tta=tta)
    stack = levels(*shape)
    found = predictor.view_probabilities(stack, PIXEL)
    expected = stock(predictor, stack)
    # nnU-Net adds windows up in half precision, which is coarse at their corners.
    assert np.abs(found - expected).max() < 1e-2
    assert np.abs(found - expected).mean() < 1e-3


def test_whole_views_are_patches_where_one_patch_holds_them(tiny_predictor):
    stack = levels(2, 32, 30)
    patch, whole = (
        tiny_predictor.override(tiling=tiling).view_probabilities(stack, PIXEL)
        for tiling in ("patch", "whole")
    )
    assert np.array_equal(patch, whole)
    larger = levels(1, 70, 40)
    patch, whole = (
        tiny_predictor.override(tiling=tiling).view_probabilities(larger, PIXEL)
        for tiling in ("patch", "whole")
    )
    # Instance norms see another field: near, not equal.
    assert not np.array_equal(patch, whole)
    assert np.corrcoef(patch.ravel(), whole.ravel())[0, 1] > 0.9


def test_the_size_of_windows():
    whole = Windows(patch=(352, 256), multiple=(32, 32), whole=True)
    assert whole.size_for((653, 253)) == (672, 256)
    assert whole.size_for((100, 300)) == (352, 320)
    # Memory: a view of very many patches is cut.
    assert whole.size_for((352 * MOST_PATCHES_AT_ONCE + 1, 256)) == (352, 256)
    assert Windows((352, 256), (32, 32), whole=False).size_for((653, 253)) == (352, 256)


def test_mirrored_copies():
    assert mirrored_copies(None) == [()]
    assert mirrored_copies([0, 1]) == [(), (0,), (1,), (0, 1)]


def test_openvino_gives_what_torch_gives_and_tells_nobody(tiny_predictor, monkeypatch):
    pytest.importorskip("openvino")

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    stack = levels(1, 70, 40)
    engines = {}
    for engine in ("torch", "openvino"):
        monkeypatch.setenv(ENGINE_VARIABLE, "torch" if engine == "torch" else "")
        predictor = MIPPredictor(tiny_predictor._nnunet, tiny_predictor.config)
        assert predictor.engine == engine
        engines[engine] = predictor.view_probabilities(stack, PIXEL)
    assert np.abs(engines["torch"] - engines["openvino"]).max() < 1e-5


class DecidesBySize(torch.nn.Module):
    """What tracing gets wrong: it does something else on larger images."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image):
        answer = self.layer(image)
        return answer if image.shape[2] <= 64 else -answer


def test_a_network_that_openvino_gets_wrong_runs_on_torch(monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    module = DecidesBySize()
    network = Network(module, [module.state_dict()], torch.device("cpu"))
    image = torch.rand(1, 1, 96, 64)
    with torch.inference_mode(), pytest.warns(UserWarning, match="other results"):
        found = network.logits(image, 0)
        assert network.engine == "torch"
        assert torch.equal(found, module(image))


class Passes(Deadline):
    """Time for so many passes beyond the first."""

    def __init__(self, more: int, copies_cost: int = 1):
        self.more, self.checks = more, 0

    def check(self):
        self.checks += 1

    def allows(self, seconds):
        assert seconds > 0
        self.more -= 1
        return self.more >= 0


@pytest.mark.parametrize("more, copies", [(0, 1), (1, 2), (2, 3), (3, 4), (9, 4)])
def test_as_many_copies_as_there_is_time_for(tiny_predictor, more, copies):
    """The answer is that of the copies which were done, no more and no less."""
    stack = levels(1, 30, 30)
    deadline = Passes(more)
    found = tiny_predictor.view_probabilities(stack, PIXEL, deadline)
    assert deadline.work_done == WorkDone(copies, 4, 1, 1)
    assert deadline.work_done.degraded == (copies < 4)
    assert deadline.windows == 4 and deadline.checks == copies
    single = tiny_predictor.override(tta=False)
    data, properties = single._preprocess(stack[None], PIXEL)
    logits = [
        single._logits(data.flip([a + 2 for a in axes]), Deadline()).flip([a + 2 for a in axes])
        for axes in mirrored_copies([0, 1])[:copies]
    ]
    # One window, as large as the data: flipping it is flipping the data.
    expected = single._probabilities(torch.stack(logits).mean(0), properties)
    assert np.abs(found - expected).max() < 1e-5


def test_who_is_not_waited_for_is_not_worked_for(tiny_predictor):
    class Gone(Deadline):
        calls = 0

        def check(self):
            self.calls += 1
            if self.calls == 3:
                raise Cancelled

    deadline = Gone()
    with pytest.raises(Cancelled):
        tiny_predictor.view_probabilities(levels(1, 30, 30), PIXEL, deadline)
    assert deadline.calls == 3 and deadline.work_done is None


@pytest.mark.parametrize("shape", [(1, 1), (60, 1), (1, 60)])
def test_what_is_less_than_a_pixel_of_the_network_is_nothing(tiny_predictor, shape):
    """One pixel of 2 mm is half of one of 4 mm, which nnU-Net rounds to none, and fails on."""
    image = np.zeros((60, 60), np.uint8)
    image[: shape[0], : shape[1]] = 200
    mask, probability = tiny_predictor.predict_image(image)
    assert mask.shape == (60, 60) and not mask.any() and not probability.any()
    image[:3, :3] = 200
    assert tiny_predictor.predict_image(image)[1].any()


def test_tiling_is_part_of_the_recipe():
    config = InferenceConfig(tiling="whole")
    assert InferenceConfig.from_dict(config.to_dict()) == config
    # Files from before have none: patches, as they were made with.
    content = InferenceConfig().to_dict()
    del content["tiling"]
    assert InferenceConfig.from_dict(content).tiling == "patch"
    with pytest.raises(MipError, match="tiling"):
        InferenceConfig(tiling="quarters")


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 5), (97, 61)])
def test_the_prefilters_median_is_that_of_scipy(shape):
    image = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    expected = ndimage.median_filter(image, size=3, mode="nearest")
    assert np.array_equal(prefilter._median(image), expected)
