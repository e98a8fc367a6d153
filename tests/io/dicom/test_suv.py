"""SUV of a PET series: hand-computed values for every rule, refusals that name file and tag."""

import numpy as np
import pytest

pytest.importorskip("pydicom")

from nnunetv2_mip.io.dicom.pet import read_dicom_pet


def test_admin_is_already_at_injection(tmp_path, write_series, assert_suv, known):
    write_series(tmp_path, DecayCorrection="ADMIN")
    assert_suv(tmp_path, known.at_injection)


def test_without_correction_every_slice_has_its_own_moment(
    tmp_path, write_series, assert_suv, known
):
    """Frames of 2 s, so short that their mean moment is their middle, 3 minutes apart."""
    write_series(
        tmp_path, DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration="2000"
    )
    after_s = np.array([0, 3, 6, 9]) * 60 + 1
    factors = known.one_half_life * 2 ** (after_s / 6600)
    assert_suv(tmp_path, factors[:, None, None])


def test_without_correction_long_frames_count_at_their_mean_rate(
    tmp_path, write_series, assert_suv, known
):
    """A frame of one half-life T: its mean rate is 1 / (2 ln 2) of the rate at its start."""
    write_series(
        tmp_path,
        DecayCorrection="NONE",
        CorrectedImage=["ATTN"],
        ActualFrameDuration="6600000",
        AcquisitionTime="115000",
    )
    assert_suv(tmp_path, known.one_half_life * 2 * np.log(2))


@pytest.mark.parametrize(
    ("missing", "named"),
    [("AcquisitionTime", "(0008,0032)"), ("ActualFrameDuration", "(0018,1242)")],
)
def test_without_correction_the_moment_must_be_known(
    missing, named, tmp_path, write_series, refused
):
    write_series(tmp_path, DecayCorrection="NONE", CorrectedImage=None, **{missing: None})
    assert named in refused(tmp_path)


def test_gml_is_suv(tmp_path, write_series, assert_suv, refused):
    write_series(tmp_path, Units="GML", PatientWeight=None, DecayCorrection=None)
    assert_suv(tmp_path, 1.0)
    write_series(tmp_path / "lean", Units="GML", SUVType="LBM")
    assert "(0054,1006)" in refused(tmp_path / "lean")


def philips(**factors):
    """Edit of a header that adds Philips' private factors `suv` and `activity`."""

    def edit(data, index):
        block = data.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, value in factors.items():
            block.add_new({"suv": 0x00, "activity": 0x09}[element], "DS", value)

    return edit


def test_philips_counts(tmp_path, write_series, assert_suv, refused, known):
    write_series(tmp_path / "suv", Units="CNTS", edit=philips(suv="0.003", activity="9"))
    assert_suv(tmp_path / "suv", 0.003)
    write_series(tmp_path / "activity", Units="CNTS", edit=philips(suv="0", activity="2.5"))
    assert_suv(tmp_path / "activity", 2.5 * known.one_half_life)
    write_series(tmp_path / "neither", Units="CNTS")
    assert "(7053,1000)" in refused(tmp_path / "neither")


def test_injected_before_midnight_and_scanned_after_it(
    tmp_path, tracer, write_series, assert_suv, known
):
    late = tracer(RadiopharmaceuticalStartTime="233000")
    write_series(
        tmp_path,
        RadiopharmaceuticalInformationSequence=[late],
        SeriesTime="012000",
        AcquisitionTime="012000",
    )
    assert_suv(tmp_path, known.one_half_life)


def test_acquired_on_both_sides_of_midnight_without_dates(
    tmp_path, tracer, write_series, assert_suv, known
):
    times = ["235500", "235900", "000300", "000700"]

    def edit(data, index):
        data.AcquisitionTime = times[index]

    item = tracer(RadiopharmaceuticalStartTime="220500")
    write_series(
        tmp_path,
        edit=edit,
        RadiopharmaceuticalInformationSequence=[item],
        SeriesTime="235500",
        SeriesDate=None,
        AcquisitionDate=None,
    )
    assert_suv(tmp_path, known.one_half_life)


@pytest.mark.parametrize("other", [None, "030000"])
def test_the_injection_date_and_time_come_first(
    other, tmp_path, tracer, write_series, assert_suv, known
):
    item = tracer(
        RadiopharmaceuticalStartTime=other,
        RadiopharmaceuticalStartDateTime="20200114233000.000000",
    )
    write_series(
        tmp_path,
        RadiopharmaceuticalInformationSequence=[item],
        SeriesTime="012000",
        AcquisitionTime="012000",
    )
    assert_suv(tmp_path, known.one_half_life)


def test_days_count_where_the_nuclide_lives_for_days(
    tmp_path, tracer, write_series, assert_suv, refused, known
):
    """Zirconium-like: one half-life of two days."""
    item = tracer(
        RadiopharmaceuticalStartDateTime="20200113115000", RadionuclideHalfLife=str(2 * 86400)
    )
    write_series(tmp_path / "dated", RadiopharmaceuticalInformationSequence=[item])
    assert_suv(tmp_path / "dated", known.one_half_life)
    item = tracer(RadionuclideHalfLife=str(2 * 86400))
    write_series(tmp_path / "undated", RadiopharmaceuticalInformationSequence=[item])
    assert "day of injection" in refused(tmp_path / "undated")


def test_a_time_zone_of_the_injection(tmp_path, tracer, write_series, assert_suv, known):
    item = tracer(
        RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20200115080000+0000"
    )
    write_series(
        tmp_path, RadiopharmaceuticalInformationSequence=[item], TimezoneOffsetFromUTC="+0200"
    )
    assert_suv(tmp_path, known.one_half_life)


def test_an_injection_date_that_cannot_be_leaves_the_time_of_day(
    tmp_path, tracer, write_series, assert_suv, known
):
    item = tracer(RadiopharmaceuticalStartDateTime="20210704100000")
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[item])
    assert_suv(tmp_path, known.one_half_life)
    (line,) = read_dicom_pet(tmp_path).warnings
    assert "time of day" in line


def test_an_injection_after_the_scan_is_refused(tmp_path, tracer, write_series, refused):
    item = tracer(RadiopharmaceuticalStartTime="115500")
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[item])
    assert "half-lives" in refused(tmp_path)


def test_a_series_made_later_counts_from_its_acquisition(tmp_path, write_series, assert_suv, known):
    write_series(tmp_path / "any", SeriesTime="170000")
    assert_suv(tmp_path / "any", known.one_half_life)
    (line,) = read_dicom_pet(tmp_path / "any").warnings
    assert "first acquisition" in line

    def ge(data, index):
        block = data.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", "20200115115000.00")

    late = {"SeriesTime": "170000", "AcquisitionTime": "121500"}
    write_series(tmp_path / "ge", edit=ge, **late)
    assert_suv(tmp_path / "ge", known.one_half_life)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Units": None}, "Units (0054,1001)"),
        ({"Units": "PROPCPS"}, "PROPCPS"),
        ({"DecayCorrection": None}, "Decay Correction (0054,1102)"),
        ({"DecayCorrection": "SOON"}, "SOON"),
        ({"PatientWeight": None}, "Patient's Weight (0010,1030)"),
        ({"PatientWeight": ""}, "Patient's Weight (0010,1030)"),
        ({"PatientWeight": "0"}, "Patient's Weight (0010,1030) is 0"),
        ({"SeriesTime": None}, "Series Time (0008,0031)"),
        ({"SeriesTime": "99"}, "Series Time (0008,0031) is no time"),
        ({"SeriesDate": "2020-1"}, "Series Date (0008,0021) is no date"),
        ({"CorrectedImage": ["DECY"]}, "Corrected Image (0028,0051)"),
        ({"CorrectedImage": ["ATTN"]}, "Corrected Image (0028,0051)"),
        ({"RadiopharmaceuticalInformationSequence": None}, "(0054,0016)"),
        ({"RescaleSlope": None}, "Rescale Slope (0028,1053)"),
        ({"ImagePositionPatient": None}, "(0020,0032)"),
        ({"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, "oblique"),
        ({"PixelSpacing": [0, 2]}, "Pixel Spacing (0028,0030)"),
        ({"NumberOfFrames": 3}, "multi-frame"),
        ({"NumberOfFrames": "1", "SamplesPerPixel": 3}, "colour"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(TM|DA|time).*:UserWarning")
def test_what_suv_needs_is_named(changes, named, tmp_path, write_series, refused):
    paths = write_series(tmp_path, **changes)
    message = refused(tmp_path)
    assert named in message
    assert any(str(path) in message for path in paths)


def test_several_injections_are_refused(tmp_path, tracer, write_series, refused):
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[tracer(), tracer()])
    assert "(0054,0016)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"RadionuclideTotalDose": None}, "Radionuclide Total Dose (0018,1074)"),
        ({"RadionuclideTotalDose": "0"}, "Radionuclide Total Dose (0018,1074)"),
        ({"RadionuclideHalfLife": None}, "Radionuclide Half Life (0018,1075)"),
        ({"RadiopharmaceuticalStartTime": None}, "(0018,1072)"),
        ({"RadiopharmaceuticalStartTime": "noon"}, "(0018,1072)"),
        ({"RadiopharmaceuticalStartDateTime": "soon"}, "(0018,1078)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(TM|DT|time).*:UserWarning")
def test_what_suv_needs_of_the_injection_is_named(
    changes, named, tmp_path, tracer, write_series, refused
):
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[tracer(**changes)])
    assert named in refused(tmp_path)
