"""SUV of other body sizes, units in another spelling, and vendors' private elements."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from pet_headers import AT_SERIES, factor_of, pet_slices, refusal_of

from nnunetv2_mip.io.dicom.suv import suv_factors

SIZE, SEX, TYPE = "Patient's Size (0010,1020)", "Patient's Sex (0010,0040)", "SUV Type (0054,1006)"


def suv_slices(kind: str | None, **changes):
    """Slices of values that are SUV by a body size: 70 kg, 1.75 m."""
    body = {"PatientSize": "1.75", "PatientSex": "M", **changes}
    return pet_slices(**{"Units": "GML", "SUVType": kind, **body})


# By hand for 70 kg and 175 cm (body mass index 22.857): 70 over each.
JAMES_MEN, JAMES_WOMEN = 1.10 * 70 - 120 * 0.16, 1.07 * 70 - 148 * 0.16  # 57.8, 51.22 kg
JAMES128_MEN = 1.10 * 70 - 128 * 0.16  # 56.52 kg
JANMA_MEN = 9270 * 70 / (6680 + 216 * 22.857143)  # 55.85 kg
JANMA_WOMEN = 9270 * 70 / (8780 + 244 * 22.857143)  # 45.19 kg
IDEAL_MEN, IDEAL_WOMEN = 48 + 1.06 * 23, 45.5 + 0.91 * 23  # 72.38, 66.43 kg


@pytest.mark.parametrize(
    ("kind", "sex", "kg"),
    [
        ("LBM", "M", JAMES_MEN),
        ("LBM", "F", JAMES_WOMEN),
        ("LBMJAMES128", "M", JAMES128_MEN),
        ("LBMJAMES128", "F", JAMES_WOMEN),
        ("LBMJAMES128", "O", (JAMES128_MEN + JAMES_WOMEN) / 2),
        ("LBMJANMA", "M", JANMA_MEN),
        ("LBMJANMA", "F", JANMA_WOMEN),
        ("LBMJANMA", "O", (JANMA_MEN + JANMA_WOMEN) / 2),
        ("IBW", "M", IDEAL_MEN),
        ("IBW", "F", IDEAL_WOMEN),
        ("IBW", "O", (IDEAL_MEN + IDEAL_WOMEN) / 2),
    ],
)
def test_suv_of_another_body_size_is_converted_and_said(kind, sex, kg):
    factor, lines = factor_of(suv_slices(kind, PatientSex=sex))
    assert factor == pytest.approx(70 / kg, rel=1e-6)
    (line,) = lines
    assert "converted" in line and f"sex {sex}" in line
    assert ("mean" in line) == (sex == "O")


@pytest.mark.parametrize("kind", ["BSA", None])
@pytest.mark.parametrize("sex", ["F", "O", None])
def test_suv_by_body_surface_is_converted(kind, sex):
    """Du Bois: 1.8481 m² of 70 kg and 175 cm; the sex does not matter."""
    factor, lines = factor_of(suv_slices(kind, Units="CM2ML", PatientSex=sex))
    assert factor == pytest.approx(70000 / 18481, rel=1e-4)
    assert len(lines) == 1


@given(kg=st.floats(40, 110), cm=st.floats(155, 200), suv=st.floats(0.1, 20))
def test_the_same_activity_has_the_same_suv_by_each_way(kg, cm, suv):
    """SUV by lean body mass, as a scanner computes it, comes back to SUV by body weight."""
    lean = 9270 * kg / (6680 + 216 * kg / (cm / 100) ** 2)
    stated = suv * lean / kg
    slices = suv_slices("LBMJANMA", PatientWeight=kg, PatientSize=cm / 100)
    assert stated * factor_of(slices)[0] == pytest.approx(suv, rel=1e-9)


@pytest.mark.parametrize(("stated", "said"), [("175", True), ("1750", True), ("1.75", False)])
def test_a_height_in_cm_or_mm_is_read_as_such_and_said(stated, said):
    factor, lines = factor_of(suv_slices("IBW", PatientSize=stated))
    assert factor == pytest.approx(70 / IDEAL_MEN)
    assert any(SIZE in line for line in lines) == said


def test_a_height_in_inches_is_told_from_cm_by_the_weight():
    factor, _ = factor_of(suv_slices("IBW", PatientSize="68.9"))
    assert factor == pytest.approx(70 / IDEAL_MEN, rel=1e-3)
    child = suv_slices("BSA", Units="CM2ML", PatientSize="69", PatientWeight="8")
    assert "0.69 m" in factor_of(child)[1][-1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"PatientSize": None}, SIZE),
        ({"PatientSize": "0"}, SIZE),
        ({"PatientSize": "17.5"}, SIZE),
        ({"PatientSex": None}, SEX),
        ({"PatientSex": "X"}, SEX),
        ({"PatientWeight": None}, "Patient's Weight (0010,1030)"),
        ({"PatientSize": "0.9"}, "no ideal body weight"),
        ({"SUVType": "LEAN"}, "LEAN"),
        ({"SUVType": "BSA"}, TYPE),
        ({"Units": "CM2ML"}, TYPE),
    ],
)
def test_what_a_conversion_needs_is_named(changes, named):
    message = refusal_of(suv_slices("IBW", **changes))
    assert named in message


def test_suv_by_body_weight_needs_nothing():
    for kind in ("BW", None):
        slices = suv_slices(kind, PatientWeight=None, PatientSize=None, DecayCorrection=None)
        assert factor_of(slices) == (1.0, [])


@pytest.mark.parametrize(
    ("stated", "factor"), [("Bq/ml", AT_SERIES), ("bqml", AT_SERIES), ("KBQML", 1000 * AT_SERIES)]
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")
def test_units_in_another_spelling(stated, factor):
    found, lines = factor_of(pet_slices(Units=stated))
    assert found == pytest.approx(factor)
    (line,) = lines
    assert "Units (0054,1001)" in line


@pytest.mark.parametrize("stated", ["PROPCNTS", "CPS", "MGMINML", "NONE", "PCNT"])
def test_other_units_are_refused(stated):
    assert f"Units (0054,1001) is {stated}" in refusal_of(pet_slices(Units=stated))


def counts(*factors: tuple[int, str], block: int = 0x10, creator: str | None = None, **changes):
    """Slices of Philips counts with private factors."""

    def edit(header, index):
        if creator:
            header.add_new((0x7053, block), "LO", creator)
        for element, value in factors:
            header.add_new((0x7053, block << 8 | element), "DS", value)

    named = {"Manufacturer": "Philips Medical Systems", **changes}
    return pet_slices(2, edit, Units="CNTS", **named)


@pytest.mark.parametrize("creator", [None, "Philips PET Private Group"])
@pytest.mark.parametrize("block", [0x10, 0x11])
def test_philips_factors_with_and_without_their_creator(creator, block):
    places = {"block": block, "creator": creator}
    assert factor_of(counts((0x00, "0.003"), (0x09, "2"), **places))[0] == 0.003
    found = factor_of(counts((0x00, "0"), (0x09, "2"), **places))[0]
    assert found == pytest.approx(2 * AT_SERIES)


def test_factors_of_another_vendor_do_not_count():
    other = counts((0x00, "0.003"), creator="SOMEBODY ELSE")
    assert "(7053,1000)" in refusal_of(other)
    assert "SIEMENS" in refusal_of(counts((0x00, "0.003"), Manufacturer="SIEMENS"))
    assert factor_of(counts((0x00, "0.003"), Manufacturer=None))[0] == 0.003


def test_bytes_of_an_unknown_representation():
    def edit(header, index):
        header.add_new((0x7053, 0x1000), "UN", b"0.003 ")

    slices = pet_slices(2, edit, Units="CNTS", Manufacturer="PHILIPS")
    assert factor_of(slices)[0] == 0.003


def test_philips_factors_of_each_slice():
    def edit(header, index):
        header.add_new((0x7053, 0x1000), "DS", str(0.001 * (index + 1)))

    slices = pet_slices(3, edit, Units="CNTS", Manufacturer="Philips")
    np.testing.assert_allclose(suv_factors(slices)[0], [0.001, 0.002, 0.003])


def test_counts_without_decay_correction_need_the_factor_of_activity():
    raw = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
    found, _ = factor_of(counts((0x00, "0.003"), (0x09, "2"), ActualFrameDuration="2000", **raw))
    assert found == pytest.approx(2 * AT_SERIES * 2 ** (1 / 6600), rel=1e-6)
    assert "(7053,1009)" in refusal_of(counts((0x00, "0.003"), **raw))


def test_units_of_an_enhanced_pet():
    """Real world value mapping, and decay correction by YES or NO with its own moment."""
    from pydicom.dataset import Dataset

    def mapped(unit):
        code, mapping = Dataset(), Dataset()
        setattr(code, "CodeValue" if len(unit) <= 16 else "LongCodeValue", unit)
        mapping.MeasurementUnitsCodeSequence = [code]
        return {"Units": None, "RealWorldValueMappingSequence": [mapping]}

    enhanced = {"DecayCorrection": None, "CorrectedImage": None, "DecayCorrected": "YES"}
    moment = {"DecayCorrectionDateTime": "20200115115000", "SeriesTime": "180000"}
    tracer = {"RadiopharmaceuticalStartDateTime": "20200115100000"}
    slices = pet_slices(tracer=tracer, **enhanced, **moment, **mapped("Bq/ml"))
    assert factor_of(slices) == (pytest.approx(AT_SERIES), [])
    assert factor_of(pet_slices(**enhanced, **mapped("g/ml{SUVbw}"))) == (1.0, [])
    body = {"PatientSize": "1.75", "PatientSex": "M"}
    lean = pet_slices(**enhanced, **mapped("g/ml{SUVlbm(Janma)}"), **body)
    assert factor_of(lean)[0] == pytest.approx(70 / JANMA_MEN)
    assert "Units (0054,1001)" in refusal_of(pet_slices(**enhanced, **mapped("1")))
    raw = {**enhanced, "DecayCorrected": "NO", "AttenuationCorrected": "YES"}
    frames = pet_slices(
        2,
        lambda header, index: setattr(
            header, "FrameReferenceDateTime", ["20200115115000", "20200115134000"][index]
        ),
        tracer=tracer,
        **raw,
        **mapped("Bq/ml"),
    )
    np.testing.assert_allclose(suv_factors(frames)[0], [AT_SERIES, 2 * AT_SERIES])
    raw["AttenuationCorrected"] = "NO"
    assert "(0018,9759)" in refusal_of(pet_slices(**raw))
