"""References of DICOM objects to the frames of multi-frame images (enhanced and converted PET).

An object is first written as if each frame were an image of its own, under a UID that stands in for
it. Then the references are replaced: by file and frame number, or by the file alone in lists of all
images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.series import import_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

_SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class Frame:
    """A frame of a multi-frame image.

    Attributes:
        class_uid, instance_uid: of its file.
        number: from 1.
    """

    class_uid: str
    instance_uid: str
    number: int

    @property
    def stand_in(self) -> str:
        """UID that stands in for the frame, the same at every call."""
        from pydicom.uid import generate_uid

        return generate_uid(entropy_srcs=[self.instance_uid, str(self.number)])


def frames_of(pet: DicomPet) -> list[Frame | None]:
    """Frame of each slice of a series, in the order of its headers; None of single-frame files.

    Raises:
        MipError: a file does not tell which of its frames a slice is.
    """
    uids = [str(header.get("SOPInstanceUID") or "").strip() for header in pet.headers]
    known: dict[Path, list[np.ndarray]] = {}
    frames: list[Frame | None] = []
    for path, header, uid in zip(pet.files, pet.headers, uids):
        if uids.count(uid) == 1 and int(header.get("NumberOfFrames") or 1) == 1:
            frames.append(None)
            continue
        if path not in known:
            known[path] = _positions(path)
        place = np.array(header.ImagePositionPatient, float)
        found = [
            number
            for number, position in enumerate(known[path], start=1)
            if np.abs(position - place).max() < _SAME_POSITION_MM
        ]
        if len(found) != 1:
            raise MipError(
                f"{path}: {len(found)} of its frames lie at one position of the series, so no "
                "DICOM object can refer to them; export the series as one file a slice"
            )
        frames.append(Frame(str(header.get("SOPClassUID") or ""), uid, found[0]))
    return frames


def _positions(path: Path) -> list[np.ndarray]:
    """Position of each frame of a multi-frame file."""
    pydicom = import_pydicom()
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    positions = []
    for frame in header.get("PerFrameFunctionalGroupsSequence") or []:
        for plane in frame.get("PlanePositionSequence") or []:
            positions.append(np.array(plane.ImagePositionPatient, float))
    return positions


def refer_to_frames(data: "Dataset", frames: Mapping[str, Frame]) -> None:
    """Replace the stand-ins in the references of an object.

    Args:
        data: the object; is changed.
        frames: stand-in → frame.
    """
    if not frames:
        return
    for element in data:
        if element.VR != "SQ":
            continue
        element.value = _replaced(element.value, frames)
        for item in element.value:
            refer_to_frames(item, frames)


def _replaced(items: Sequence["Dataset"], frames: Mapping[str, Frame]) -> list["Dataset"]:
    """Items of a sequence of references; a list of several images has each file once."""
    kept, seen = [], set()
    for item in items:
        frame = frames.get(str(item.get("ReferencedSOPInstanceUID") or ""))
        if frame is not None:
            if len(items) > 1 and frame.instance_uid in seen:
                continue
            seen.add(frame.instance_uid)
            item.ReferencedSOPClassUID = frame.class_uid
            item.ReferencedSOPInstanceUID = frame.instance_uid
            if len(items) == 1:
                item.ReferencedFrameNumber = frame.number
        kept.append(item)
    return kept
