"""Tables and plots of an efficiency study, from records made by hand and from a finished study."""

import json

import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.efficiency.plots import write_plots
from nnunetv2_mip.efficiency.tables import markdown, rows_of


def record(case: str, patient: str, dice: float | None, **more) -> dict:
    costs = {"seconds": 1.0, "cpu_seconds": 2.0, "peak_mb": 3.0, "peak_gpu_mb": None}
    energy = {"energy_wh": 0.5, "processor_wh": 0.25, "energy_missing": None}
    common = {"dice_3d": dice, "operations": 10**12, "parameters": 7, **costs, **energy}
    return {"case": case, "patient": patient, **common, **more}


def test_rows_by_hand():
    few = [record("a1", "a", 0.2), record("a2", "a", 0.4), record("b", "b", 0.9)]
    more = [record("a1", "a", 0.4), record("a2", "a", 0.6), record("b", "b", None)]
    more[0] |= {"seconds": 9.0, "cpu_seconds": 7.0, "peak_mb": 30.0, "energy_missing": "why"}
    more[0]["energy_wh"] = None
    model = {"volumetric": False, "trained_views": 12}
    training = {"net": {"operations": 4e9, "seconds": 1, "cpu_seconds": 2, "energy_wh": 0.1,
                        "processor_wh": 0.05}}  # fmt: skip
    cells = {("net", "4"): few, ("net", "16"): more}
    first, second = rows_of(cells, {"models": {"net": model}}, training)
    assert (first["views"], first["studies"], first["patients"]) == (4, 3, 2)
    assert first["dice_3d"] == pytest.approx(0.5)
    # Two patients: either alone, or both.
    assert first["dice_3d_low"] == pytest.approx(0.3)
    assert first["dice_3d_high"] == pytest.approx(0.9)
    assert second["dice_3d"] == pytest.approx(0.5)
    assert second["dice_3d_low"] is None
    assert second["dice_difference"] is None
    assert (second["seconds"], second["cpu_seconds"], second["peak_mb"]) == (1.0, 2.0, 30.0)
    assert second["energy_wh"] is None and second["energy_missing"] == "why"
    assert first["energy_wh"] == 0.5 and first["energy_missing"] is None
    assert first["epoch_tflop"] == pytest.approx(1.0)
    assert first["epoch_cpu_seconds"] == 500 and first["epoch_processor_wh"] == 12.5
    assert "| net | 4 | 12 |" in markdown([first, second])


def test_a_difference_is_taken_where_both_have_a_dice():
    few = [record("a", "a", 0.2), record("b", "b", 0.9)]
    most = [record("a", "a", 0.5), record("b", "b", 0.7)]
    deep = [record("a", "a", 0.6), record("b", "b", 0.6)]
    models = {"net": {"volumetric": False, "trained_views": 2}}
    models["deep"] = {"volumetric": True, "trained_views": None}
    cells = {("net", "2"): few, ("net", "8"): most, ("deep", "3d"): deep}
    rows = rows_of(cells, {"models": models}, {})
    assert [row["dice_difference"] for row in rows] == pytest.approx([-0.05, None, 0.0])
    assert rows[0]["dice_difference_low"] == pytest.approx(-0.3)
    assert rows[0]["dice_difference_high"] == pytest.approx(0.2)
    assert rows[2]["views"] is None and rows[2]["epoch_tflop"] is None


def test_pictures_of_nothing(tmp_path):
    assert len(write_plots([], tmp_path)) == 4


@pytest.mark.slow
def test_tables_and_pictures(finished):
    text = (finished / "tables.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**3D against MIP** (2D: views that a 2D network segmented; projected: the 3D mask onto "
        "the reference views)",
        "**Views** (mean, 95 % interval over patients)",
        "**Efficiency**",
    ]
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(lines) - 2 for lines in tables] == [2, 2, 3]
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
    for name in ("views", "operations"):
        picture = np.asarray(Image.open(finished / f"{name}.png").convert("RGB"))
        # Not empty: the first network's colour is in it.
        assert (np.abs(picture.astype(int) - (0, 0x72, 0xB2)).sum(-1) < 30).sum() > 50
        assert "flat (trained on 3 views)" in (finished / f"{name}.svg").read_text()
    assert json.loads((finished / "study.json").read_text())["unfinished"] == []
    left = [path.name for path in finished.rglob("*") if "partial" in path.name]
    assert not left
