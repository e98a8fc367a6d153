"""The page needs no other file, and names of files cannot change it."""

import math
import re

import pytest

from nnunetv2_mip.report import charts
from nnunetv2_mip.report.svg_plot import Point


@pytest.mark.parametrize("which", ["volume_report", "png_report"])
@pytest.mark.slow
def test_the_file_needs_nothing_else(which, request, read_page):
    page = read_page(request.getfixturevalue(which))
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "action", "data"):
                assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", page.text)
    policy = next(a["content"] for a in page.attributes_of("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "Research use only" in page.words


@pytest.mark.parametrize("which", ["volume_report", "png_report"])
def test_pictures_and_plots_are_accessible(which, request, read_page):
    page = read_page(request.getfixturevalue(which))
    for canvas in page.attributes_of("canvas"):
        assert canvas["aria-label"] and canvas["role"] in ("slider", "img")
    assert all(svg["aria-label"] for svg in page.attributes_of("svg"))
    # The page's colours: black text would be invisible on a dark page.
    texts = page.attributes_of("text")
    assert texts and all("var(--" in text["style"] for text in texts)


@pytest.mark.parametrize("which", ["volume_report", "png_report"])
def test_links_lead_to_elements_of_the_page(which, request, read_page):
    page = read_page(request.getfixturevalue(which))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {a["href"][1:] for tag, a in page.tags if tag in ("a", "use") and "href" in a}
    assert links and links <= set(ids)


def test_names_from_files_are_harmless(png_report, read_page, hostile_name):
    page = read_page(png_report)
    assert "<img src=x" not in page.text and "<script>alert" not in page.text
    assert hostile_name in page.words
    assert not page.attributes_of("img")
    # The page's own two, data and program.
    assert len(page.attributes_of("script")) == 2


def test_names_in_plots_are_escaped():
    chart = charts.dice_by_case([Point(0, 0.5, "<svg onload=x>&")], 0.5, (math.nan,) * 2)
    assert "&lt;svg onload=x&gt;&amp;" in chart.svg and "onload=x>" not in chart.svg
