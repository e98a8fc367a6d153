"""Headers of a PET series in memory: 70 kg, 350 MBq of fluorine-18, one half-life before the scan.

SUV per Bq/ml is 0.0002 at the injection, and 0.0004 at the series time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.series import Slices
from nnunetv2_mip.io.dicom.suv import suv_factors
from nnunetv2_mip.io.grid import SourceGrid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

AT_INJECTION, AT_SERIES = 0.0002, 0.0004
INJECTION = {
    "RadiopharmaceuticalStartTime": "100000",
    "RadionuclideTotalDose": "350000000",
    "RadionuclideHalfLife": "6600",
}
HEADER = {
    "Modality": "PT",
    "PatientWeight": "70",
    "SeriesDate": "20200115",
    "SeriesTime": "115000",
    "AcquisitionDate": "20200115",
    "AcquisitionTime": "115000",
    "ActualFrameDuration": "240000",
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["DECY", "ATTN", "SCAT"],
}


def pet_slices(
    count: int = 2,
    edit: Callable[["Dataset", int], None] | None = None,
    tracer: dict | None = None,
    **changes,
) -> Slices:
    """Slices without files.

    Args:
        edit: called with each header and its index, last.
        tracer: changes of the item of the injection.
        changes: of the header; None removes an element, as in `tracer`.
    """
    from pydicom.dataset import Dataset

    headers = []
    for index in range(count):
        header, item = Dataset(), Dataset()
        _fill(item, {**INJECTION, **(tracer or {})})
        _fill(header, {"RadiopharmaceuticalInformationSequence": [item], **HEADER, **changes})
        if edit is not None:
            edit(header, index)
        headers.append(header)
    files = tuple(Path(f"slice_{index}.dcm") for index in range(count))
    grid = SourceGrid(
        size=(4, 4, count),
        spacing=(1.0, 1.0, 1.0),
        origin=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    return Slices(files, tuple(headers), grid)


def _fill(data: "Dataset", values: dict) -> None:
    for keyword, value in values.items():
        if value is not None:
            setattr(data, keyword, value)


def factor_of(slices: Slices, **options) -> tuple[float, list[str]]:
    """The one factor of all slices, and the lines."""
    factors, lines = suv_factors(slices, DicomOptions(**options))
    assert factors.shape == (len(slices.headers),)
    assert (factors == factors[0]).all()
    return float(factors[0]), lines


def refusal_of(slices: Slices, **options) -> str:
    """Error line of slices that give no SUV."""
    with pytest.raises(MipError) as caught:
        suv_factors(slices, DicomOptions(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)
