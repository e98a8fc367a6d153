"""Simulated clicks: they lie on the truth, and improve masks on average."""

import cc3d
import numpy as np
import pytest

from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.io.clicks import Clicks
from nnunetv2_mip.phantom.clicks import corrective_clicks, preset_clicks
from nnunetv2_mip.phantom.subject import simulate_subject

MM = (4.0, 4.0, 4.0)


def test_simulated_clicks_know_the_truth():
    study = simulate_subject(8, 4, 8.0)
    mm = study.grid.spacing_zyx
    clicks = preset_clicks(study.suv, study.seg, mm, 6)
    assert len(clicks.tumour) == len(clicks.background) == 6
    assert all(study.seg[v] == 1 for v in clicks.tumour)
    assert all(study.seg[v] == 0 for v in clicks.background)
    fewer = preset_clicks(study.suv, study.seg, mm, 2)
    assert (fewer.tumour, fewer.background) == (clicks.tumour[:2], clicks.background[:2])
    mask = np.zeros_like(study.seg)
    mask[clicks.background[0]] = 1
    more = corrective_clicks(mask, study.seg, mm, Clicks())
    assert more == Clicks(clicks.tumour[:1], clicks.background[:1])
    assert not preset_clicks(study.suv, np.zeros_like(study.seg), mm, 2).tumour


@pytest.mark.slow
def test_on_simulated_patients_clicks_help_on_average():
    """A small copy of benchmarks/core/clicks.py: organs marked, every other lesion missed."""
    scores = []
    for index in (0, 2, 4, 5, 7, 8):
        study = simulate_subject(8, index, 8.0)
        mm, truth = study.grid.spacing_zyx, study.seg
        hot = (study.suv > 10) & (truth == 0)
        lesions = cc3d.connected_components(truth, connectivity=18)
        mask = (hot | (lesions % 2 == 1)).astype(np.uint8)
        row = []
        for count in (0, 1, 3, 6):
            clicks = preset_clicks(study.suv, truth, mm, count)
            found = with_clicks(mask, study.suv, clicks, mm)
            assert all(found[v] == 1 for v in clicks.tumour)
            assert all(found[v] == 0 for v in clicks.background)
            row.append(dice(found, truth))
        scores.append(row)
    mean = np.mean(scores, axis=0)
    assert (np.diff(mean) > 0).all(), mean
    assert mean[-1] > 2 * mean[0], mean
