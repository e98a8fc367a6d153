"""Geometry fields of a NIfTI header: voxel size, qform, sform, unit."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# Places and types of the fields in a NIfTI-1 header (nifti1.h), little endian.
_FIELDS = np.dtype(
    {
        "names": ["pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow"],
        "formats": ["<4f4", "u1", "<i2", "<i2", "<3f4", "<3f4", "<12f4"],
        "offsets": [76, 123, 252, 254, 256, 268, 280],
        "itemsize": 348,
    }
)
HEADER_BYTES = _FIELDS.itemsize
# ITK writes both forms, coded as those of the scanner.
ITK_CODE = 1


@dataclass(frozen=True)
class NiftiForms:
    """Geometry fields of a NIfTI header as they are stored, whatever they say.

    Attributes:
        qform_code, sform_code: 0 where the form is not set.
        pixdim: qfac, and the voxel size along i, j, k.
        quatern: b, c and d of the qform.
        qoffset: offsets of the qform.
        srow: rows x, y and z of the sform.
        xyzt_units: code of the units.
        is_plain: the two forms and the voxel size agree, and the unit is mm: ITK reads the file
            as it should be.
        is_exact: besides, ITK writes the same numbers for the same grid.
    """

    qform_code: int
    sform_code: int
    pixdim: tuple[float, ...]
    quatern: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]
    xyzt_units: int
    is_plain: bool = field(default=False, compare=False)
    is_exact: bool = field(default=False, compare=False)

    def to_dict(self) -> dict:
        """Content for a JSON file; floats that JSON has no text for (NaN) as null."""
        content = asdict(self)
        del content["is_plain"], content["is_exact"]
        return {
            key: [float(v) if np.isfinite(v) else None for v in value]
            if isinstance(value, tuple)
            else value
            for key, value in content.items()
        }

    @classmethod
    def from_dict(cls, content: dict) -> "NiftiForms":
        """Inverse of `to_dict`."""
        values: dict[str, Any] = {
            key: tuple(np.nan if v is None else v for v in value)
            if isinstance(value, list)
            else value
            for key, value in content.items()
        }
        return cls(**values)

    def put_into(self, header: bytes) -> bytes:
        """Header of a NIfTI-1 file (348 bytes, little endian) with these fields for its own."""
        fields = np.frombuffer(header[:HEADER_BYTES], _FIELDS).copy()
        for name in _FIELDS.names or ():
            fields[name][0] = getattr(self, name)
        # Copied by field: the bytes between them are no part of the record.
        content = bytearray(header)
        for name in _FIELDS.names or ():
            offset = _FIELDS.fields[name][1]  # type: ignore[index]
            raw = fields[name].tobytes()
            content[offset : offset + len(raw)] = raw
        return bytes(content)
