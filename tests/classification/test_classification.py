"""Healthy or with lesions: metrics, folds, heads, and the command over a really trained network."""

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.classification.baselines import height_features, margin_features
from nnunetv2_mip.classification.calibration import (
    Platt,
    best_threshold,
    calibrate,
    fit_platt,
    mean_log_odds,
)
from nnunetv2_mip.classification.classifier import load_classifier
from nnunetv2_mip.classification.classifier_file import (
    FILE_NAME,
    FORMAT_VERSION,
    find_classifier,
    read_classifier,
    write_classifier,
)
from nnunetv2_mip.classification.cross_validation import cross_validate, frozen_fit, scored_fit
from nnunetv2_mip.classification.features import body_window
from nnunetv2_mip.classification.folds import assigned_folds
from nnunetv2_mip.classification.head import Head, fit_member
from nnunetv2_mip.classification.head_fitting import (
    StudyLabel,
    require_both_classes,
    fit_head,
    inner_folds,
    join,
)
from nnunetv2_mip.classification.metrics import (
    auroc,
    binary_scores,
    calibration_error,
    matched_pairs,
    matched_scores,
    scores_with_intervals,
)
from nnunetv2_mip.classification.train import training_folds
from nnunetv2_mip.commands import classify
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.model_folder import bundled_model


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        classify.main([str(part) for part in argv])
    return ended.value.code


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Metrics, by hand.


def test_auroc_by_hand():
    # Positives 0.9 and 0.4, negatives 0.5 and 0.1: three of four pairs in order.
    assert auroc([True, True, False, False], [0.9, 0.4, 0.5, 0.1]) == 0.75
    # A tie counts half: pairs (0.5, 0.5) and (0.5, 0.1).
    assert auroc([True, False, False], [0.5, 0.5, 0.1]) == 0.75
    assert auroc([True, False], [0.1, 0.9]) == 0.0
    assert math.isnan(auroc([True, True], [0.1, 0.9]))


def test_scores_by_hand():
    # 3 hits, 1 miss, 2 alarms, 4 quiet.
    truth = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    said = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    scores = binary_scores(truth, np.asarray(said, float), said)
    assert scores["precision"] == 3 / 5
    assert scores["recall"] == 3 / 4
    assert scores["specificity"] == 4 / 6
    assert scores["accuracy"] == 7 / 10
    assert scores["f1"] == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert scores["brier"] == pytest.approx(0.3)
    nothing = binary_scores([1, 0], [0.1, 0.1], [0, 0])
    assert math.isnan(nothing["precision"])
    assert nothing["f1"] == 0


def test_calibration_error_by_hand():
    # Bin 0.2: mean 0.2, one of five positive; bin 0.9: said 0.9, half of two.
    probabilities = [0.25] * 5 + [0.95] * 2
    truth = [1, 0, 0, 0, 0, 1, 0]
    assert calibration_error(truth, probabilities) == pytest.approx((0.25 + 0.9) / 7)


def test_intervals_are_over_patients():
    # Two patients a class whose fifty cases all agree: far wider than a hundred patients.
    truth = np.repeat([1, 1, 0, 0], 50)
    said = np.repeat([1, 0, 0, 0], 50)
    few = np.repeat(["a", "b", "c", "d"], 50)
    many = np.arange(200).astype(str)
    wide = scores_with_intervals(truth, said, said, few, draws=300)["recall"]
    narrow = scores_with_intervals(truth, said, said, many, draws=300)["recall"]
    assert wide["value"] == narrow["value"] == 0.5
    assert (wide["low"], wide["high"]) == (0.0, 1.0)
    assert 0.3 < narrow["low"] < 0.45 < 0.55 < narrow["high"] < 0.7
    alone = scores_with_intervals([1, 0], [0.9, 0.1], [1, 0], ["a", "b"])["auroc"]
    assert alone["value"] == 1
    assert math.isnan(alone["low"])


def test_matched_pairs_have_one_size_bin_and_no_case_twice():
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.4
    sizes = rng.uniform(800, 1200, 80)
    pairs = matched_pairs(truth, sizes, 40, rng)
    assert truth[pairs[:, 0]].all()
    assert not truth[pairs[:, 1]].any()
    assert (sizes[pairs] // 40 == sizes[pairs[:, :1]] // 40).all()
    assert len(set(pairs.ravel())) == pairs.size
    with pytest.raises(MipError, match="width"):
        matched_pairs(truth, sizes, 0, rng)


def test_matching_takes_a_height_classifier_its_score():
    # Tall is sick, but the few of equal height are not told apart.
    heights = np.array([500] * 10 + [900] * 30 + [500] * 30 + [900] * 10)
    truth = np.array([1] * 40 + [0] * 40)
    probability = heights / 1000
    said = heights > 700
    assert auroc(truth, probability) == 0.75
    matched = matched_scores(truth, probability, said, heights, 40, matchings=20)
    assert matched["pairs"] == 20
    assert matched["left_out"] == 20
    assert matched["scores"]["auroc"]["value"] == 0.5
    with pytest.raises(MipError, match="partner"):
        matched_scores([1, 0], [0.5, 0.5], [1, 1], [100, 900], 40)


# Calibration.


def test_platt_gives_the_frequencies_back():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * scores - 1)))
    platt = fit_platt(scores, truth)
    assert platt.slope == pytest.approx(0.5, abs=0.06)
    assert platt.offset == pytest.approx(-1, abs=0.12)
    # A score that says the opposite is not turned round.
    assert fit_platt(-scores, truth).slope == 0
    with pytest.raises(MipError, match="without"):
        fit_platt([1.0, 2.0], [True, True])


def test_threshold_of_the_best_expected_f1():
    # By hand: with the first three called, 2 · 2.0 / (3 + 2.1) is more than 2 · 1.5 / (2 + 2.1).
    assert best_threshold([0.9, 0.6, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(0.3)
    # Which of them are ill does not matter, how many does.
    assert best_threshold([0.9, 0.6, 0.5, 0.1], [0, 1, 0, 1]) == pytest.approx(0.3)
    # Equal probabilities cannot be told apart by a threshold.
    assert best_threshold([0.8, 0.5, 0.5, 0.2], [1, 1, 0, 0]) == pytest.approx(0.35)
    with pytest.raises(MipError, match="without"):
        best_threshold([0.9, 0.6], [1, 1])


def test_the_threshold_is_half_of_the_best_f1():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.4, 1.0, 20000)
    truth = rng.random(20000) < probabilities
    for balanced in (False, True):
        # The truth itself gives the same, from so many cases.
        weight = np.where(truth, 1.0, truth.sum() / (~truth).sum() if balanced else 1.0)

        def f1(threshold: float, weight=weight) -> float:
            said = probabilities >= threshold
            return 2 * (said & truth).sum() / (weight[said].sum() + truth.sum())

        threshold = best_threshold(probabilities, truth, balanced)
        assert f1(threshold) > max(f1(t) for t in np.linspace(0.05, 0.95, 91)) - 0.003
        if not balanced:
            assert threshold == pytest.approx(f1(threshold) / 2, abs=0.02)


def test_log_odds_are_averaged_after_their_own_sigmoids():
    # By hand: 1 · 3 + 0 and 2 · 0.5 - 2.
    assert mean_log_odds([Platt(1.0, 0.0), Platt(2.0, -2.0)], [3.0, 0.5]) == pytest.approx(1.0)


def test_two_ways_to_score_are_better_as_one():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) % 2 == 0
    # The same skill, other errors; on scales that have nothing in common.
    one, other = (truth + rng.normal(0, 1, 4000) for _ in range(2))
    ways = [one, 50 * other - 7]
    joined = join(ways, truth)
    together = mean_log_odds(joined.parts, ways)
    alone, both = auroc(truth, one), auroc(truth, together)
    # Two independent measurements of the same spread: d' grows by the square root of two.
    assert alone == pytest.approx(0.760, abs=0.015)
    assert both == pytest.approx(0.841, abs=0.015)
    assert calibration_error(truth, joined.calibration.platt(together)) < 0.02
    # What is known of half of them alone is calibrated on that half.
    half = np.where(np.arange(4000) < 2000, one, np.nan)
    part = join([half, ways[1]], truth)
    same = join([one[:2000], ways[1][:2000]], truth[:2000])
    assert part.parts[0] == same.parts[0]
    assert part.parts[1] == joined.parts[1]


def test_scores_are_calibrated_without_the_fold_they_judge():
    rng = np.random.default_rng(1)
    truth = np.arange(300) % 3 == 0
    studies = [StudyLabel(f"s{n}", f"s{n}", bool(sick)) for n, sick in enumerate(truth)]
    folds = {study.case: n // 60 for n, study in enumerate(studies)}
    scores = 2 * truth + rng.normal(0, 1, 300)
    judged = cross_validate(studies, folds, scored_fit(scores, studies))
    own = calibrate(scores[60:], truth[60:])
    assert np.allclose(judged.probabilities[:60], own.platt(scores[:60]))
    assert (judged.decisions[:60] == (own.platt(scores[:60]) >= own.threshold)).all()
    # Another truth of fold 0 changes nothing that is said of fold 0.
    turned = [StudyLabel(s.case, s.case, s.has_lesion != (n < 60)) for n, s in enumerate(studies)]
    again = cross_validate(turned, folds, scored_fit(scores, turned))
    assert (again.probabilities[:60] == judged.probabilities[:60]).all()
    assert not (again.probabilities[60:] == judged.probabilities[60:]).any()


# Folds.


def test_given_folds_stay_and_the_rest_is_dealt():
    patients = {f"s{n}": f"s{n}" for n in range(10)} | {f"h{n}": f"h{n}" for n in range(25)}
    sick = {case: case.startswith("s") for case in patients}
    given = {f"s{n}": n % 5 for n in range(10)} | {"elsewhere": 3}
    folds = assigned_folds(patients, sick, given)
    assert set(folds) == set(patients)
    assert all(folds[case] == fold for case, fold in given.items() if case in patients)
    counts = [sum(folds[f"h{n}"] == fold for n in range(25)) for fold in range(5)]
    assert counts == [5] * 5


def test_a_patient_keeps_the_fold_of_its_other_study():
    patients = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
    sick = dict.fromkeys(patients, True)
    assert assigned_folds(patients, sick, {"a1": 1}, 2)["a2"] == 1
    with pytest.raises(MipError, match="patient a"):
        assigned_folds(patients, sick, {"a1": 1, "a2": 0}, 2)
    with pytest.raises(MipError, match="fold 7"):
        assigned_folds(patients, sick, {"a1": 7}, 2)


# Heads.


def cohort(count: int, views: int, shift: float, seed: int = 0):
    """Studies with lesions have one view, the last but one, whose first feature is raised."""
    rng = np.random.default_rng(seed)
    bags, studies = [], []
    for number in range(count):
        sick = number % 2 == 0
        bag = rng.normal(size=(2, views, 6)).astype(np.float32)
        if sick:
            bag[:, -2 if views > 1 else 0, :2] += shift
        bags.append(bag)
        studies.append(StudyLabel(f"c{number}", f"p{number}", sick))
    return bags, studies


def test_a_head_learns_and_nothing_is_learned_from_noise():
    bags, studies = cohort(120, 1, 2.0)
    folds = assigned_folds(
        {study.case: study.patient for study in studies},
        {study.case: study.has_lesion for study in studies},
    )
    labels = [study.has_lesion for study in studies]
    columns = np.arange(6)
    judged = cross_validate(studies, folds, frozen_fit(lambda fold: bags, studies, columns))
    assert auroc(labels, judged.probabilities) > 0.95
    assert binary_scores(labels, judged.probabilities, judged.decisions)["f1"] > 0.85
    # The same with labels dealt anew: a leak would show here.
    order = np.random.default_rng(1).permutation(labels)
    shuffled = [StudyLabel(s.case, s.patient, bool(x)) for s, x in zip(studies, order)]
    judged = cross_validate(shuffled, folds, frozen_fit(lambda fold: bags, shuffled, columns))
    assert 0.3 < auroc(order, judged.probabilities) < 0.7


def test_attention_finds_the_view_with_the_lesion():
    bags, studies = cohort(160, 8, 4.0)
    labels = [study.has_lesion for study in studies]
    member = fit_member(bags, labels, 1e-4)
    found = [np.argmax(member.score(bag[0])[1]) for bag, sick in zip(bags, labels) if sick]
    assert np.mean(np.asarray(found) == 6) > 0.8
    # It generalises, and beats the mean over views.
    fresh, others = cohort(200, 8, 4.0, seed=5)
    truth = [study.has_lesion for study in others]
    scores = [member.score(bag[0])[0] for bag in fresh]
    mean = fit_member([bag.mean(1, keepdims=True) for bag in bags], labels, 1e-4)
    of_mean = [mean.score(bag[0].mean(0, keepdims=True))[0] for bag in fresh]
    assert auroc(truth, scores) > auroc(truth, of_mean) > 0.5


def test_a_head_of_single_views_weighs_views_alike():
    bags, studies = cohort(40, 1, 2.0)
    fitted = fit_head(bags, studies, np.arange(6))
    score, weights = fitted.head.score(np.ones((4, 6)))
    assert np.allclose(weights, 0.25)
    again = Head.from_arrays(fitted.head.arrays(), "x").score(np.ones((4, 6)))[0]
    assert again == pytest.approx(score, abs=1e-4)


def test_a_head_does_not_depend_on_the_order_of_studies_or_views():
    bags, studies = cohort(40, 3, 2.0)
    member = fit_member(bags, [study.has_lesion for study in studies], 1e-3)
    score, weights = member.score(bags[0][0])
    turned, other = member.score(bags[0][0][::-1])
    assert turned == pytest.approx(score)
    assert np.allclose(other[::-1], weights)


def test_what_a_head_cannot_learn_from():
    healthy = [StudyLabel(f"c{n}", f"p{n}", False) for n in range(4)]
    with pytest.raises(MipError, match="0 patients with lesions"):
        require_both_classes(healthy)
    sick = [StudyLabel(f"c{n}", f"p{n}", True) for n in range(4)]
    with pytest.raises(MipError, match="0 patients without lesions"):
        require_both_classes(sick)
    with pytest.raises(MipError, match="empty"):
        require_both_classes([])
    # Two studies of one patient are one patient.
    one = [StudyLabel("h1", "h", False), StudyLabel("h2", "h", False)]
    with pytest.raises(MipError, match="1 patients without"):
        require_both_classes([*sick, *one])
    assert set(inner_folds([*sick, StudyLabel("h1", "h", False), StudyLabel("g", "g", False)])) == {0, 1}


# What images give away.


def test_shortcuts_see_the_frame_and_not_the_body():
    levels = np.zeros((1, 60, 50), np.uint8)
    levels[:, 3:58, 10:40] = 90
    hot = levels.copy()
    hot[:, 20:30, 20:30] = 91
    lower = np.pad(levels, ((0, 0), (0, 7), (0, 0)))
    mm = (2.0, 2.0)
    assert np.array_equal(height_features(levels, mm), height_features(hot, mm))
    assert not np.array_equal(height_features(levels, mm), height_features(lower, mm))
    empty = margin_features(levels, mm)[0, 0, -13:]
    assert list(empty[:8]) == [0, 0, 0, 0, 3, 2, 10, 10]
    assert margin_features(lower, mm)[0, 0, -13:][5] == 9


def test_the_body_is_cut_out_whatever_air_is_around_it():
    levels = np.zeros((2, 200, 90), np.uint8)
    # A column of four pixels: 2 % of the image's rows, more of the body's.
    levels[0, 20:160, 20:60] = 50
    levels[0, 80:84, 60] = 50
    rows, columns = body_window(levels)
    assert (rows, columns) == (slice(20, 160), slice(20, 61))
    for top, bottom, left, right in ((60, 100, 0, 0), (0, 0, 300, 10)):
        padded = np.pad(levels, ((0, 0), (top, bottom), (left, right)))
        moved = body_window(padded)
        assert moved == (slice(20 + top, 160 + top), slice(20 + left, 61 + left))
    # A speck far from the body is no body.
    levels[1, 199, 89] = 200
    assert body_window(levels)[0].start == 20
    with pytest.raises(MipError, match="empty"):
        body_window(np.zeros((1, 20, 20), np.uint8))


# The command.


def write_cohort(raw: Path, healthy: int = 6, sick: int = 6, views: int = 1) -> None:
    """A raw data set as the converters write it: a bright square is a lesion."""
    rng = np.random.default_rng(3)
    (raw / "imagesTr").mkdir(parents=True)
    lesions = {}
    for number in range(healthy + sick):
        case = f"case_{number:02d}"
        lesions[case] = number < sick
        levels = rng.integers(20, 60, (views, 44, 36)).astype(np.uint8)
        if lesions[case]:
            row, column = rng.integers(5, 30), rng.integers(5, 25)
            levels[:, row : row + 8, column : column + 8] = 220
        image = sitk.GetImageFromArray(levels)
        image.SetSpacing((4.0, 5.0, 1000.0))
        sitk.WriteImage(image, str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
    mip = {"has_lesion": lesions, "patients": {case: case for case in lesions}}
    (raw / "dataset.json").write_text(json.dumps({"mip": mip}))


@pytest.fixture
def few_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tiny_trained, tmp_path_factory) -> tuple[Path, Path, str]:
    """A head on the tiny network, its data set's nnUNet_raw, and what the command printed."""
    import contextlib
    import io

    base = tmp_path_factory.mktemp("classify")
    write_cohort(base / "raw" / "Dataset801_Cohort", views=2)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny_trained.environment.items():
            patch.setenv(name, value)
        patch.setenv("nnUNet_raw", str(base / "raw"))
        with contextlib.redirect_stdout(printed):
            code = run(
                *("train", "-d", 801, "-o", base / "out", "--network", tiny_trained.model),
                *("--cache", base / "cache", "-device", "cpu"),
            )
    assert code == 0, printed.getvalue()
    return base / "out", base / "raw", printed.getvalue()


def test_train_writes_a_classifier_and_its_scores(trained):
    out, raw, printed = trained
    about, _ = read_classifier(out / FILE_NAME)
    assert about["studies"] == {"with_lesions": 6, "without": 6}
    assert about["views"] == 2
    table = rows_of(out / "out_of_fold.csv")
    assert len(table) == 12
    report = json.loads((out / "metrics.json").read_text())
    labels = [int(row["has_lesion"]) for row in table]
    probabilities = [float(row["probability"]) for row in table]
    value = report["natural_ratio"]["auroc"]["value"]
    assert value == pytest.approx(auroc(labels, probabilities), abs=1e-4)
    # A bright square is easily seen; the height of all images is the same.
    assert value > 0.9
    assert report["height alone"]["natural_ratio"]["auroc"]["value"] <= 0.6
    assert "heights matched (6 pairs)" in printed
    assert len(list((raw.parent / "cache").iterdir())) == 12


def test_predict_scores_stacks_and_pngs(trained, tiny, tmp_path, monkeypatch, few_threads, capsys):
    out, raw, _ = trained
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    scores = tmp_path / "new" / "scores.csv"
    source = raw / "Dataset801_Cohort" / "imagesTr"
    assert run("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    assert list(table[0]) == ["case", "probability", "has_lesion", "views", "weight_0", "weight_1"]
    assert len(table) == 12
    for row in table:
        assert float(row["weight_0"]) + float(row["weight_1"]) == pytest.approx(1, abs=1e-4)
    truth = [row["case"] < "case_06" for row in table]
    assert auroc(truth, [float(row["probability"]) for row in table]) > 0.9
    assert "called with lesions" in capsys.readouterr().out
    pixels = np.full((44, 36), 220, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    alone = tmp_path / "one.csv"
    assert run("predict", "-i", tmp_path / "one.png", "-o", alone, "-m", out, "-device", "cpu") == 0
    assert [row["case"] for row in rows_of(alone)] == ["one"]
    assert rows_of(alone)[0]["weight_0"] == "1.00000"


def test_predict_projects_volumes(trained, tiny, tmp_path, few_threads):
    out, _, _ = trained
    suv = np.full((14, 12, 16), 0.2, np.float32)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (14, 8, 12))
    image = sitk.GetImageFromArray(suv)
    image.SetSpacing((16.0, 16.0, 16.0))
    tree = tmp_path / "tree" / "PETCT_01" / "study"
    tree.mkdir(parents=True)
    sitk.WriteImage(image, str(tree / "SUV.nii.gz"))
    scores = tmp_path / "scores.csv"
    code = run("predict", "-i", tmp_path / "tree", "-o", scores, "-m", out, "-device", "cpu")
    assert code == 0
    (row,) = rows_of(scores)
    # By the model's inference.json: three views.
    assert row["views"] == "3"
    assert sum(float(row[f"weight_{view}"]) for view in range(3)) == pytest.approx(1, abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "tree"]


def test_padding_with_air_changes_nothing(trained, tiny, few_threads):
    out, raw, _ = trained
    classifier = load_classifier(out, device="cpu")
    path = raw / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    plain = classifier.score(levels, (5.0, 4.0))
    padded = classifier.score(np.pad(levels, ((0, 0), (9, 14), (3, 5))), (5.0, 4.0))
    assert padded.probability == pytest.approx(plain.probability, abs=1e-6)
    assert np.allclose(padded.weights, plain.weights)
    with pytest.raises(MipError, match="empty"):
        classifier.score(np.zeros_like(levels), (5.0, 4.0))


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_image_has_the_same_features(trained, tiny, few_threads, axis):
    """All mirrored copies of it are the same ones; of the crops only the whole body is too."""
    out, raw, _ = trained
    extractor = load_classifier(out, device="cpu").scorer.extractor
    path = raw / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    plain = extractor.features(levels, (5.0, 4.0))
    turned = extractor.features(np.flip(levels, axis), (5.0, 4.0))
    assert np.abs(plain[0]).max() > 1
    np.testing.assert_allclose(turned[0], plain[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["--fine-tune", "--from-scratch"])
def test_a_network_of_its_own(tiny, trained, tmp_path, monkeypatch, few_threads, how):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    out = tmp_path / "out"
    arguments = ["train", "-d", 801, "-o", out, "--network", tiny.model, "-device", "cpu"]
    arguments += ["--pixel_mm", 8, "--epochs", 2, "--no-evaluation", how]
    assert run(*arguments) == 0
    assert [path.name for path in out.iterdir()] == [FILE_NAME]
    scores = tmp_path / "scores.csv"
    source = trained[1] / "Dataset801_Cohort" / "imagesTr"
    assert run("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    assert len(table) == 12
    assert all(0 <= float(row["probability"]) <= 1 for row in table)
    if how == "--from-scratch":
        return
    import torch

    weights = torch.load(
        tiny.model / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )["network_weights"]
    _, arrays = read_classifier(out / FILE_NAME)
    kernels = {n: x for n, x in arrays.items() if n.startswith("encoder.") and x.ndim == 4}
    moved = [np.abs(x - weights[name].numpy()).max() for name, x in kernels.items()]
    # It starts from the segmentation network's weights, and moves on.
    assert 0 < max(moved) < 0.05


def test_a_head_and_a_network_as_one(tiny, trained, tmp_path, monkeypatch, few_threads, capsys):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    out = tmp_path / "out"
    arguments = ["train", "-d", 801, "-o", out, "--network", tiny.model, "-device", "cpu"]
    arguments += ["--both", "--pixel_mm", 8, "--epochs", 2, "--cache", trained[1].parent / "cache"]
    assert run(*arguments) == 0
    assert "both, natural ratio: AUROC" in capsys.readouterr().out
    assert len(rows_of(out / "out_of_fold.csv")) == 12
    about, arrays = read_classifier(out / FILE_NAME)
    assert (about["kind"], about["shown_mm"], len(about["parts"])) == ("both", 8.0, 2)
    classifier = load_classifier(out, device="cpu")
    path = trained[1] / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    score = classifier.score(levels, (5.0, 4.0))
    odds = [
        slope * scorer.score(levels, (5.0, 4.0))[0] + offset
        for (scorer, _), (slope, offset) in zip(classifier.scorer.parts, about["parts"])
    ]
    slope, offset = about["platt"]
    expected = 1 / (1 + math.exp(-(slope * sum(odds) / 2 + offset)))
    assert score.probability == pytest.approx(expected, abs=1e-6)
    assert sum(score.weights) == pytest.approx(1)
    # Its file without a part is none.
    for part in ("head:", "network:"):
        broken = tmp_path / "broken.npz"
        write_classifier(broken, about, {k: v for k, v in arrays.items() if part not in k})
        with pytest.raises(MipError, match=r"broken\.npz"):
            load_classifier(broken, tiny.model, "cpu")
    write_classifier(broken, {k: v for k, v in about.items() if k != "parts"}, arrays)
    with pytest.raises(MipError, match="is not a classifier"):
        load_classifier(broken, tiny.model, "cpu")


def test_pixels_shown_are_those_asked_for(tiny, few_threads):
    from nnunetv2_mip.classification.network import study_images
    from nnunetv2_mip.inference.predictor import MIPPredictor

    predictor = MIPPredictor.from_model_folder(tiny.model, device="cpu")
    levels = np.full((1, 80, 60), 90, np.uint8)
    mask = np.zeros((1, 80, 60), np.uint8)
    mask[:, :40] = 1
    own = study_images(predictor, levels, (5.0, 4.0), None, mask)
    assert own.views.shape[2:] == tuple(
        round(n / p) for n, p in zip((400, 240), predictor.pixel_mm)
    )
    # Any size in mm, the same for rows and columns, coarser or finer.
    for shown in (10.0, 2.5):
        images = study_images(predictor, levels, (5.0, 4.0), shown, mask)
        assert images.views.shape == images.body.shape == images.lesions.shape
        assert images.views.shape[2:] == (400 / shown, 240 / shown)
        assert float(images.lesions.mean()) == pytest.approx(0.5)
        assert float(images.views.mean()) == pytest.approx(float(own.views.mean()), rel=1e-4)


def test_every_fold_by_its_own_network(tiny, trained, tmp_path, monkeypatch, few_threads, capsys):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    names = [f"case_{number:02d}" for number in range(12)]
    splits = [{"train": names[k::2], "val": names[1 - k :: 2]} for k in (0, 1)]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(tiny.model, model, ignore=shutil.ignore_patterns("validation", "*.png"))
    arguments = ["train", "-d", 801, "-o", out, "--network", model, "--fold-networks"]
    arguments += ["--splits", tmp_path / "splits.json", "-device", "cpu"]
    arguments += ["--cache", trained[1].parent / "cache"]
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert "fold_1" in said
    assert "--network" in said
    assert not out.exists()
    shutil.copytree(model / "fold_0", model / "fold_1")
    assert run(*arguments) == 0
    folds = {row["case"]: int(row["fold"]) for row in rows_of(out / "out_of_fold.csv")}
    assert folds == {case: fold for fold, part in enumerate(splits) for case in part["val"]}
    # What is written asks the networks of all folds.
    about, _ = read_classifier(out / FILE_NAME)
    assert (about["folds"], about["networks"]) == (["0", "1"], 2)
    scores, source = tmp_path / "scores.csv", trained[1] / "Dataset801_Cohort" / "imagesTr"
    assert run("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    truth = [row["case"] < "case_06" for row in table]
    assert auroc(truth, [float(row["probability"]) for row in table]) > 0.9


def test_several_networks_agree_on_the_mean(tiny, trained, tmp_path, few_threads):
    import torch

    from nnunetv2_mip.classification.features import FeatureExtractor
    from nnunetv2_mip.inference.predictor import MIPPredictor

    model = tmp_path / "model"
    shutil.copytree(tiny.model, model, ignore=shutil.ignore_patterns("validation", "*.png"))
    shutil.copytree(model / "fold_0", model / "fold_1")
    path = model / "fold_1" / "checkpoint_final.pth"
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if ".seg_layers." in name:
            value *= -0.5
    torch.save(checkpoint, path)

    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))

    def seen(folds, networks):
        predictor = MIPPredictor.from_model_folder(model, folds, device="cpu")
        extractor = FeatureExtractor(predictor, networks=networks)
        with torch.inference_mode():
            return *extractor._passes(image), extractor.fingerprint

    stages, odds, fingerprint = seen([0], 1)
    _, other, _ = seen([1], 1)
    stages_of_both, mean, fingerprint_of_both = seen([0, 1], 2)
    assert fingerprint != fingerprint_of_both
    assert not torch.allclose(odds, other, atol=0.01)
    torch.testing.assert_close(mean, (odds + other) / 2)
    for one, both in zip(stages, stages_of_both):
        torch.testing.assert_close(both, one)


def test_a_network_judges_only_what_its_fold_has_not_seen(tmp_path, monkeypatch):
    names = [f"case_{number}" for number in range(6)]
    splits = [{"train": names[k::2], "val": names[1 - k :: 2]} for k in (0, 1)]
    planned = tmp_path / "nnUNet_preprocessed" / "Dataset001_A"
    planned.mkdir(parents=True)
    (planned / "splits_final.json").write_text(json.dumps(splits))
    patients = {name: name for name in names}
    (planned / "dataset.json").write_text(json.dumps({"mip": {"patients": patients}}))
    model, raw = tmp_path / "model", tmp_path / "raw"
    for folder in (model, raw):
        folder.mkdir()
    (model / "plans.json").write_text(json.dumps({"dataset_name": "Dataset001_A"}))
    # The raw data set's own splits are others: those of the model's training count.
    (raw / "splits_final.json").write_text(json.dumps(splits[::-1]))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned.parent))
    studies = [StudyLabel(name, name, number < 3) for number, name in enumerate((*names, "new"))]
    folds = training_folds(raw, studies, None, model)
    assert {case: fold for case, fold in folds.items() if case != "new"} == {
        case: fold for fold, part in enumerate(splits) for case in part["val"]
    }
    assert folds["new"] in (0, 1)
    for fold in splits:
        fold["val"] = [name for name in fold["val"] if name != "case_0"]
        fold["train"] = sorted({*fold["train"], "case_0"})
    named = tmp_path / "splits.json"
    named.write_text(json.dumps(splits))
    with pytest.raises(MipError, match="case_0 is in the training part of fold"):
        training_folds(raw, studies, named, model)
    named.write_text(json.dumps({"train": names}))
    with pytest.raises(MipError, match="not a list of"):
        training_folds(raw, studies, named)


def test_a_crop_of_an_ill_patient_shows_a_lesion():
    import torch

    from nnunetv2_mip.classification.network import StudyImages
    from nnunetv2_mip.classification.network_training import training_batch, window_for

    lesions = torch.zeros(1, 1, 100, 20)
    lesions[..., 99, 4] = 1
    tall = StudyImages(torch.ones(1, 1, 100, 20), torch.ones(1, 1, 100, 20), lesions)
    wide = StudyImages(torch.ones(1, 1, 40, 50), torch.ones(1, 1, 40, 50), torch.zeros(1, 1, 40, 50))
    window = window_for([tall, wide])
    assert window == (128, 64)
    rng = np.random.default_rng(0)
    shown = heights = 0
    for _ in range(20):
        views, body, found = training_batch([tall, wide], window, rng)
        assert views.shape == body.shape == found.shape == (2, 1, 1, *window)
        shown += int(found[0].any())
        heights += int(body[0, 0, 0].any(1).sum() < 100)
    # One crop in seven of such a patient holds the lowest row; ten are drawn.
    assert shown >= 12 and heights > 0


# What cannot be served.


def test_a_head_of_another_network_is_refused(trained, tiny, tmp_path, capsys):
    out = trained[0]
    other = tmp_path / "model"
    shutil.copytree(tiny.model, other, ignore=shutil.ignore_patterns("validation", "*.png"))
    import torch

    path = other / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    next(iter(checkpoint["network_weights"].values())).mul_(1.001)
    torch.save(checkpoint, path)
    shutil.copy(out / FILE_NAME, other)
    Image.fromarray(np.full((44, 36), 200, np.uint8)).save(tmp_path / "a.png")
    arguments = ["predict", "-i", tmp_path / "a.png", "-o", tmp_path / "s.csv", "-device", "cpu"]
    for named in (["-m", other], ["-m", out, "--network", other]):
        assert run(*arguments, *named) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "belongs to another network" in error
    assert not (tmp_path / "s.csv").exists()


def test_errors_are_one_line(trained, tmp_path, monkeypatch, capsys):
    out, _, _ = trained
    Image.fromarray(np.full((44, 36), 200, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"no")
    lost = tmp_path / "lost.npz"
    about, arrays = read_classifier(out / FILE_NAME)
    write_classifier(lost, {**about, "network": str(tmp_path / "gone")}, arrays)
    later = tmp_path / "later.npz"
    write_classifier(later, {**about, "format_version": FORMAT_VERSION + 1}, arrays)
    for name, change in {
        "word": ({"threshold": "x"}, {}),
        "nan": ({}, {"0.mean": np.full_like(arrays["0.mean"], np.nan)}),
    }.items():
        write_classifier(tmp_path / f"{name}.npz", {**about, **change[0]}, {**arrays, **change[1]})
    with pytest.raises(MipError, match="not a whole classifier"):
        Head.from_arrays({**arrays, "0.mean": arrays["0.mean"][:1]}, "short.npz")
    png, table = tmp_path / "a.png", tmp_path / "s.csv"
    cases = [
        (["-i", png, "-o", table, "-m", tmp_path / "word.npz"], "damaged"),
        (["-i", png, "-o", table, "-m", tmp_path / "nan.npz"], "damaged"),
        (["-i", png, "-o", table, "-m", tmp_path / "none"], "no such classifier"),
        (["-i", png, "-o", table, "-m", tmp_path / "empty"], "no such classifier"),
        (["-i", png, "-o", table, "-m", tmp_path / "broken.npz"], "is no classifier"),
        (["-i", png, "-o", table, "-m", lost], "--network FOLDER"),
        (["-i", png, "-o", table, "-m", later], "another version"),
        (["-i", png, "-o", tmp_path / "s.txt", "-m", out], ".csv"),
        (["-i", tmp_path / "empty", "-o", table, "-m", out], "holds nothing to predict"),
        (["-i", tmp_path / "missing", "-o", table, "-m", out], "no such file or folder"),
    ]
    for arguments, words in cases:
        assert run("predict", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words in error
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    write_cohort(tmp_path / "raw" / "Dataset802_Sick", healthy=0, sick=2)
    write_cohort(tmp_path / "raw" / "Dataset803_Healthy", healthy=2, sick=0)
    (tmp_path / "raw" / "Dataset804_Plain").mkdir()
    (tmp_path / "raw" / "Dataset804_Plain" / "dataset.json").write_text("{}")
    network = ["--network", about["network"]]
    cases = [
        (["-d", 802, "-o", tmp_path / "o", *network], "0 patients without lesions"),
        (["-d", 803, "-o", tmp_path / "o", *network], "0 patients with lesions"),
        (["-d", 804, "-o", tmp_path / "o", *network], "does not say which cases show lesions"),
        (["-d", 805, "-o", tmp_path / "o", *network], "no data set with id 805"),
        (["-d", 802, "-o", out, *network], "exists"),
        (["-d", 802, "-o", tmp_path / "o", "--network", tmp_path], "no such segmentation model"),
        (["-d", 802, "-o", tmp_path / "o", "--epochs", 0, *network], "--epochs 0"),
        (["-d", 802, "-o", tmp_path / "o", "--penalty", -1, *network], "--penalty -1"),
        (["-d", 802, "-o", tmp_path / "o", "--epochs", 3, *network], "--from-scratch"),
        (["-d", 802, "-o", tmp_path / "o", "--fold-networks"], "has no fold_0"),
        (["-d", 802, "-o", tmp_path / "o", "--pixel_mm", 0, *network], "--pixel_mm 0"),
    ]
    for arguments, words in cases:
        assert run("train", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words in error
    assert not (tmp_path / "o").exists()


def test_the_rules_need_no_torch():
    code = (
        "import sys; import nnunetv2_mip.classification.classifier, "
        "nnunetv2_mip.classification.metrics, "
        "nnunetv2_mip.classification.folds, nnunetv2_mip.classification.head, "
        "nnunetv2_mip.classification.head_fitting, nnunetv2_mip.classification.data, "
        "nnunetv2_mip.commands.classify; "
        "print([n for n in ('torch', 'nnunetv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bundled_classifier_belongs_to_the_bundled_network(tmp_path, few_threads):
    try:
        path = find_classifier(None)
    except MipError as error:
        pytest.skip(str(error))
    assert path.parent == bundled_model()
    assert path.stat().st_size <= 2e6
    about, _ = read_classifier(path)
    # No folder of the machine that made it.
    assert about["network"] == "."
    classifier = load_classifier(device="cpu")
    levels = np.zeros((1, 120, 80), np.uint8)
    levels[:, 5:-5, 10:-10] = 40
    score = classifier.score(levels, (2.0, 2.0))
    assert 0 <= score.probability <= 1
    assert list(score.weights) == [1.0]


def test_platt_is_a_sigmoid():
    assert Platt(1.0, 0.0)(0.0) == 0.5
