"""Values of the user instead of those of the headers: weight, dose, time of injection."""

from datetime import datetime, time, timedelta, timezone

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pet_headers import AT_INJECTION, AT_SERIES, factor_of, pet_slices, refusal_of

from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.suv import suv_factors

TEN = time(10, 0)


@pytest.mark.parametrize("stated", [None, "", "0", "700", "65"])
def test_a_weight_of_the_user(stated):
    factor, lines = factor_of(pet_slices(PatientWeight=stated), weight_kg=70)
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert line.endswith(
        "weight 70 kg of --weight_kg instead of Patient's Weight (0010,1030), "
        + (stated or "absent")
    )


@pytest.mark.parametrize("stated", [None, "0", "25", "1000000000"])
def test_a_dose_of_the_user(stated):
    tracer = {"RadionuclideTotalDose": stated}
    factor, lines = factor_of(pet_slices(tracer=tracer), dose_mbq=350)
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert line.endswith(
        "dose 350 MBq of --dose_mbq instead of Radionuclide Total Dose (0018,1074), "
        + (stated or "absent")
    )


@pytest.mark.parametrize(
    "given",
    [
        TEN,
        datetime(2020, 1, 15, 10, 0),
        datetime(2020, 1, 15, 10, 0, tzinfo=timezone(timedelta(hours=2))),
    ],
)
@pytest.mark.parametrize("stated", [None, "130000", "noon", "113000"])
def test_a_time_of_injection_of_the_user(given, stated):
    tracer = {"RadiopharmaceuticalStartTime": None}
    factor, lines = factor_of(pet_slices(tracer=tracer), injection_time=given)
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert "of --injection_time instead of" in line and "(0018,1072), absent" in line


def test_a_zone_of_the_given_time():
    given = datetime(2020, 1, 15, 8, 0, tzinfo=timezone.utc)
    slices = pet_slices(TimezoneOffsetFromUTC="+0200")
    assert factor_of(slices, injection_time=given)[0] == pytest.approx(AT_SERIES)


def test_a_given_time_alone_is_the_last_one_before_the_scan():
    slices = pet_slices(SeriesTime="012000", AcquisitionTime="012000")
    assert factor_of(slices, injection_time=time(23, 30))[0] == pytest.approx(AT_SERIES)


def test_a_given_day_of_a_nuclide_of_days():
    tracer = {"RadionuclideHalfLife": "282276", "RadionuclideTotalDose": "37000000"}
    factor, _ = factor_of(pet_slices(tracer=tracer), injection_time=datetime(2020, 1, 10, 11, 50))
    assert factor == pytest.approx(70e3 / 37e6 * 2 ** (5 * 86400 / 282276))


def test_all_three_in_anonymised_headers():
    tracer = {"RadionuclideTotalDose": None, "RadiopharmaceuticalStartTime": None}
    dates = {"SeriesDate": "19000101", "AcquisitionDate": "19000101"}
    slices = pet_slices(tracer=tracer, PatientWeight=None, **dates)
    factor, lines = factor_of(slices, weight_kg=70, dose_mbq=350, injection_time=TEN)
    assert factor == pytest.approx(AT_SERIES)
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"weight_kg": 70000.0}, "--weight_kg is 70000"),
        ({"weight_kg": 0.0}, "--weight_kg is 0"),
        ({"weight_kg": float("nan")}, "--weight_kg is nan"),
        ({"dose_mbq": 350e6}, "--dose_mbq is 3.5e+08"),
        ({"dose_mbq": 0.35}, "--dose_mbq is 0.35"),
        ({"dose_mbq": -350.0}, "--dose_mbq is -350"),
        ({"dose_mbq": float("inf")}, "--dose_mbq is inf"),
        ({"injection_time": time(12, 30)}, "--injection_time 12:30:00"),
        ({"injection_time": datetime(2020, 1, 15, 12, 0)}, "after the scan"),
        ({"injection_time": datetime(2019, 1, 15, 10, 0)}, "before the scan"),
    ],
)
def test_an_impossible_value_of_the_user_is_refused(options, named):
    assert named in refusal_of(pet_slices(), **options)


def test_an_unusual_value_of_the_user_has_a_line():
    """10 mCi given as MBq, and pounds as kg."""
    assert "0.14 MBq per kg" in factor_of(pet_slices(), dose_mbq=10)[1][1]
    _, lines = factor_of(pet_slices(PatientSize="1.75"), weight_kg=154)
    assert "pounds" in lines[1]


def test_a_given_date_needs_dates_in_the_headers():
    slices = pet_slices(SeriesDate=None, AcquisitionDate=None)
    message = refusal_of(slices, injection_time=datetime(2020, 1, 15, 10, 0))
    assert "time of day alone" in message


ALL = {"weight_kg": 80.0, "dose_mbq": 200.0, "injection_time": TEN}


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({"Units": "GML"}, ALL),
        ({"DecayCorrection": "ADMIN"}, ["injection_time"]),
        (
            {"Units": "GML", "SUVType": "IBW", "PatientSize": "1.75", "PatientSex": "M"},
            ["dose_mbq", "injection_time"],
        ),
        ({}, []),
    ],
)
def test_a_value_without_effect_is_said(changes, unused):
    _, lines = factor_of(pet_slices(**changes), **ALL)
    said = [line for line in lines if "has no effect" in line]
    assert len(said) == len(unused)
    assert all(any(f"--{name} " in line for line in said) for name in unused)


def test_several_injections_need_dose_and_time_of_the_user():
    slices = pet_slices()
    for header in slices.headers:
        items = list(header.RadiopharmaceuticalInformationSequence)
        header.RadiopharmaceuticalInformationSequence = [*items, *items]
    assert "--dose_mbq and --injection_time" in refusal_of(slices)
    assert "several" in refusal_of(slices, dose_mbq=350)
    assert factor_of(slices, dose_mbq=350, injection_time=TEN)[0] == pytest.approx(AT_SERIES)


def test_no_options_change_nothing():
    slices = pet_slices()
    for options in (None, DicomOptions(), DicomOptions(series="1.2.3")):
        factors, lines = suv_factors(slices, options)
        np.testing.assert_array_equal(factors, suv_factors(slices)[0])
        assert lines == []


def test_a_given_weight_takes_philips_factor_of_activity():
    """The factor of SUV holds the scanner's own weight."""

    def edit(header, index):
        header.add_new((0x7053, 0x1000), "DS", "0.003")
        header.add_new((0x7053, 0x1009), "DS", "2")

    slices = pet_slices(2, edit, Units="CNTS", Manufacturer="Philips", DecayCorrection="ADMIN")
    assert factor_of(slices) == (0.003, [])
    factor, lines = factor_of(slices, weight_kg=35)
    assert factor == pytest.approx(2 * AT_INJECTION / 2)
    assert len(lines) == 1
