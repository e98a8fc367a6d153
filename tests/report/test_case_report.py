"""The report of one case of the service's page holds its views and its table."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.service.page_cases import Case, CaseMask
from nnunetv2_mip.service.page_report import MAX_VIEWS, render_case_report


def rendered(folder: Path, case: Case, rows: list[dict]) -> Path:
    mask = np.zeros_like(case.levels)
    mask[:, 3:9, 4:8] = 1
    path = folder / "case.html"
    path.write_text(render_case_report(case, CaseMask(mask[0], mask, rows), 0.456, "a <model>"))
    return path


@pytest.mark.parametrize("views", [1, 12])
def test_some_views_and_the_whole_table_are_shown(views, tmp_path, read_page):
    rows = [
        {"region": 1, "area_cm2": 2.25, "max_uptake_percent": None},
        {"region": 2, "area_cm2": 0.5, "max_uptake_percent": 99.1},
    ]
    angles = tuple(15.0 * number for number in range(views))
    levels = np.arange(views * 1200, dtype=np.uint32).reshape(views, 40, 30).astype(np.uint8)
    page = read_page(rendered(tmp_path, Case("a.png", levels=levels, angles_deg=angles), rows))
    pictures = page.attributes_of("img")
    assert len(pictures) == min(views, MAX_VIEWS)
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)
    cells = re.findall("<td>(.*?)</td>", page.text)
    assert cells == ["1", "2.25", "", "2", "0.5", "99.1"]
    assert "Regions: 2, 2.8 cm²" in page.words and "threshold 0.46" in page.words
    assert "Research use only" in page.words


def test_names_and_warnings_are_escaped(tmp_path, read_page):
    levels = np.zeros((1, 40, 30), np.uint8)
    case = Case("<script>.png", levels=levels, warnings=("<b>'so'",))
    page = read_page(rendered(tmp_path, case, []))
    assert not page.attributes_of("script") and "<script>.png" in page.words
    assert "<b>'so'" in page.words and "a <model>" in page.words
    assert "Nothing is marked" in page.words and not page.attributes_of("table")
