"""Lesions among the segments of a SEG, or the ROIs of an RTSTRUCT."""

from pathlib import Path

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.lesion_names import NamedRegion, choose_lesions

FILE = Path("rtss.dcm")


def choose(*names: str, **says: str) -> tuple[list[str], list[str]]:
    """Chosen names of ROIs, and warnings."""
    lines: list[str] = []
    regions = [NamedRegion(n, name, says.get(name, "")) for n, name in enumerate(names)]
    chosen = choose_lesions(regions, "ROI", FILE, lines.append)
    return [names[number] for number in sorted(chosen)], lines


@pytest.mark.parametrize(
    "name,kind",
    [
        ("Lesion 1", "lesion"),
        ("GTV_Mass", "lesion"),
        ("gtv-lymph", "lesion"),
        ("Tumour", "lesion"),
        ("Brain_metastasis", "lesion"),
        ("Liver tumor", "lesion"),
        ("Lung-GTV", "other"),
        ("Lungs minus GTV", "other"),
        ("PTV_lesion", "other"),
        ("CTV 50", "other"),
        ("GTV + 5 mm", "other"),
        ("non-lesion", "other"),
        ("BODY", "other"),
        ("External", "other"),
        ("SpinalCord", "other"),
        ("Parotid_L", "other"),
        ("physiological uptake", "other"),
        ("Segment_1", "numbered"),
        ("ROI-2", "numbered"),
        ("3", "numbered"),
        ("", "numbered"),
        ("Moelle", "unknown"),
    ],
)
def test_kinds_of_names(name, kind):
    assert NamedRegion(1, name).kind == kind


def test_lesions_are_taken_and_what_is_left_out_is_named():
    assert choose("GTV 1", "GTV 2") == (["GTV 1", "GTV 2"], [])
    chosen, lines = choose("GTV", "BODY", "Moelle")
    assert chosen == ["GTV"]
    assert lines == [f"{FILE}: takes 'GTV' as lesions, leaves out 'BODY', 'Moelle'"]


def test_numbered_regions_are_all_taken_unless_an_organ_is_among_them():
    assert choose("ROI 1", "ROI 2") == (["ROI 1", "ROI 2"], [])
    with pytest.raises(MipError, match="not clear from 'ROI 1', 'Body'; keep the lesions alone"):
        choose("ROI 1", "Body")


def test_a_single_unknown_name_is_taken_with_a_line_and_several_are_refused():
    assert choose("Herd") == (["Herd"], [f"{FILE}: takes its only ROI 'Herd' as lesions"])
    with pytest.raises(MipError, match="not clear"):
        choose("Herd", "Herz")


def test_organs_alone_are_refused():
    for names in (("Liver",), ("BODY", "Heart"), ("PTV",)):
        with pytest.raises(MipError, match="not clear"):
            choose(*names)
    with pytest.raises(MipError, match="holds no ROI"):
        choose()


def test_codes_count_where_names_say_nothing():
    assert choose("A", "B", A="lesion", B="other")[0] == ["A"]
    # Many programs give every ROI the type ORGAN.
    assert choose("Lesion", **{"Lesion": "other"})[0] == ["Lesion"]
