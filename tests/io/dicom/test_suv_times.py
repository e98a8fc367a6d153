"""Decay reference and uptake time: series time, frames, private scan starts, dates, midnight."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from pet_headers import AT_INJECTION, AT_SERIES, factor_of, pet_slices, refusal_of

from nnunetv2_mip.io.dicom.suv import suv_factors

HALF_LIFE_S = 6600.0


def clock(seconds: float) -> str:
    """DICOM time of day."""
    whole, fraction = divmod(round(seconds * 1e6), 10**6)
    return f"{whole // 3600:02d}{whole // 60 % 60:02d}{whole % 60:02d}.{fraction:06d}"


def at(hours: int, minutes: float) -> float:
    return hours * 3600 + minutes * 60


def mean_moment_s(duration_s: float) -> float:
    """When a decaying source has its mean rate over a frame, by definition of the mean."""
    rate = math.log(2) / HALF_LIFE_S
    mean = (1 - math.exp(-rate * duration_s)) / (rate * duration_s)
    return -math.log(mean) / rate


def beds(start_s: float, minutes: float = 3, duration_s: float = 170, offset: bool = True):
    """Edit of headers whose beds follow each other, with the Frame Reference Time of `start_s`."""

    def edit(header, index):
        header.AcquisitionTime = clock(start_s + 120 + index * 60 * minutes)
        header.ActualFrameDuration = str(round(duration_s * 1000))
        since = 120 + index * 60 * minutes + mean_moment_s(duration_s)
        header.FrameReferenceTime = f"{since * 1000:.6f}" if offset else "0"

    return edit


@pytest.mark.parametrize("series", ["180000", "115500", "115130"])
def test_a_late_series_time_gives_way_to_the_frames(series):
    """The reference is 11:50, the first acquisition 11:52."""
    factor, lines = factor_of(pet_slices(4, beds(at(11, 50)), SeriesTime=series))
    assert factor == pytest.approx(AT_SERIES, rel=1e-6)
    (line,) = lines
    assert "11:50:00" in line


@given(
    start_s=st.floats(at(10, 20), at(13, 0)),
    minutes=st.floats(1, 6),
    duration_s=st.floats(30, 600),
    late_s=st.floats(200, 7200),
)
def test_the_reference_comes_back_from_any_frames(start_s, minutes, duration_s, late_s):
    edit = beds(start_s, minutes, duration_s)
    slices = pet_slices(3, edit, SeriesTime=clock(start_s + 120 + late_s))
    right = AT_INJECTION * 2 ** ((start_s - at(10, 0)) / HALF_LIFE_S)
    assert factor_of(slices)[0] == pytest.approx(right, rel=1e-6)


def test_a_series_time_far_before_the_frames_gives_way_to_them():
    factor, lines = factor_of(pet_slices(4, beds(at(11, 50)), SeriesTime="103000"))
    assert factor == pytest.approx(AT_SERIES, rel=1e-6)
    (line,) = lines
    assert "80.0 min before" in line


def test_one_frame_is_no_evidence_against_the_series_time():
    def edit(header, index):
        header.AcquisitionTime, header.FrameReferenceTime = "115200", "60000"

    factor, lines = factor_of(pet_slices(4, edit))
    assert (factor, lines) == (pytest.approx(AT_SERIES), [])


def test_beds_with_one_acquisition_time_leave_the_series_time():
    """Philips writes the first bed's time in all slices, and the offset of each bed."""

    def edit(header, index):
        header.AcquisitionTime = "115001"
        header.FrameReferenceTime = str(60000 + 120000 * index)

    factor, lines = factor_of(pet_slices(4, edit))
    assert (factor, lines) == (pytest.approx(AT_SERIES), [])
    factor, lines = factor_of(pet_slices(4, edit, SeriesTime="180000"))
    assert factor == pytest.approx(AT_INJECTION * 2 ** (6601 / 6600))
    assert "first acquisition" in lines[0]


def test_offsets_of_zero_are_none():
    slices = pet_slices(4, beds(at(11, 50), offset=False), SeriesTime="180000")
    factor, lines = factor_of(slices)
    assert factor == pytest.approx(AT_INJECTION * 2 ** (6720 / 6600))
    assert "first acquisition" in lines[0]


def test_ge_counts_to_the_start_of_the_frame():
    def edit(header, index):
        header.AcquisitionTime = clock(at(11, 52 + 3 * index))
        header.FrameReferenceTime = str(120000 + 180000 * index)

    late = {"SeriesTime": "180000", "Manufacturer": "GE MEDICAL SYSTEMS"}
    factor, _ = factor_of(pet_slices(4, edit, **late, ActualFrameDuration=None))
    assert factor == pytest.approx(AT_SERIES)
    other = pet_slices(4, edit, SeriesTime="180000", ActualFrameDuration=None)
    assert "Actual Frame Duration (0018,1242)" in refusal_of(other)


@pytest.mark.parametrize("creator", [True, False])
@pytest.mark.parametrize(
    ("group", "element", "name", "manufacturer"),
    [
        (0x0009, 0x0D, "GEMS_PETD_01", "GE MEDICAL SYSTEMS"),
        (0x0071, 0x22, "SIEMENS MED PT", "SIEMENS"),
    ],
)
def test_a_private_scan_start_counts_where_the_series_was_made_later(
    creator, group, element, name, manufacturer
):
    def edit(header, index):
        if creator:
            header.add_new((group, 0x0010), "LO", name)
        header.add_new((group, 0x1000 | element), "DT", "20200115115000.00")
        header.AcquisitionTime = "121500"

    late = pet_slices(2, edit, SeriesTime="170000", Manufacturer=manufacturer)
    factor, lines = factor_of(late)
    assert factor == pytest.approx(AT_SERIES)
    assert "scan start 11:50:00" in lines[0]


@pytest.mark.parametrize("text", ["REMOVED", "20200115123000", "20200115060000"])
def test_a_private_scan_start_that_cannot_be_is_left(text):
    def edit(header, index):
        header.add_new((0x0009, 0x100D), "LO", text)

    late = pet_slices(2, edit, SeriesTime="170000", Manufacturer="GE MEDICAL SYSTEMS")
    factor, lines = factor_of(late)
    assert factor == pytest.approx(AT_SERIES)
    assert "first acquisition" in lines[0]


@pytest.mark.parametrize("absent", ["SeriesDate", "AcquisitionDate"])
def test_a_late_series_is_seen_where_one_date_was_removed(absent):
    factor, lines = factor_of(pet_slices(SeriesTime="170000", **{absent: None}))
    assert factor == pytest.approx(AT_SERIES)
    assert "first acquisition" in lines[0]


def test_without_a_series_time_the_frames_tell_the_reference():
    factor, lines = factor_of(pet_slices(4, beds(at(11, 50)), SeriesTime=None))
    assert factor == pytest.approx(AT_SERIES, rel=1e-6)
    (line,) = lines
    assert "Series Time (0008,0031)" in line
    assert "Series Time (0008,0031)" in refusal_of(pet_slices(SeriesTime=None))


def test_a_frame_duration_in_seconds():
    raw = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
    milliseconds = suv_factors(pet_slices(ActualFrameDuration="240000", **raw))[0]
    np.testing.assert_allclose(
        suv_factors(pet_slices(ActualFrameDuration="240", **raw))[0], milliseconds
    )


def test_beds_on_both_sides_of_midnight_without_decay_correction():
    times = ["235500", "000500"]

    def edit(header, index):
        header.AcquisitionTime = times[index]

    undated = {"SeriesDate": None, "AcquisitionDate": None, "SeriesTime": "235500"}
    raw = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "2000"}
    tracer = {"RadiopharmaceuticalStartTime": "220500"}
    factors, lines = suv_factors(pet_slices(2, edit, tracer, **undated, **raw))
    right = AT_SERIES * 2 ** (np.array([1, 601]) / 6600)
    np.testing.assert_allclose(factors, right, rtol=1e-6)
    assert lines == []


def test_slices_of_several_days_are_refused_without_decay_correction():
    def edit(header, index):
        header.AcquisitionDate = ["20200115", "20200117"][index]

    raw = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
    assert "48.0 h apart" in refusal_of(pet_slices(2, edit, **raw))


def test_an_acquisition_date_that_was_replaced():
    """Midnight between injection and scan; only the series and the injection kept their dates."""
    tracer = {
        "RadiopharmaceuticalStartDateTime": "20200114233000",
        "RadiopharmaceuticalStartTime": "233000",
    }
    for day in ("19000101", "20000101", "20990101"):
        slices = pet_slices(
            tracer=tracer, SeriesTime="012000", AcquisitionTime="012000", AcquisitionDate=day
        )
        assert factor_of(slices)[0] == pytest.approx(AT_SERIES)


@pytest.mark.parametrize(
    ("injected", "scan"),
    [("120000", "115000"), ("170000", "110000"), ("220000", "115000"), ("000000", "110000")],
)
def test_a_scan_before_the_injection_or_long_after_it_is_refused(injected, scan):
    """Midnight is assumed between them for hours, not for most of a day."""
    times = {"SeriesTime": scan, "AcquisitionTime": scan}
    message = refusal_of(pet_slices(tracer={"RadiopharmaceuticalStartTime": injected}, **times))
    assert "half-lives" in message and "--injection_time" in message


@given(
    start=st.datetimes(datetime(2001, 1, 1), datetime(2030, 1, 1)),
    uptake_s=st.integers(360, 5 * 3600),
    kind=st.sampled_from(["dated", "clock", "undated", "shifted"]),
)
def test_suv_does_not_depend_on_the_hour_or_the_day(start, uptake_s, kind):
    """Midnight between injection and scan, dates that are absent, and dates that were shifted."""
    start = start.replace(microsecond=0)
    scan = start + timedelta(seconds=uptake_s)
    moment = start + timedelta(days=400) if kind == "shifted" else start
    tracer = {
        "RadiopharmaceuticalStartTime": None if kind == "dated" else f"{start:%H%M%S}",
        "RadiopharmaceuticalStartDateTime": f"{moment:%Y%m%d%H%M%S}",
    }
    if kind in ("clock", "undated"):
        tracer["RadiopharmaceuticalStartDateTime"] = None
    day = None if kind == "undated" else f"{scan:%Y%m%d}"
    times = {"SeriesTime": f"{scan:%H%M%S}", "AcquisitionTime": f"{scan:%H%M%S}"}
    slices = pet_slices(tracer=tracer, SeriesDate=day, AcquisitionDate=day, **times)
    factor, lines = factor_of(slices)
    assert factor == pytest.approx(AT_INJECTION * 2 ** (uptake_s / HALF_LIFE_S))
    assert len(lines) == (kind == "shifted")


def test_a_dated_injection_after_the_scan_is_refused():
    tracer = {"RadiopharmaceuticalStartDateTime": "20200115123000"}
    tracer["RadiopharmaceuticalStartTime"] = None
    assert "half-lives" in refusal_of(pet_slices(tracer=tracer))


@pytest.mark.parametrize(
    ("injected", "said"), [("050000", "6.8 h"), ("114900", "1 min"), ("063000", None)]
)
def test_an_unusual_delay_has_a_line(injected, said):
    _, lines = factor_of(pet_slices(tracer={"RadiopharmaceuticalStartTime": injected}))
    assert [said in line for line in lines] == ([True] if said else [])


def test_two_times_of_injection_that_differ_have_a_line():
    tracer = {
        "RadiopharmaceuticalStartDateTime": "20200115100000",
        "RadiopharmaceuticalStartTime": "103000",
    }
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert "(0018,1078)" in line and "(0018,1072)" in line
    tracer["RadiopharmaceuticalStartTime"] = "100030"
    assert factor_of(pet_slices(tracer=tracer))[1] == []


@pytest.mark.filterwarnings("ignore:.*(TM|time).*:UserWarning")
def test_a_time_of_injection_that_was_replaced_by_a_text():
    tracer = {"RadiopharmaceuticalStartTime": "REMOVED"}
    assert "(0018,1072) is no time" in refusal_of(pet_slices(tracer=tracer))
    tracer["RadiopharmaceuticalStartDateTime"] = "20200115100000"
    assert factor_of(pet_slices(tracer=tracer)) == (pytest.approx(AT_SERIES), [])


def test_a_zone_that_the_headers_do_not_have_leaves_the_time_of_day():
    """08:00 UTC and 10:00 on the scanner's clock are one moment."""
    tracer = {
        "RadiopharmaceuticalStartDateTime": "20200115080000+0000",
        "RadiopharmaceuticalStartTime": "100000",
    }
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert "2020-01-15 10:00:00 is used" in line
    assert factor_of(pet_slices(tracer=tracer, TimezoneOffsetFromUTC="+0200"))[1] == []


ZIRCONIUM = {"RadionuclideHalfLife": "282276", "RadionuclideTotalDose": "37000000"}


@pytest.mark.parametrize(
    "start", [None, "20210704100000", "20200116100000"], ids=["none", "shifted", "later"]
)
def test_a_nuclide_of_days_needs_the_day_of_injection(start):
    tracer = {**ZIRCONIUM, "RadiopharmaceuticalStartDateTime": start}
    message = refusal_of(pet_slices(tracer=tracer))
    assert "--injection_time" in message
    undated = pet_slices(tracer=tracer, SeriesDate=None, AcquisitionDate=None)
    assert "--injection_time" in refusal_of(undated)


def test_days_between_injection_and_scan():
    start = {"RadiopharmaceuticalStartDateTime": "20200110115000"}
    tracer = {**ZIRCONIUM, **start, "RadiopharmaceuticalStartTime": None}
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(70e3 / 37e6 * 2 ** (5 * 86400 / 282276))
    assert lines == []


def test_a_nuclide_of_half_a_day_has_a_line_for_the_day():
    tracer = {"RadionuclideHalfLife": "45720"}
    _, lines = factor_of(pet_slices(tracer=tracer))
    (line,) = lines
    assert "day of injection" in line


@pytest.mark.parametrize(
    ("keyword", "values", "option"),
    [
        ("RadionuclideTotalDose", ("350000000", "300000000"), {"dose_mbq": 350}),
        ("RadionuclideHalfLife", ("6600", "4062"), None),
        ("RadiopharmaceuticalStartTime", ("100000", "101500"), None),
    ],
)
def test_slices_of_two_injections_are_no_series(keyword, values, option):
    def edit(header, index):
        setattr(header.RadiopharmaceuticalInformationSequence[0], keyword, values[index])

    assert "is this one series?" in refusal_of(pet_slices(edit=edit))
    if option is not None:
        factor, _ = factor_of(pet_slices(edit=edit), **option)
        assert factor == pytest.approx(AT_SERIES, rel=1e-6)


def test_slices_of_two_patients_are_no_series():
    slices = pet_slices(edit=lambda header, index: setattr(header, "PatientID", "AB"[index]))
    assert "Patient ID (0010,0020) is B, in slice_0.dcm it is A" in refusal_of(slices)


@pytest.mark.parametrize("zone", [None, "+0000"])
def test_a_time_zone_of_the_injection_alone_is_told(zone):
    tracer = {
        "RadiopharmaceuticalStartTime": None,
        "RadiopharmaceuticalStartDateTime": "20200115100000.000000+0000",
    }
    factor, lines = factor_of(pet_slices(tracer=tracer, TimezoneOffsetFromUTC=zone))
    assert factor == pytest.approx(AT_SERIES, rel=1e-6)
    assert [line for line in lines if "time zone" in line and "--injection_time" in line] == (
        lines if zone is None else []
    )
    assert len(lines) == (zone is None)


@pytest.mark.parametrize("dated", ["20200115000000", "20200115"])
def test_a_start_whose_time_of_day_was_removed_leaves_it_to_the_other_element(dated):
    tracer = {
        "RadiopharmaceuticalStartDateTime": dated,
        "RadiopharmaceuticalStartTime": "100000",
    }
    factor, lines = factor_of(pet_slices(tracer=tracer))
    assert factor == pytest.approx(AT_SERIES)
    (line,) = lines
    assert "2020-01-15 10:00:00 is used" in line
