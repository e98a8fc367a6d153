"""Phantoms of the wide variety: large faint masses, healthy uptake, fields of view, cohorts."""

import json

import cc3d
import numpy as np
import pytest
from helpers import run

from nnunetv2_mip.commands import phantom
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import read_suv, suv_warning
from nnunetv2_mip.phantom.anatomy import build_anatomy
from nnunetv2_mip.phantom.cohort import write_cohort
from nnunetv2_mip.phantom.lesions import Lesion
from nnunetv2_mip.phantom.masses import WIDE_PATTERNS, draw_wide_lesions, draw_wide_pattern
from nnunetv2_mip.phantom.scanner import canvas_for, paint_anatomy, paint_lesions
from nnunetv2_mip.phantom.shapes import Ellipsoid
from nnunetv2_mip.phantom.subject import disease_pattern, simulate_subject
from nnunetv2_mip.phantom.wide_physiology import add_wide_physiology

COARSE_MM = 8.0


def anatomy_of(seed: int):
    """Healthy anatomy, and the generators that drew it."""
    body, scan = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    return build_anatomy(body, scan), scan


def test_a_subject_is_a_function_of_seed_index_and_variety():
    first, again = (simulate_subject(3, 1, COARSE_MM, variety="wide") for _ in range(2))
    np.testing.assert_array_equal(first.suv, again.suv)
    np.testing.assert_array_equal(first.seg, again.seg)
    standard = simulate_subject(3, 1, COARSE_MM)
    assert standard.suv.shape != first.suv.shape or (standard.suv != first.suv).any()
    assert disease_pattern(3, 1) == standard.pattern


def test_the_same_subjects_are_healthy_in_both_varieties():
    for index in range(3):
        wide = simulate_subject(4, index, COARSE_MM, variety="wide")
        is_healthy = disease_pattern(4, index) == "healthy"
        assert (wide.pattern == "healthy") == is_healthy
        if is_healthy:
            assert not wide.seg.any()


def test_patterns_come_at_their_rates():
    rng = np.random.default_rng(0)
    drawn = [draw_wide_pattern(rng) for _ in range(2000)]
    assert sum(WIDE_PATTERNS.values()) == pytest.approx(1)
    for pattern in ("large mass", "bulky nodes", "lymphoma"):
        assert drawn.count(pattern) / 2000 == pytest.approx(WIDE_PATTERNS[pattern], abs=0.04)


def test_large_masses_are_large_and_faint():
    anatomy, _ = anatomy_of(5)
    rng = np.random.default_rng(1)
    masses = [draw_wide_lesions("large mass", anatomy, rng)[0] for _ in range(60)]
    assert {lesion.kind for lesion in masses} == {"large mass"}
    assert all(1.6 <= lesion.suv <= 6.0 for lesion in masses)
    # Half of them below one and a half times the uptake of the liver.
    assert np.median([lesion.suv for lesion in masses]) < 3.5
    assert all(lesion.whole_outline for lesion in masses)
    assert 15 <= sum(bool(lesion.cold_parts) for lesion in masses) <= 45


def test_the_outline_of_a_mass_holds_its_cold_parts():
    anatomy, scan = anatomy_of(6)
    canvas = canvas_for(anatomy, 4.0)
    body, texture = paint_anatomy(canvas, anatomy, scan)
    centre = anatomy.sites["buttock"][0]
    mass = Lesion(
        "large mass",
        "buttock",
        (Ellipsoid(centre, (30.0, 30.0, 30.0)),),
        5.0,
        texture=0.0,
        cold_parts=(Ellipsoid(centre, (14.0, 14.0, 14.0)),),
        cold_share=0.2,
        whole_outline=True,
    )
    labels, painted = paint_lesions(canvas, [mass], body, texture, psf_mm=2.0)
    assert len(painted) == 1
    marked = labels == 1
    assert cc3d.connected_components(~marked, connectivity=6).max() == 1  # no hole
    volume_ml = marked.sum() * 4.0**3 / 1000
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 3.0**3, rel=0.1)
    place = tuple(int(np.abs(axis - c).argmin()) for axis, c in zip(canvas.axes, centre[::-1]))
    assert marked[place]
    assert canvas.suv[place] == pytest.approx(1.0, abs=0.1)


def test_bulky_nodes_flow_together():
    anatomy, _ = anatomy_of(7)
    rng = np.random.default_rng(2)
    lesions = draw_wide_lesions("bulky nodes", anatomy, rng)
    assert len(lesions) >= 6
    centres = np.array([lesion.blobs[0].centre for lesion in lesions])
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert np.median(distances.min(0)) < 60


def test_healthy_uptake_is_added_in_most_scans():
    added: dict[str, int] = {}
    for seed in range(12):
        anatomy, scan = anatomy_of(seed)
        before = len(anatomy.parts)
        add_wide_physiology(anatomy, scan)
        for name in {part.name for part in anatomy.parts[before:]}:
            added[name] = added.get(name, 0) + 1
    assert added["ureter"] >= 6
    assert {"colon", "strained muscle", "vocal cord", "tonsil"} <= set(added)


def test_ureters_lead_from_the_kidney_to_the_bladder():
    for seed in range(6):
        anatomy, scan = anatomy_of(seed)
        pelvis = max(organ.centre[2] for organ in anatomy.organs("renal pelvis"))
        low = min(solid.bounds()[0][2] for solid in anatomy.solids("bladder"))
        before = len(anatomy.parts)
        add_wide_physiology(anatomy, scan)
        for part in anatomy.parts[before:]:
            if part.name == "ureter":
                bottom, top = part.solids[0].bounds()
                assert low - 20 < bottom[2] and top[2] < pelvis + 20


def test_command_and_cohort(tmp_path, capsys):
    out = tmp_path / "cohort"
    assert run(phantom, "-o", out, "-n", 2, "--seed", 9, "--spacing", 8, "--variety", "wide") == 0
    assert "2 studies of seed 9" in capsys.readouterr().out
    content = json.loads((out / "cohort.json").read_text())
    assert (content["variety"], content["variety_version"]) == ("wide", 1)
    for path in out.rglob("SUV.nii.gz"):
        assert suv_warning(read_suv(path)) is None
    with pytest.raises(MipError, match="variety 'huge': choose one of standard, wide"):
        write_cohort(tmp_path / "other", 1, variety="huge")
