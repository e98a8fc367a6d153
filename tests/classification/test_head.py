"""Heads: attention over views, fitting, and their arrays."""

import numpy as np
import pytest

from nnunetv2_mip.classification.head import Head, fit_member
from nnunetv2_mip.classification.head_fitting import fit_head
from nnunetv2_mip.classification.metrics import (
    auroc,
)


def test_attention_finds_the_view_with_the_lesion(cohort, few_threads):
    bags, studies = cohort(160, 8, 4.0)
    labels = [study.has_lesion for study in studies]
    member = fit_member(bags, labels, 1e-4)
    found = [np.argmax(member.score(bag[0])[1]) for bag, lesion in zip(bags, labels) if lesion]
    assert np.mean(np.asarray(found) == 6) > 0.8
    # It generalises, and beats the mean over views.
    fresh, others = cohort(200, 8, 4.0, seed=5)
    truth = [study.has_lesion for study in others]
    scores = [member.score(bag[0])[0] for bag in fresh]
    mean = fit_member([bag.mean(1, keepdims=True) for bag in bags], labels, 1e-4)
    of_mean = [mean.score(bag[0].mean(0, keepdims=True))[0] for bag in fresh]
    assert auroc(truth, scores) > auroc(truth, of_mean) > 0.5


def test_a_head_of_single_views_weighs_views_alike(cohort, few_threads):
    bags, studies = cohort(40, 1, 2.0)
    fitted = fit_head(bags, studies, np.arange(6))
    score, weights = fitted.head.score(np.ones((4, 6)))
    assert np.allclose(weights, 0.25)
    again = Head.from_arrays(fitted.head.arrays(), "x").score(np.ones((4, 6)))[0]
    assert again == pytest.approx(score, abs=1e-4)


def test_a_head_does_not_depend_on_the_order_of_studies_or_views(cohort, few_threads):
    bags, studies = cohort(40, 3, 2.0)
    member = fit_member(bags, [study.has_lesion for study in studies], 1e-3)
    score, weights = member.score(bags[0][0])
    turned, other = member.score(bags[0][0][::-1])
    assert turned == pytest.approx(score)
    assert np.allclose(other[::-1], weights)
