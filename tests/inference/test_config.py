import json

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.fuse import FusionRule
from nnunetv2_mip.inference.config import InferenceConfig

DATASET = {
    "labels": {"background": 0, "lesion": 1},
    "mip": {
        "channels": ["suv"],
        "window_suv": 7.5,
        "pixel_mm": 2.0,
        "views": 24,
        "arc_deg": 180.0,
        "start_deg": 3.5,
        "patients": {"x": "p"},
    },
}


def test_defaults_follow_the_data_set():
    config = InferenceConfig.from_dataset_json(DATASET)
    assert config == InferenceConfig(
        window_suv=7.5, pixel_mm=2.0, channels=("suv",), views=24, arc_deg=180.0, start_deg=3.5
    )
    assert (config.tta, config.threshold, config.min_component_px) == (True, 0.5, 0)
    assert (config.prefilter, config.never_empty) == ("none", False)
    assert config.fusion == FusionRule(
        rule="explain", threshold=0.5, uptake_share=0.0, smallest_ml=0.2
    )


def test_single_images_say_nothing_about_the_views_of_a_volume():
    mip = {"channels": ["suv"], "views": 1, "window_suv": None, "pixel_mm": 2.0}
    config = InferenceConfig.from_dataset_json({"mip": mip})
    assert (config.views, config.window_suv) == (48, 10.0)


def test_file_round_trip(tmp_path):
    config = InferenceConfig(
        window_suv=6.0,
        views=12,
        tta=False,
        threshold=0.35,
        min_component_px=4,
        fusion=FusionRule("visibility", 0.4),
        never_empty=True,
    )
    assert config.save(tmp_path) == tmp_path / "inference.json"
    assert InferenceConfig.load(tmp_path) == config
    content = json.loads((tmp_path / "inference.json").read_text())
    assert content["format_version"] == 1
    assert content["fusion"] == {
        "rule": "visibility",
        "threshold": 0.4,
        "uptake_share": 0.0,
        "smallest_ml": 0.0,
        "view_threshold": 0.5,
        "outline_share": 0.0,
    }
    assert content["channels"] == ["suv"]


def test_model_of_the_stock_trainer(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    assert InferenceConfig.load(tmp_path) == InferenceConfig.from_dataset_json(DATASET)


def test_inference_json_comes_before_dataset_json(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    InferenceConfig(window_suv=3.0).save(tmp_path)
    assert InferenceConfig.load(tmp_path).window_suv == 3.0


def test_not_a_model_folder(tmp_path):
    with pytest.raises(MipError, match=r"dataset\.json: no such file"):
        InferenceConfig.load(tmp_path)


def test_data_set_of_another_kind(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(MipError, match=r'dataset\.json: no "mip" part'):
        InferenceConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2 is newer than 1"),
        ({"format_version": None}, "format_version is missing"),
        ({"treshold": 0.4}, "unknown key treshold"),
        ({"threshold": 1.5}, "threshold: 1.5 cannot be used"),
        ({"threshold": True}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"window_suv": 0}, "window_suv"),
        ({"pixel_mm": -1}, "pixel_mm"),
        ({"views": 0}, "views"),
        ({"views": 2.5}, "views"),
        ({"channels": []}, "channels"),
        ({"channels": 1}, "iterable"),
        ({"tta": "yes"}, "tta"),
        ({"min_component_px": -1}, "min_component_px"),
        ({"prefilter": "magic"}, "prefilter"),
        ({"fusion": {"rule": "visibility", "limit": 1}}, "fusion: unknown key limit"),
        ({"fusion": {"rule": "guess"}}, "guess"),
        ({"fusion": {"threshold": 2}}, "fusion"),
        ({"fusion": {"uptake_share": 1}}, "uptake share"),
        ({"fusion": 1}, "fusion: not a JSON object"),
        ({"fusion": {"outline_share": 1.0}}, "outline share 1.0: must lie in"),
        ({"fusion": {"view_threshold": 1.0}}, "view threshold 1.0: must lie between 0 and 1"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, change, message):
    path = tmp_path / "inference.json"
    path.write_text(json.dumps({**InferenceConfig().to_dict(), **change}))
    with pytest.raises(MipError, match=message) as caught:
        InferenceConfig.load(tmp_path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("text", ["[]", "3", "{"])
def test_files_of_another_shape(tmp_path, text):
    (tmp_path / "inference.json").write_text(text)
    with pytest.raises(MipError, match=r"inference\.json"):
        InferenceConfig.load(tmp_path)


def test_the_prefilters_there_are(tmp_path):
    InferenceConfig(prefilter="impulse").save(tmp_path)
    assert InferenceConfig.load(tmp_path).prefilter == "impulse"


def test_with_data_of_keeps_the_choices():
    tuned = InferenceConfig(threshold=0.2, tta=False, window_suv=5.0)
    merged = tuned.with_data_of(InferenceConfig(window_suv=8.0, views=12))
    assert merged == InferenceConfig(threshold=0.2, tta=False, window_suv=8.0, views=12)
