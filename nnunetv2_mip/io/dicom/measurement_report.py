"""DICOM structured report (SR, TID 1500) with the measurements of lesions.

Each lesion is a measurement group (TID 1411) that refers to its segment of a SEG.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nnunetv2_mip
from nnunetv2_mip.io.dicom.seg import SEGMENT_LABEL, import_highdicom, new_instance
from nnunetv2_mip.io.dicom.source_headers import SourceHeaders, quiet_pydicom

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from highdicom.sr import Comprehensive3DSR

_SERIES_NUMBER = 9003
# Of the device that observed: one for this program, as the standard wants a UID.
_DEVICE_UID = "2.25.312718349812375209867125648102381264783"


def measurement_report(
    rows: Sequence[Mapping], seg: "Segmentation", sources: SourceHeaders
) -> "Comprehensive3DSR":
    """SR of a lesion table: volume, SUVmax, SUVmean and total lesion glycolysis of each lesion.

    Without lesions the SR says that neoplasm is absent.

    Args:
        rows: of the lesion table; row n is segment n + 1.
        seg: the SEG with one segment a lesion.
        sources: headers of the PET series.
    """
    import_highdicom()
    from highdicom import sr
    from pydicom.sr.codedict import codes

    name = "nnunetv2_mip"
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=_DEVICE_UID,
            name=name,
            manufacturer_name=name,
            model_name=name,
            serial_number="1",
        ),
    )
    with quiet_pydicom():
        groups = [_group(row, seg, segment) for row, segment in zip(rows, seg.SegmentSequence)] or [
            _nothing_found(sources)
        ]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.cid100.PETUnspecifiedBodyRegion,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        return sr.Comprehensive3DSR(
            evidence=[*sources.slices, seg],
            content=content,
            **new_instance(_SERIES_NUMBER),
            series_description="Lesion measurements (MIP)",
            is_complete=True,
        )


def _group(row: Mapping, seg: "Segmentation", segment: Any) -> Any:
    """Measurement group of one lesion."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    # Of the unit SUV by body weight: g/ml.
    suv, uptake = codes.UCUM.StandardizedUptakeValueBodyWeight, codes.DCM.Suvbw
    values: list[tuple[Any, Any, Any, Any]] = [
        (codes.SCT.Volume, row["volume_ml"], _unit("ml", "milliliter"), None),
        (uptake, row["suv_max"], suv, codes.SCT.Maximum),
        (uptake, row["suv_mean"], suv, codes.SCT.Mean),
        (codes.DCM.TotalLesionGlycolysis, row["tlg"], _unit("g", "gram"), None),
    ]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=segment.TrackingUID, identifier=segment.TrackingID
        ),
        # Not by its `from_segmentation`, which fails where a SEG has a single frame.
        referenced_segment=sr.ReferencedSegment(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            int(segment.SegmentNumber),
            source_series=sr.SourceSeriesForSegmentation(
                seg.ReferencedSeriesSequence[0].SeriesInstanceUID
            ),
        ),
        finding_type=codes.SCT.Neoplasm,
        algorithm_id=_algorithm(),
        measurements=[
            sr.Measurement(name=name, value=float(value), unit=unit, derivation=derivation)
            for name, value, unit, derivation in values
            if value is not None
        ],
    )


def _nothing_found(sources: SourceHeaders) -> Any:
    """Group that says that there is no lesion; a report must have a group."""
    from highdicom import sr
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    middle = sources.slices[len(sources.slices) // 2]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=import_highdicom().UID(), identifier=SEGMENT_LABEL
        ),
        finding_type=codes.SCT.Neoplasm,
        algorithm_id=_algorithm(),
        source_images=[
            sr.SourceImageForMeasurementGroup(middle.SOPClassUID, middle.SOPInstanceUID)
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                name=CodedConcept("705057003", "SCT", "Presence"), value=codes.SCT.Absent
            )
        ],
    )


def _algorithm() -> Any:
    from highdicom import sr

    return sr.AlgorithmIdentification("nnunetv2_mip", nnunetv2_mip.__version__)


def _unit(code: str, meaning: str) -> Any:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(code, "UCUM", meaning)
