"""Cross-validation: no model is fitted or calibrated on the fold that it is applied to."""

import numpy as np

from nnunetv2_mip.classification.calibration import (
    calibrate,
)
from nnunetv2_mip.classification.cross_validation import cross_validate, frozen_fit, scored_fit
from nnunetv2_mip.classification.folds import assigned_folds
from nnunetv2_mip.classification.metrics import (
    auroc,
    binary_scores,
)
from nnunetv2_mip.classification.study_labels import StudyLabel


def test_scores_are_calibrated_without_the_fold_they_are_for():
    rng = np.random.default_rng(1)
    truth = np.arange(300) % 3 == 0
    studies = [StudyLabel(f"s{n}", f"s{n}", bool(lesion)) for n, lesion in enumerate(truth)]
    folds = {study.case: n // 60 for n, study in enumerate(studies)}
    scores = 2 * truth + rng.normal(0, 1, 300)
    results = cross_validate(studies, folds, scored_fit(scores, studies))
    own = calibrate(scores[60:], truth[60:])
    assert np.allclose(results.probabilities[:60], own.platt(scores[:60]))
    assert (results.decisions[:60] == (own.platt(scores[:60]) >= own.threshold)).all()
    # Another truth of fold 0 changes nothing that is said of fold 0.
    turned = [StudyLabel(s.case, s.case, s.has_lesion != (n < 60)) for n, s in enumerate(studies)]
    again = cross_validate(turned, folds, scored_fit(scores, turned))
    assert (again.probabilities[:60] == results.probabilities[:60]).all()
    assert not (again.probabilities[60:] == results.probabilities[60:]).any()


def test_a_head_learns_and_nothing_is_learned_from_noise(cohort, few_threads):
    bags, studies = cohort(120, 1, 2.0)
    folds = assigned_folds(studies)
    labels = [study.has_lesion for study in studies]
    columns = np.arange(6)
    results = cross_validate(studies, folds, frozen_fit(lambda fold: bags, studies, columns))
    assert auroc(labels, results.probabilities) > 0.95
    assert binary_scores(labels, results.probabilities, results.decisions)["f1"] > 0.85
    # The same with labels dealt anew: a leak would show here.
    order = np.random.default_rng(1).permutation(labels)
    shuffled = [StudyLabel(s.case, s.patient, bool(x)) for s, x in zip(studies, order)]
    results = cross_validate(shuffled, folds, frozen_fit(lambda fold: bags, shuffled, columns))
    assert 0.3 < auroc(order, results.probabilities) < 0.7
