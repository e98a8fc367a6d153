"""SUV of IBSI's digital reference objects, and of the vendor headers of calculate-suv."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("pydicom")

from pet_headers import factor_of, pet_slices

from nnunetv2_mip.io.dicom.find_series import find_series, sort_slices
from nnunetv2_mip.io.dicom.pet import read_dicom_pet
from nnunetv2_mip.io.dicom.series import number_of
from nnunetv2_mip.io.dicom.suv import suv_factors

# github.com/oncoray/suv_computation: the right answer in every object.
MINIMUM, MEDIAN, MAXIMUM = 0.20, 1.00, 4.00
OBJECTS = (
    ["0_0", "1_0", "2_0", "2_1", "2_3", "2_4"]
    + ["3_0", "3_1", "3_2", "3_3", "3_4"]
    + ["4_0", "4_2"]
)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_reference_object_has_its_suv(name):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    folder = Path(data) / "suv_dro" / f"DRO_{name}"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    suv = read_dicom_pet(folder / "PT").suv.array
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask" / "DRO_mask.nii.gz"))) > 0
    (series,) = find_series(folder / "PT")
    slices = sort_slices(series)
    # The objects cut their values off at a whole stored value: 0.038 SUV in 2_3, 0.001 in 2_1.
    slopes = [number_of(h, "RescaleSlope", p) for h, p in zip(slices.headers, slices.files)]
    step = float((suv_factors(slices)[0] * slopes).max())
    found = suv[mask].min(), float(np.median(suv[mask])), suv[mask].max()
    for value, right in zip(found, (MINIMUM, MEDIAN, MAXIMUM)):
        assert right - step - 0.001 * right <= value <= right + 0.001 * right


def philips(suv: str | None, activity: str | None = None, creator: bool = True):
    """Edit of a header that adds Philips' private factors."""

    def edit(header, index):
        if creator:
            header.add_new((0x7053, 0x0010), "LO", "Philips PET Private Group")
        for number, value in ((0x1000, suv), (0x1009, activity)):
            if value is not None:
                header.add_new((0x7053, number), "DS", value)

    return edit


# github.com/cornerstonejs/calculate-suv, test/metadata: weight, dose, half-life, injection (date
# and time), series time, acquisition time, Frame Reference Time, duration; factor published there.
VENDORS = {
    "SIEMENS": (67, 374e6, 6586.2, "20201217083045", "104829", "104830.351370", 38513.36, 74324)
    + (0.00042748316187197236,),
    "GE": (52, 152022720, 6586.2002, "20201217084500", "095621", "095621", 0, 120000)
    + (0.0005367387681819742,),
    "PHILIPS_BQML": (64, 126e6, 6586.1997, "20201217100058", "110155", "110156", 1328700, 120700)
    + (0.0007463747013889488,),
    "SIEMENS, series after acquisition": (65, 225e6, 6586.2, "114100", "123515", "123514.999995")
    + (59936.854672596, 120000, 0.0004069156854009332),
    "CPS, series after acquisition": (69, 388e6, 6586.2, "120037", "134918", "130348.234000")
    + (0, 180000, 0.00026503312764157046),
    "no date of injection": (102, 412e6, 6586.2, "125000", "135431.843000", "141555.687000")
    + (1372857.9232493, 180000, 0.0003721089202818729),
}


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendors_header_has_its_published_factor(name):
    kg, dose, half_life, injected, series, acquired, offset, duration, published = VENDORS[name]
    dated = len(injected) > 6
    tracer = {
        "RadiopharmaceuticalStartDateTime": injected if dated else None,
        "RadiopharmaceuticalStartTime": injected[-6:],
        "RadionuclideTotalDose": str(dose),
        "RadionuclideHalfLife": str(half_life),
    }
    slices = pet_slices(
        3,
        tracer=tracer,
        PatientWeight=str(kg),
        SeriesDate="20201217",
        AcquisitionDate="20201217",
        SeriesTime=series,
        AcquisitionTime=acquired,
        FrameReferenceTime=str(offset),
        ActualFrameDuration=str(duration),
        Manufacturer="GE MEDICAL SYSTEMS" if name == "GE" else name,
    )
    assert factor_of(slices)[0] == pytest.approx(published, rel=1e-5)


@pytest.mark.parametrize("creator", [True, False])
@pytest.mark.parametrize(
    ("suv", "activity", "published"),
    [("0.000551", "1.602563", 0.000551), ("0.000728", None, 0.000728)],
)
def test_philips_counts_have_their_published_factor(creator, suv, activity, published):
    edit = philips(suv, activity, creator)
    slices = pet_slices(3, edit, Units="CNTS", Manufacturer="Philips Medical Systems")
    assert factor_of(slices) == (published, [])
