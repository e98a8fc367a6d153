"""Settings of views: values that make no sense, listed angles."""

import json

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.views.settings import ViewSettings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"window_suv": 0}, "--window"),
        ({"pixel_mm": -2}, "--pixel"),
        ({"arc_deg": 0}, "--arc"),
        ({"start_deg": float("nan")}, "--start"),
        ({"labels": "some"}, "--labels"),
        ({"views": 0}, "--views"),
        ({"angles_deg": ()}, "--angles"),
        ({"angles_deg": (0, 30, 0)}, "twice"),
        ({"angles_deg": (0, 30), "arc_deg": 90}, "leave --arc"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(MipError, match=words):
        ViewSettings(**wrong)


def test_listed_angles_set_the_number_of_views():
    chosen = ViewSettings(angles_deg=(0, 30, 75))
    assert (chosen.views, chosen.angles) == (3, (0.0, 30.0, 75.0))
    assert ViewSettings(views=2, arc_deg=90, start_deg=10).angles == (10.0, 55.0)
    config = InferenceConfig.from_dataset_json({"mip": {"views": 3, "angles_deg": [0, 30, 75]}})
    assert config.angles == (0, 30, 75)
    assert InferenceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(MipError, match="angles_deg"):
        InferenceConfig(views=4, angles_deg=(0.0, 30.0))
