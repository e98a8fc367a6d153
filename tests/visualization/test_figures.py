"""Rotating GIFs and contact sheets: frames, sizes, aspect, colours in the places of masks."""

import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.visualization.case_views import PREDICTION_COLOUR, TRUTH_COLOUR, CaseViews
from nnunetv2_mip.visualization.contact_sheet import write_contact_sheet
from nnunetv2_mip.visualization.palette_drawing import (
    BLENDS,
    Palette,
    outline_blend,
    outline_segments,
)
from nnunetv2_mip.visualization.rotating_gif import (
    MAX_GIF_BYTES,
    turning_order,
    write_turning_gif,
)


def a_case(views=4, rows=60, columns=40, pixel_mm=(8.0, 8.0), masks=True, **facts):
    """Case with a bright block in a body; truth on the left side, prediction on the right."""
    stack = np.zeros((views, rows, columns), np.float32)
    stack[:, 5:-5, 6:-6] = 1.0
    stack[:, 20:30, 10:16] = 9.0
    truth, prediction = np.zeros((2, views, rows, columns), np.uint8)
    truth[:, 20:30, 10:16] = 1
    prediction[:, 40:48, 24:32] = 1
    if not masks:
        truth = prediction = None
    return CaseViews("case_01", stack, pixel_mm, truth, prediction, **facts)


def near(pixels, colour, tolerance=40):
    """Pixels of an RGB image that have a colour, (H, W) bool."""
    return np.abs(pixels.astype(int) - 255 * np.array(to_rgb(colour))).max(-1) < tolerance


def test_gif_turns_once_and_shows_both_outlines_in_their_places(tmp_path):
    write_turning_gif(a_case(), tmp_path / "turn.gif")
    frames = imageio.imread(tmp_path / "turn.gif", mode="RGB")
    assert len(frames) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["turn.gif"]
    inner = frames[0][40:-45]  # without head line and legend
    truth, prediction = (np.argwhere(near(inner, c)) for c in (TRUTH_COLOUR, PREDICTION_COLOUR))
    assert len(truth) > 30 and len(prediction) > 30
    middle = inner.shape[1] / 2
    assert truth[:, 1].max() < middle < prediction[:, 1].min()
    assert truth[:, 0].mean() < prediction[:, 0].mean()
    # The second half of the turn is the mirror image.
    mirrored = np.argwhere(near(frames[4][40:-45], TRUTH_COLOUR))
    assert mirrored[:, 1].min() > middle
    assert mirrored[:, 1].mean() == pytest.approx(inner.shape[1] - 1 - truth[:, 1].mean(), abs=2)


def test_uptake_is_dark_and_air_is_white(tmp_path):
    write_turning_gif(a_case(views=1, masks=False), tmp_path / "still.gif")
    frame = imageio.imread(tmp_path / "still.gif", mode="RGB")
    frame = frame[0] if frame.ndim == 4 else frame
    assert frame[60, 5].min() == 255
    body = frame[40:-45]
    assert body.min() < 60
    assert not near(body, TRUTH_COLOUR).any() and not near(body, PREDICTION_COLOUR).any()


def test_levels_and_suv_look_the_same(tmp_path):
    case = a_case(views=1)
    levels = np.rint(case.views * 25.5).astype(np.uint8)
    write_contact_sheet([case], tmp_path / "suv.png")
    other = CaseViews("case_01", levels, case.pixel_mm, case.truth, case.prediction)
    write_contact_sheet([other], tmp_path / "levels.png")
    a, b = (imageio.imread(tmp_path / name).astype(int) for name in ("suv.png", "levels.png"))
    assert np.abs(a - b).max() <= 3


@pytest.mark.parametrize("pixel_mm", [(8.0, 8.0), (4.0, 8.0), (8.0, 4.0)])
def test_millimetres_are_isotropic(tmp_path, pixel_mm):
    """A block of 160 × 160 mm is square in the figure for any pixel size."""
    rows, columns = (int(480 / mm) for mm in pixel_mm)
    stack = np.zeros((1, rows, columns), np.float32)
    tall, wide = (int(160 / mm) for mm in pixel_mm)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    stack[:, top : top + tall, left : left + wide] = 10
    write_contact_sheet([CaseViews("block", stack, pixel_mm)], tmp_path / "sheet.png")
    sheet = imageio.imread(tmp_path / "sheet.png")[..., :3]
    # Right of the labels, between title and foot.
    black = np.argwhere((sheet.max(-1) < 90)[70:-80, 260:])
    height, width = np.ptp(black, axis=0) + 1
    assert height > 100
    assert height == pytest.approx(width, rel=0.03)


def test_sheet_grows_with_cases_and_columns(tmp_path):
    sizes = {}
    for rows, columns in ((1, 2), (3, 2), (1, 4)):
        path = tmp_path / f"{rows}_{columns}.png"
        write_contact_sheet([a_case(dice=0.81, truth_ml=9.5)] * rows, path, columns, title="Sheet")
        pixels = imageio.imread(path)[..., :3]
        sizes[rows, columns] = pixels.shape[:2]
        assert near(pixels, TRUTH_COLOUR).sum() > 50 * rows
        assert near(pixels, PREDICTION_COLOUR).sum() > 50 * rows
    assert sizes[3, 2][0] > 2.3 * sizes[1, 2][0] and sizes[3, 2][1] == sizes[1, 2][1]
    assert sizes[1, 4][1] > 1.3 * sizes[1, 2][1] and sizes[1, 4][0] == sizes[1, 2][0]


def test_cases_of_different_shape_share_a_sheet(tmp_path):
    cases = [a_case(), a_case(views=1, rows=90, columns=50, masks=False), a_case(views=3)]
    write_contact_sheet(cases, tmp_path / "sheet.png")
    assert min(imageio.imread(tmp_path / "sheet.png").shape[:2]) > 400


def test_outlines_at_the_border_and_ignore_labels(tmp_path):
    case = a_case(views=1)
    case.truth[:] = 0
    case.truth[0, 0:4, 15:25] = 1
    case.prediction[:] = 2  # ignore: not drawn
    write_contact_sheet([case], tmp_path / "sheet.png")
    body = imageio.imread(tmp_path / "sheet.png")[:-70, :, :3]
    assert near(body, TRUTH_COLOUR).any()
    assert not near(body, PREDICTION_COLOUR).any()


def test_turning_order():
    assert turning_order(1, 180, 48) == [(0, False)]
    turn = [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True)]
    assert turning_order(3, 180, 48) == turn
    assert turning_order(4, 90, 48) == [(v, False) for v in (0, 1, 2, 3, 2, 1)]
    many = turning_order(48, 180, 48)
    assert len(many) == 48 and many[0] == (0, False) and many[24] == (0, True)


def test_labels():
    assert a_case(dice=0.8149, truth_ml=120.4, prediction_ml=3.21).labels() == [
        "Dice 0.81",
        "truth 120 ml",
        "predicted 3.2 ml",
    ]
    assert a_case(dice=float("nan"), truth_ml=0.0, prediction_ml=0.0).labels() == [
        "no lesion",
        "predicted 0 ml",
    ]
    assert a_case().labels() == []


@pytest.mark.slow
def test_noisy_gif_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.gamma(2.0, 1.0, (12, 250, 160)).astype(np.float32)
    write_turning_gif(CaseViews("noise", stack, (4.0, 4.0)), tmp_path / "noise.gif")
    assert (tmp_path / "noise.gif").stat().st_size <= MAX_GIF_BYTES


def test_bad_input_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(MipError, match="prediction has shape"):
        CaseViews("x", np.zeros((2, 5, 5)), (1.0, 1.0), None, np.zeros((1, 5, 5)))
    with pytest.raises(MipError, match=r"expected \(V, H, W\)"):
        CaseViews("x", np.zeros((5, 5)), (1.0, 1.0))
    with pytest.raises(MipError, match=r"must end in \.gif"):
        write_turning_gif(a_case(), tmp_path / "turn.png")
    with pytest.raises(MipError, match="no case"):
        write_contact_sheet([], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_outline_of_one_pixel_is_a_rhombus_halfway_to_its_neighbours():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    segments = outline_segments(mask)
    assert len(segments) == 4
    corners = {(1.0, 1.5), (1.5, 1.0), (1.5, 2.0), (2.0, 1.5)}
    assert {tuple(end) for end in segments.reshape(-1, 2)} == corners


def test_outlines_close_along_the_border_and_part_pixels_that_touch_at_a_corner():
    mask = np.eye(2, dtype=bool)
    segments = outline_segments(mask)
    # Two rhombi: every end belongs to two segments.
    assert len(segments) == 8
    ends, counts = np.unique(segments.reshape(-1, 2), axis=0, return_counts=True)
    assert (counts == 2).all() and ends.min() == 0.0 and ends.max() == 2.0
    assert len(outline_segments(np.zeros((4, 5), bool))) == 0


def test_outline_has_its_width_on_other_pixels():
    mask = np.zeros((10, 10), bool)
    mask[:, 5:8] = True
    blend = outline_blend(mask, (100, 60), width_px=3)
    # Columns of 6 pixels: the borders lie at 30 and 48, halfway between centres.
    assert blend[50].nonzero()[0].tolist() == [28, 29, 30, 31, 46, 47, 48, 49]
    assert blend[50, 29:31].tolist() == [BLENDS, BLENDS]
    assert not outline_blend(np.zeros((4, 4), bool), (8, 8), 2).any()


def test_colours_of_the_palette():
    palette = Palette(5)
    rgb = np.frombuffer(palette.rgb, np.uint8).reshape(-1, 3)
    assert len(rgb) <= 256
    assert rgb[:5, 0].tolist() == [0, 64, 128, 191, 255]
    assert palette.grey_index[[0, 60, 255]].tolist() == [0, 1, 4]
    behind = np.array([0, 255], np.uint8)
    for number, colour in enumerate((TRUTH_COLOUR, PREDICTION_COLOUR)):
        own = np.rint(255 * np.array(to_rgb(colour)))
        full = rgb[palette.blend_index(number, np.array([BLENDS, BLENDS]), behind)]
        assert (full == own).all()
        half = rgb[palette.blend_index(number, np.array([BLENDS // 2] * 2), behind)]
        assert np.abs(half - (own + behind[:, None]) / 2).max() <= 1


def test_a_gif_is_drawn_without_matplotlib(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from nnunetv2_mip.visualization.result_picture import write_image_picture\n"
        "levels = np.full((40, 30), 90, np.uint8)\n"
        "write_image_picture('case', levels, levels > 200, (4.0, 4.0), sys.argv[1], 'nothing')\n"
        "print([name for name in ('matplotlib', 'imageio') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "still.gif")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
