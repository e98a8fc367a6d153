import json
import math
import subprocess
import sys

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunetv2_mip.training.losses import DiceFocalLoss

LN2 = math.log(2)


def logits_of(*probabilities):
    """(1, 2, 1, n) logits whose foreground probabilities are given."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([torch.log(1 - p), torch.log(p)])[None, :, None]


def target_of(*labels):
    return torch.tensor(labels, dtype=torch.int16)[None, None, None]


def random_case(classes=2, seed=0, shape=(3, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    batch, *spatial = shape
    logits = torch.randn(batch, classes, *spatial, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(0, classes, (batch, 1, *spatial), generator=generator)


def test_hand_computed_value():
    """p = 0.5 and 0.8 for a lesion and a background pixel.

    Dice 2·0.5 / (1 + 1.3) = 1/2.3; focal: 0.5²·ln 2 and 0.8²·ln 5, mean of the two.
    """
    loss = DiceFocalLoss(smooth=0)(logits_of(0.5, 0.8), target_of(1, 0))
    focal = (0.25 * LN2 + 0.64 * math.log(5)) / 2
    assert loss.item() == pytest.approx((1 - 1 / 2.3) + 10 * focal, abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 0), 1 - 1 / 2.3), ((0, 1), (0.25 * LN2 + 0.64 * math.log(5)) / 2)],
)
def test_weights_scale_the_terms(weights, expected):
    dice, focal = weights
    loss = DiceFocalLoss(weight_dice=3 * dice, weight_focal=3 * focal, smooth=0)
    value = loss(logits_of(0.5, 0.8), target_of(1, 0)).item()
    assert value == pytest.approx(3 * expected, abs=1e-12)


def test_gamma_zero_is_cross_entropy():
    logits, target = random_case(classes=3)
    loss = DiceFocalLoss(weight_dice=0, weight_focal=1, gamma=0)(logits, target)
    expected = torch.nn.functional.cross_entropy(logits, target[:, 0])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_batch_dice_and_image_dice():
    """Two images, a perfect one with one lesion pixel and one that finds nothing of three.

    Batch: 2·1 / (4 + 1); by image: (1 + 0) / 2.
    """
    sure = 1 - 1e-12
    logits = torch.cat([logits_of(sure, 1e-12, 1e-12), logits_of(1e-12, 1e-12, 1e-12)])
    target = torch.cat([target_of(1, 0, 0), target_of(1, 1, 1)])
    options = {"weight_focal": 0, "smooth": 0}
    batch = DiceFocalLoss(batch_dice=True, **options)(logits, target)
    images = DiceFocalLoss(batch_dice=False, **options)(logits, target)
    assert batch.item() == pytest.approx(1 - 2 / 5, abs=1e-9)
    assert images.item() == pytest.approx(1 - 1 / 2, abs=1e-9)


def test_a_perfect_answer_costs_nothing_and_a_worse_one_costs_more():
    target = target_of(1, 0)
    loss = DiceFocalLoss()
    perfect, good, bad = (loss(logits_of(p, 1 - p), target).item() for p in (1 - 1e-12, 0.9, 0.4))
    assert perfect == pytest.approx(0, abs=1e-9)
    assert perfect < good < bad


@pytest.mark.parametrize("classes", [2, 3])
def test_dice_is_nnunets(classes):
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.utilities.helpers import softmax_helper_dim1

    logits, target = random_case(classes)
    for batch_dice in (True, False):
        ours = DiceFocalLoss(weight_focal=0, batch_dice=batch_dice)(logits, target)
        theirs = MemoryEfficientSoftDiceLoss(
            softmax_helper_dim1, batch_dice=batch_dice, do_bg=False, smooth=1e-5, ddp=False
        )(logits, target)
        assert ours.item() == pytest.approx(1 + theirs.item(), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_against_monai(classes):
    """MONAI's softmax focal loss is the mean over classes, so ours is C times that."""
    monai = pytest.importorskip("monai.losses")
    logits, target = random_case(classes)
    focal = monai.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)(logits, target)
    dice = monai.DiceLoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        batch=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )(logits, target)
    ours = DiceFocalLoss()(logits, target)
    assert ours.item() == pytest.approx((dice + 10 * classes * focal).item(), rel=1e-5)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_ignored_pixels_count_nowhere(batch_dice):
    """The loss with two ignored columns is the loss of the image without them."""
    logits, target = random_case()
    loss = DiceFocalLoss(ignore_label=2, batch_dice=batch_dice)
    expected = loss(logits[..., 2:], target[..., 2:])
    target[..., :2] = 2
    logits.requires_grad_()
    value = loss(logits, target)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    value.backward()
    assert torch.count_nonzero(logits.grad[..., :2]) == 0
    assert torch.count_nonzero(logits.grad[..., 2:]) == logits[..., 2:].numel()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_an_all_ignored_patch_costs_nothing_with_a_gradient_graph(batch_dice):
    logits, target = random_case()
    logits.requires_grad_()
    loss = DiceFocalLoss(ignore_label=2, batch_dice=batch_dice)(logits, torch.full_like(target, 2))
    assert loss.item() == pytest.approx(0, abs=1e-9)
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ignore_at_every_supervision_scale():
    """One scale is all ignored: it adds nothing; the last has no weight."""
    wrapped = DeepSupervisionWrapper(DiceFocalLoss(ignore_label=2), (0.75, 0.25, 0.0))
    (logits, target), (coarse, _), (last, last_target) = (random_case(seed=s) for s in range(3))
    all_ignored = torch.full_like(target, 2)
    value = wrapped([logits, coarse, last], [target, all_ignored, last_target])
    expected = 0.75 * DiceFocalLoss(ignore_label=2)(logits, target)
    assert value.item() == pytest.approx(expected.item(), abs=1e-9)


def test_gradients_are_those_of_the_formula():
    logits, target = random_case(classes=3, shape=(2, 3, 2))
    target[0, 0, 0, 0] = 3
    loss = DiceFocalLoss(ignore_label=3)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_half_precision_with_extreme_logits():
    """A sure right and a sure wrong answer in bfloat16: finite, and computed in float32."""
    logits = torch.tensor([[[[90.0, 90.0]], [[-90.0, -90.0]]]], dtype=torch.bfloat16)
    logits.requires_grad_()
    loss = DiceFocalLoss(weight_dice=0)(logits, target_of(0, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(10 * 180 / 2)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_autocast_gives_the_same_value():
    logits, target = random_case()
    logits = logits.float()
    expected = DiceFocalLoss()(logits, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert DiceFocalLoss()(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [-1, 0.5])
def test_gammas_without_a_bounded_gradient(gamma):
    with pytest.raises(ValueError, match="gamma"):
        DiceFocalLoss(gamma=gamma)


WORKER = """
import json, sys
import torch
from torch import distributed as dist
from nnunetv2_mip.training.losses import DiceFocalLoss

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
part = slice(0, 1) if rank == 0 else slice(1, None)
answers = {}
for batch_dice in (True, False):
    case = torch.load(f"{folder}/case.pt")
    logits = case["logits"][part].requires_grad_()
    loss = DiceFocalLoss(ignore_label=2, batch_dice=batch_dice, ddp=True)
    value = loss(logits, case["target"][part])
    value.backward()
    # DDP averages the gradients of the processes.
    answers[str(batch_dice)] = [value.item(), (logits.grad / 2).tolist()]
with open(f"{folder}/rank{rank}.json", "w") as file:
    json.dump(answers, file)
# A process that leaves while the other still talks to it takes that one down.
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    """Unequal parts of a batch, and unequal numbers of ignored pixels, in two processes."""
    logits, target = random_case()
    target[0, 0, :3] = 2
    torch.save({"logits": logits, "target": target}, tmp_path / "case.pt")
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    answers = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for batch_dice in (True, False):
        whole = logits.clone().requires_grad_()
        expected = DiceFocalLoss(ignore_label=2, batch_dice=batch_dice)(whole, target)
        expected.backward()
        values, gradients = zip(*(answer[str(batch_dice)] for answer in answers))
        assert values == pytest.approx([expected.item()] * 2, abs=1e-9)
        joined = torch.cat([torch.tensor(part, dtype=torch.float64) for part in gradients])
        assert torch.allclose(joined, whole.grad, atol=1e-9)
