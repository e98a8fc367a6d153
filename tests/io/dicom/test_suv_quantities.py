"""Dose, weight, height and half-life in another unit, or impossible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from pet_headers import AT_SERIES, factor_of, pet_slices, refusal_of

from nnunetv2_mip.errors import MipError

DOSE = "Radionuclide Total Dose (0018,1074)"
WEIGHT = "Patient's Weight (0010,1030)"
HALF_LIFE = "Radionuclide Half Life (0018,1075)"


def code(value: str, meaning: str) -> list:
    """Radionuclide Code Sequence of one item."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodeMeaning = value, meaning
    return [item]


@pytest.mark.parametrize(
    ("stated", "unit"),
    [("350", "MBq"), ("350000", "kBq"), ("0.35", "GBq"), ("9.459459", "mCi"), ("9459.459", "µCi")],
)
def test_a_dose_in_another_unit_is_read_as_such_and_said(stated, unit):
    factor, lines = factor_of(pet_slices(tracer={"RadionuclideTotalDose": stated}))
    assert factor == pytest.approx(AT_SERIES, rel=1e-6)
    (line,) = lines
    assert DOSE in line and unit in line


@pytest.mark.parametrize("kg", [45, 50, 70, 90, 120])
@pytest.mark.parametrize("mbq", ["75", "100", "200", "350", "400"])
def test_common_doses_in_mbq_are_read_at_every_weight(kg, mbq):
    factor, _ = factor_of(pet_slices(tracer={"RadionuclideTotalDose": mbq}, PatientWeight=str(kg)))
    assert factor == pytest.approx(2 * kg / float(mbq) / 1000)


@given(per_kg=st.floats(1, 15), kg=st.floats(20, 120))
def test_suv_does_not_depend_on_the_unit_of_the_dose(per_kg, kg):
    """But it is refused where two units would be usual."""
    mbq = min(per_kg * kg, 1200)
    whole = factor_of(pet_slices(tracer={"RadionuclideTotalDose": mbq * 1e6}, PatientWeight=kg))
    for per_mbq in (1, 1e3, 1e-3, 1 / 37, 1e3 / 37):
        tracer = {"RadionuclideTotalDose": mbq * per_mbq}
        try:
            found = factor_of(pet_slices(tracer=tracer, PatientWeight=kg))
        except MipError:
            assert "could be in" in refusal_of(pet_slices(tracer=tracer, PatientWeight=kg))
        else:
            assert found[0] == pytest.approx(whole[0], rel=1e-9)
            assert DOSE in found[1][0]


@given(kg=st.floats(10, 150), times=st.floats(1.01, 2), mbq=st.floats(100, 600))
def test_suv_is_proportional_to_the_weight_and_inverse_to_the_dose(kg, times, mbq):
    def factor(weight, dose):
        tracer = {"RadionuclideTotalDose": dose * 1e6}
        return factor_of(pet_slices(tracer=tracer, PatientWeight=weight))[0]

    assert factor(kg * times, mbq) == pytest.approx(times * factor(kg, mbq), rel=1e-9)
    assert factor(kg, mbq * times) == pytest.approx(factor(kg, mbq) / times, rel=1e-9)


@pytest.mark.parametrize("stated", ["25", "0.7", "30000", "3.5e12", "0", "-350000000"])
def test_a_dose_of_no_one_unit_is_refused(stated):
    """25 may be MBq (a low dose) or mCi, 0.7 mCi or GBq, 30000 kBq or µCi."""
    message = refusal_of(pet_slices(tracer={"RadionuclideTotalDose": stated}))
    assert DOSE in message and "--dose_mbq" in message


@pytest.mark.parametrize(
    ("kg", "mbq", "meaning", "half_life"),
    [
        (3, 10, "^18^Fluorine", 6586.2),
        (18, 60, "^18^Fluorine", 6588),
        (300, 900, "18F", 6600),
        (80, 25, "F-18", 6586),
        (70, 150, "^68^Gallium", 4062.6),
        (60, 37, "^89^Zirconium", 282240),
        (90, 7400, "^177^Lutetium", 574300),
        (75, 1200, "^82^Rubidium", 75.0),
        (70, 700, "^11^Carbon", 1224),
        (70, 40, "^124^Iodine", 360800),
        (110, 200, "^64^Copper", 45720),
    ],
)
def test_real_patients_of_every_size_and_nuclide_are_read_without_a_line(
    kg, mbq, meaning, half_life
):
    tracer = {
        "RadionuclideTotalDose": str(mbq * 1e6),
        "RadionuclideHalfLife": str(half_life),
        "RadionuclideCodeSequence": code("", meaning),
    }
    slices = pet_slices(tracer=tracer, PatientWeight=str(kg), DecayCorrection="ADMIN")
    factor, lines = factor_of(slices)
    assert factor == pytest.approx(kg / mbq / 1000)
    assert lines == []


def test_a_mouse_is_read_with_a_line():
    slices = pet_slices(tracer={"RadionuclideTotalDose": "8e6"}, PatientWeight="0.025")
    factor, lines = factor_of(slices)
    assert factor == pytest.approx(2 * 25 / 8e6)
    (line,) = lines
    assert WEIGHT in line


def test_the_dose_of_a_patient_is_not_a_mouses():
    assert WEIGHT in refusal_of(pet_slices(PatientWeight="0.07"))


def test_an_unusual_dose_has_a_line():
    _, lines = factor_of(pet_slices(PatientWeight="7"))
    assert len(lines) == 1 and "50 MBq per kg" in lines[0]
    factor, lines = factor_of(pet_slices(tracer={"RadionuclideTotalDose": "3500000"}))
    assert factor == pytest.approx(100 * AT_SERIES)
    (line,) = lines
    assert DOSE in line and "0.05 MBq per kg" in line


def test_a_weight_in_grams_is_read_as_such_and_said():
    factor, lines = factor_of(pet_slices(PatientWeight="70000"))
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert WEIGHT in line and "70 kg" in line


@pytest.mark.parametrize("stated", ["700", "350", "0.001", "7e6", "-70", "0", ""])
def test_a_weight_of_no_unit_is_refused(stated):
    message = refusal_of(pet_slices(PatientWeight=stated))
    assert WEIGHT in message and "--weight_kg" in message


@pytest.mark.parametrize("height", ["1.75", "175", "1750"])
def test_a_weight_in_pounds_is_doubted(height):
    _, lines = factor_of(pet_slices(PatientWeight="154", PatientSize=height))
    (line,) = lines
    assert "pounds" in line
    assert factor_of(pet_slices(PatientWeight="120", PatientSize=height))[1] == []


@pytest.mark.parametrize(
    ("stated", "unit", "seconds"),
    [
        ("109.77", "minutes", 6586.2),
        ("110", "minutes", 6600),
        ("1.83", "hours", 6588),
        ("6586200", "ms", 6586.2),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_half_life_in_another_unit_is_read_as_such_and_said(stated, unit, seconds, named):
    tracer = {"RadionuclideHalfLife": stated}
    if named:
        tracer["RadionuclideCodeSequence"] = code("C-111A1", "^18^Fluorine")
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(0.0002 * 2 ** (6600 / seconds))
    (line,) = lines
    assert HALF_LIFE in line and unit in line


@pytest.mark.parametrize("stated", ["6000", "3600"])
def test_seconds_of_no_nuclide_stay_seconds(stated):
    """6000 min would be iodine-124."""
    factor, lines = factor_of(pet_slices(tracer={"RadionuclideHalfLife": stated}))
    assert factor == pytest.approx(0.0002 * 2 ** (6600 / float(stated)))
    assert any("no nuclide" in line for line in lines)


@pytest.mark.parametrize(
    ("stated", "meaning", "nuclide"),
    [
        ("67.71", "", "gallium-68"),
        ("12.7", "", "copper-64"),
        ("78.4", "^89^Zirconium", "zirconium-89"),
        ("20.4", "C-11", "carbon-11"),
        ("3.27", "89Zr", "zirconium-89"),
    ],
)
def test_half_lives_of_other_nuclides(stated, meaning, nuclide):
    dated = {"RadiopharmaceuticalStartDateTime": "20200115113000"}
    coded = {"RadionuclideCodeSequence": code("", meaning)}
    slices = pet_slices(tracer={"RadionuclideHalfLife": stated, **dated, **coded})
    lines = factor_of(slices)[1]
    assert any(HALF_LIFE in line and nuclide in line for line in lines)


def test_a_half_life_against_its_nuclide():
    """Of another nuclide: it is the one that the scanner corrected with. Of none: refused."""
    fluorine = code("77004003", "^18^Fluorine")
    tracer = {"RadionuclideHalfLife": "4062.6", "RadionuclideCodeSequence": fluorine}
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(0.0002 * 2 ** (6600 / 4062.6))
    assert any(HALF_LIFE in line and "fluorine-18" in line for line in lines)
    message = refusal_of(pet_slices(tracer={**tracer, "RadionuclideHalfLife": "5000"}))
    assert HALF_LIFE in message and "fluorine-18" in message
    assert HALF_LIFE in refusal_of(pet_slices(tracer={"RadionuclideHalfLife": "0.5"}))


def test_the_nuclide_of_a_radiopharmaceutical():
    tracer = {"Radiopharmaceutical": "FDG -- fluorodeoxyglucose", "RadionuclideHalfLife": "5000"}
    assert "fluorine-18" in refusal_of(pet_slices(tracer=tracer))
    tracer["Radiopharmaceutical"] = "Fluorodeoxyglucose F^18^"
    assert "fluorine-18" in refusal_of(pet_slices(tracer=tracer))
    tracer["Radiopharmaceutical"] = "PSMA-1007"
    assert "no nuclide" in factor_of(pet_slices(tracer=tracer))[1][0]


@pytest.mark.parametrize(
    ("keyword", "values", "named"),
    [
        ("PatientWeight", ("70", "71"), WEIGHT),
        ("Units", ("BQML", "GML"), "Units (0054,1001)"),
        ("DecayCorrection", ("START", "ADMIN"), "Decay Correction (0054,1102)"),
    ],
)
def test_slices_of_several_kinds_are_no_series(keyword, values, named):
    slices = pet_slices(2, lambda header, index: setattr(header, keyword, values[index]))
    message = refusal_of(slices)
    assert named in message and "slice_1" in message
