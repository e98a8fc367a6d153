"""The page in a browser: pictures turn, masks fade, the table sorts, a phone has room."""

import pytest


def coloured(page, canvas: str) -> int:
    """Number of coloured pixels of a canvas."""
    return page.evaluate(
        """(id) => { const c = document.querySelector(id);
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - d[i + 2]) > 20; return n; }""",
        canvas,
    )


def test_pictures_turn_and_masks_fade(look, volume_report):
    page = look(volume_report)
    canvas = "#card-0-canvas"
    page.locator(canvas).scroll_into_view_if_needed()
    page.wait_for_selector(f"{canvas}[data-view='0']")
    assert page.get_attribute(canvas, "aria-valuetext") == "0°, from the front"
    box = page.locator(canvas).bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 5 + box["width"] / 2, box["y"] + 50, steps=4)
    page.mouse.up()
    # Half the width is 90°: three of six views.
    assert page.get_attribute(canvas, "data-view") == "3"
    assert page.get_attribute(canvas, "aria-valuetext") == "90°, from the left side"
    page.focus(canvas)
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert page.get_attribute(canvas, "aria-valuetext") == "330°"
    page.keyboard.press("ArrowRight")
    both = coloured(page, canvas)
    assert both > 0
    page.uncheck("#show-truth")
    page.uncheck("#show-prediction")
    assert coloured(page, canvas) == 0
    page.check("#show-prediction")
    assert 0 < coloured(page, canvas) < both
    page.fill("#opacity", "0")
    assert coloured(page, canvas) == 0
    page.fill("#size", "200")
    larger = page.locator(canvas).bounding_box()
    assert larger["height"] == pytest.approx(2 * box["height"], rel=0.01)
    # A column fills what is left beside it.
    assert larger["width"] >= 2 * box["width"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#play")
    page.wait_for_function("() => document.querySelector('#card-0-canvas').dataset.view !== '0'")


def test_a_phone_shows_it_without_scrolling_sideways(look, volume_report):
    page = look(volume_report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for opened in page.locator("summary").all():
        opened.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_table_sorts_and_finds(look, png_report, hostile_name):
    page = look(png_report)
    names = "table.cases tbody tr:not([hidden]) th"
    before = page.locator(names).all_inner_texts()
    page.click("table.cases thead button:text-is('Dice')")
    values = page.locator("table.cases tbody td:nth-child(2)").all_inner_texts()
    assert values[:3] == sorted(values[:3]) and values[3] == "–"
    page.click("table.cases thead button:text-is('Dice')")
    assert page.locator(names).all_inner_texts() != before
    page.fill("#find", "onerror")
    assert page.locator(names).all_inner_texts() == [hostile_name]
    page.click(f"{names} a")
    page.wait_for_function("() => document.querySelector('.card:target h4') !== null")
    assert page.inner_text(".card:target h4") == hostile_name
