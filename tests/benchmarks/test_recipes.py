"""The parts of the recipe benchmarks on which their figures rest."""

from pathlib import Path

import numpy as np
import pytest
import torch

import nnunetv2_mip

BENCHMARKS = Path(nnunetv2_mip.__file__).parent.parent / "benchmarks" / "dmiai"


@pytest.fixture
def scores(monkeypatch):
    if not (BENCHMARKS / "recipe_scores.py").is_file():
        pytest.skip("not an editable installation: there are no benchmarks")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recipe_scores

    return recipe_scores


@pytest.fixture
def image(scores):
    levels = np.random.default_rng(0).integers(1, 255, (80, 60)).astype(np.uint8)
    truth = np.zeros((80, 60), bool)
    truth[5:15, 4:20] = True
    return scores.Image("case_1", "case_1", levels, truth)


@pytest.mark.parametrize("kind", ["clean", "hflip", "vflip", "both", "perturbed"])
def test_copies_are_the_same_every_time_and_turn_back(scores, image, kind):
    copy, again = scores.copy_of(image, kind), scores.copy_of(image, kind)
    assert np.array_equal(copy.levels, again.levels)
    back = copy.back(copy.levels)
    if kind != "perturbed":
        assert np.array_equal(back, image.levels)
    else:
        assert (back == image.levels).mean() > 0.85
    if kind in ("hflip", "vflip", "both"):
        assert not np.array_equal(copy.levels, image.levels)


def test_noise_takes_7_to_11_percent(scores, image):
    noised = scores.copy_of(image, "noise").levels
    assert 0.05 < (noised != image.levels).mean() < 0.13
    assert set(np.unique(noised[noised != image.levels])) == {0, 255}


def test_flips_are_drawn_as_in_the_evaluation(scores, image):
    from dataclasses import replace

    drawn = [
        scores.copy_of(replace(image, case=str(number)), "perturbed").axes for number in range(400)
    ]
    assert drawn.count((1,)) / 400 == pytest.approx(0.43, abs=0.07)
    assert drawn.count((0,)) / 400 == pytest.approx(0.34, abs=0.07)
    assert drawn.count((0, 1)) / 400 == pytest.approx(0.23, abs=0.07)


def test_the_kit_rule_is_dark_pixels_of_the_png(scores):
    # A PNG value of 49 is level 206.
    assert scores.kit_rule(np.array([[206, 205]], np.uint8)).tolist() == [[True, False]]


def test_the_table_pairs_recipes_case_by_case(scores, image):
    rows = []
    for recipe, low in (("first", 0.2), ("second", 0.3)):
        for number in range(6):
            about = {"recipe": recipe, "fold": 0, "case": str(number), "patient": str(number)}
            about |= {"copy": "clean", "seconds": 0.1}
            scored = {"has_lesion": True, "dice": low + number / 10}
            rows.append(about | scored | {"false_positive_pixels": 0, "predicted_pixels": 3})
    text = scores.table(rows, "first")
    assert "+0.100 (+0.100 to +0.100)" in text.splitlines()[-1]
    assert "0.450" in text.splitlines()[-2]


def some_rows(recipe, fold, low=0.2):
    rows = []
    for number in range(3):
        about = {"recipe": recipe, "fold": fold, "case": f"{fold}{number}"}
        about |= {"patient": f"{fold}{number}", "copy": "clean", "has_lesion": number > 0}
        about |= {"dice": low + number / 7, "false_positive_pixels": 1}
        rows.append(about | {"predicted_pixels": 3, "seconds": 0.5})
    return rows


def test_kept_scores_are_added_to_fold_by_fold(scores, tmp_path, monkeypatch, capsys):
    import score_table

    kept = scores.ScoreFolder(tmp_path / "kept")
    assert not kept.has("a", 0, 100)
    for recipe, low in (("a", 0.2), ("b < 5", 0.25)):
        for fold in (1, 0):
            kept.add(some_rows(recipe, fold, low), 100, 1_500_000, 2.0 + fold)
    # Again: it is replaced, not there twice.
    kept.add(some_rows("a", 1, 0.2), 100, 1_500_000, 3.0)
    assert kept.has("a", 1, 100) and not kept.has("a", 2, 100)
    with pytest.raises(scores.MipError, match="a is there with 100 iterations, not 200"):
        kept.has("a", 2, 200)
    assert len(kept.rows()) == 12
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "a.csv",
        "b_5.csv",
        "trainings.csv",
    ]
    note = {"parameters": 1_500_000, "training_minutes": 2.5, "iterations": "100"}
    assert kept.notes()["a"] == note
    # A training that was stopped says so.
    kept.add(some_rows("a", 2), 50, 1_500_000, 1.0)
    assert kept.notes()["a"]["iterations"] == "50–100"

    monkeypatch.setattr("sys.argv", ["score_table.py", str(tmp_path / "kept"), "--folds", "0"])
    score_table.main()
    first, second = capsys.readouterr().out.splitlines()[-2:]
    # Of fold 0: two images with a lesion, 0.2 + 1/7 and 0.2 + 2/7.
    assert first.startswith("| a | 0 | 2 | 50–100 | 1.5 M | 2.0 | 0.50 | 0.414 (")
    assert "| +0.050 (+0.050 to +0.050) |" in second


def test_larger_pixels_are_means_of_blocks(scores):
    import rivals

    small = rivals.reduced(np.arange(15).reshape(3, 5), 2)
    assert small.tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]


def test_pieces_join_to_a_checkpoint_that_training_takes(scores, tmp_path):
    import gpu_pack

    weight = torch.randn(200, 50)
    moment = torch.full((200, 50), 1e-12)
    content = {
        "network_weights": {"a": weight, "b": weight},
        "live_weights": {"a": weight, "b": weight},
        "optimizer_state": {"state": {0: {"step": torch.tensor(7.0), "exp_avg_sq": moment}}},
        "current_epoch": 3,
        "trainer_name": "t",
    }
    torch.save(content, tmp_path / "checkpoint_latest.pth")
    pieces = gpu_pack.save_in_pieces(
        tmp_path / "checkpoint_latest.pth", tmp_path / "out.pth", piece_mib=0.02
    )
    assert len(pieces) > 2
    assert all(piece.stat().st_size <= 0.02 * gpu_pack.MIB for piece in pieces)
    joined = torch.load(gpu_pack.join_pieces(tmp_path / "out.pth", tmp_path / "back.pth"))
    assert joined["network_weights"]["a"].dtype == torch.float16
    torch.testing.assert_close(joined["network_weights"]["b"].float(), weight, atol=2e-3, rtol=1e-3)
    state = joined["optimizer_state"]["state"][0]
    assert state["step"] == 7
    # float16 would have made this zero.
    torch.testing.assert_close(state["exp_avg_sq"].float(), moment, atol=0, rtol=1e-2)
    pieces[1].write_bytes(b"changed")
    with pytest.raises(SystemExit, match="missing or changed"):
        gpu_pack.join_pieces(tmp_path / "out.pth", tmp_path / "back.pth")


def test_trainings_that_err_alike_are_told_from_those_that_do_not(scores):
    import agreement

    truth = np.zeros((10, 10), bool)
    truth[:, :4] = True  # 40 pixels
    empty = truth & False
    first, second = (np.where(truth, 0.6, 0.0) for _ in range(2))
    first[:2, :4] = 0.1  # misses 8
    second[:1, :4] = second[9:, :4] = 0.1  # misses 8, of which 4 are the first's
    first[:, 9] = 0.6  # marks 10 in vain, the second the upper 5 of them
    second[:5, 9] = 0.6

    threshold, masks = agreement.best_masks([first], [truth])
    # At 0.1 or less all are marked, and 10 in vain: 80 / 90; above, 32 of 40 and 10 in vain.
    assert threshold in (0.05, 0.1) and int(masks[0].sum()) == 50
    cut = [[first >= 0.5], [second >= 0.5]]
    assert agreement.shared_errors(cut, [truth]) == (0.5, pytest.approx((5 / 10 + 5 / 5) / 2))
    assert np.isnan(agreement.shared_errors([[truth], [truth]], [truth])).all()

    text = agreement.report(["a", "b"], [[first], [second]], [truth])
    # Cut low both have all lesions: Dice 80 / 90 and 80 / 85, with each other 90 / 95.
    assert "| a | 0.05 | 0.889 |  | 0.947 |" in text
    assert "| b | 0.05 | 0.941 | 0.947 |  |" in text
    # Their mean is above 0.05 wherever one of them is.
    assert "| mean of all | 0.05 | 0.889 |" in text
    assert "recipe misses: none." in text and "recipe marks in vain: 75% in all recipes." in text
    assert agreement._agreement([empty, empty], [empty, truth]) == 0.5


def test_errors_are_told_apart_by_size_and_place(scores):
    import error_anatomy

    levels = np.zeros((60, 40), np.uint8)
    levels[10:50, 5:35] = 60
    truth, mask = np.zeros((2, 60, 40), bool)
    truth[12:16, 18:22] = True  # at the top, found but for a row
    mask[13:16, 18:22] = True
    truth[44:49, 6:16] = True  # at the bottom, missed
    mask[30:32, 30:33] = True  # no lesion, at the side
    image = scores.Image("a", "a", levels, truth)

    touched, alone = error_anatomy.regions(truth, mask, levels)
    assert [(r.pixels, r.missed) for r in touched] == [(16, 4)]
    assert [(r.pixels, r.missed) for r in alone] == [(50, 50)]
    assert touched[0].height == pytest.approx((13.5 - 10) / 40)
    assert alone[0].side == pytest.approx((10.5 - 5) / 30)

    better = error_anatomy.corrected(mask, truth)
    area = {name: int(corrected.sum()) for name, corrected in better.items()}
    assert area == {
        "as it is": 18,
        "without regions that touch no lesion": 12,
        "with the lesions that were not touched": 68,
        "both: wrong in the outlines alone": 62,
        "with exact outlines of what was found": 22,
        # Of the upper lesion the missing row is along an outline, of the lower one all but the
        # middle 3 × 8 (1 × 6, none); of the false region nothing.
        "right within 1 pixel of a true outline": 16 + 26 + 6,
        "right within 2 pixels of a true outline": 16 + 44 + 6,
        "right within 3 pixels of a true outline": 16 + 50 + 6,
    }
    # At 0.3 a lesion alone is marked (16 of 66), at 0.15 both with nothing beside.
    probability = np.where(truth, 0.2, 0.1)
    probability[12:16, 18:22] = 0.4
    assert error_anatomy.best_dice(probability, truth) == 1
    probability[30:40, 10:20] = 0.3
    assert error_anatomy.best_dice(probability, truth) == pytest.approx(2 * 66 / (166 + 66))

    # Two lesions on a body of 60: one of 200, one of 100 beside something as bright that is none.
    hot = levels.copy()
    hot[12:16, 18:22], hot[44:49, 6:16] = 200, 100
    hot[44:49, 17] = 100
    one, each = error_anatomy.cut_by_level(hot, truth)
    # All three at one level of the image, and so for each: those five pixels are within reach.
    assert one == each == pytest.approx(2 * 66 / (71 + 66))
    # One level cannot have a lesion of 50 and leave the body of 60 around the other; two can.
    hot[44:49, 17] = 40
    hot[40:53, 2:20], hot[44:49, 6:16] = 20, 50
    one, each = error_anatomy.cut_by_level(hot, truth)
    assert one < each == 1

    control = scores.Image("c", "c", levels, np.zeros_like(truth))
    text = error_anatomy.report([(image, mask), (control, mask)], 2.0, [0.5])
    assert "| at the threshold that suits each image best | 0.500 |" in text
    # 16 pixels of 4 mm² are 0.64 cm², 50 are 2 cm².
    assert "| 0–1 cm² | 1 | 1 (100 %) | 75 % | 7 % |" in text
    assert "| 1–3 cm² | 1 | 0 (0 %) | 0 % | 93 % |" in text
    assert "| height 0.0–0.2 | 1 | 1 (100 %) | 75 % | 7 % |" in text
    assert "| height 0.4–0.6, sides | 2 | 12 | 1 |" in text
    assert "| height 0.0–0.2, middle | 1 | 12 | 1 |" in text
