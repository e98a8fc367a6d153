"""Voxel grid of a NIfTI header, by the rule of nibabel, nilearn and FSL.

The sform counts where its code is set, else the qform, else the voxel size alone (pixdim). ITK has
another rule for headers that contradict themselves, so these are not left to it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.nifti import is_scalar
from nnunetv2_mip.io.nifti_forms import ITK_CODE, NiftiForms

# Codes of the spatial units (the low three bits of xyzt_units): mm for one of them. Code 0 is not
# known, and counts as mm everywhere.
_UNIT_MM = {1: 1000.0, 3: 0.001}
_UNIT_BITS = 7
# Forms and voxel sizes that differ by less than this share of a voxel, at every corner, say the
# same. (Programs write five digits of a voxel size.)
_SAME_VOXELS = 0.1
# A grid is left to ITK where its axes have this relative accuracy; ITK refuses others.
_ITK_ACCURACY = 1e-4
# b² + c² + d² of a qform is at most 1 but for rounding.
_QUATERNION_ROUNDING = 1e-3
# Headers that differ by less than this share, or by less than a micrometre, are equal.
_EQUAL, _EQUAL_MM = 2e-6, 1e-3


@dataclass(frozen=True)
class NiftiGeometry:
    """Geometry of a NIfTI file.

    Attributes:
        size: voxels along i, j, k, … (without trailing axes of one voxel beyond the third).
        values: number of values of a voxel.
        grid: of a 3D image, else None.
        warnings: reasons why the header is in doubt, without the name of the file.
    """

    size: tuple[int, ...]
    values: int
    grid: SourceGrid | None
    warnings: tuple[str, ...] = ()


def nifti_geometry(header: np.void, path: Path) -> NiftiGeometry:
    """Geometry of a header of `nifti.read_nifti_header`.

    Raises:
        MipError: it gives no voxel size.
    """
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise MipError(f"{path}: is damaged (its header has {count} dimensions); copy it again")
    dim = [max(1, int(n)) for n in header["dim"][1 : 1 + count]]
    values = 1 if is_scalar(header) else 3
    if count >= 5 and dim[3] == 1 and dim[4] > 1:
        # Vectors lie along the fifth axis.
        values, dim = dim[4], dim[:3]
    while len(dim) > 3 and dim[-1] == 1:
        dim.pop()
    if len(dim) != 3:
        return NiftiGeometry(tuple(dim), values, None)
    i, j, k = dim
    grid, warnings = _grid(header, (i, j, k), path)
    return NiftiGeometry((i, j, k), values, grid, tuple(warnings))


def _grid(header: np.void, size: tuple[int, int, int], path: Path) -> tuple[SourceGrid, list[str]]:
    forms = _forms(header)
    unit_mm = _UNIT_MM.get(forms.xyzt_units & _UNIT_BITS, 1.0)
    zooms = np.abs(np.array(forms.pixdim[1:])) * unit_mm
    has_zooms = bool(np.isfinite(zooms).all() and (zooms > 0).all())
    sform = _sform(forms, unit_mm) if forms.sform_code > 0 else None
    qform = _qform(forms, zooms, unit_mm) if forms.qform_code > 0 and has_zooms else None
    affine = sform if sform is not None else qform
    if affine is None:
        if not has_zooms:
            shown = " x ".join(f"{value:g}" for value in forms.pixdim[1:])
            raise MipError(
                f"{path}: has a voxel size of {shown} in its header (pixdim), which is none; "
                "write it with the voxel size of its source"
            )
        affine = _without_orientation(size, zooms)
    grid = _grid_of_affine(affine, size)
    lengths = np.array(grid.spacing)
    warnings = []
    for name, code, form in (
        ("sform", forms.sform_code, sform),
        ("qform", forms.qform_code, qform),
    ):
        if code > 0 and form is None and has_zooms:
            warnings.append(f"its {name} is set but no orientation, and is left out")
    if sform is None and qform is None:
        warnings.append(
            "its header has no orientation (qform and sform code 0), which is read as "
            "left-anterior-superior, as nibabel does; left and right, front and back may be "
            "exchanged"
        )
    elif sform is not None and not has_zooms:
        warnings.append(f"its pixdim is no voxel size; that of the sform is taken ({_mm(lengths)})")
    elif sform is not None:
        doubt = _contradiction(grid, zooms, qform)
        if doubt:
            warnings.append(f"{doubt}; the sform is taken, as nibabel does")
    if has_zooms and min(forms.pixdim[1:]) < 0:
        warnings.append(f"its pixdim is negative; voxels of {_mm(lengths)} are taken")
    is_plain = _is_plain(header, forms, grid)
    is_exact = is_plain and _is_exact(forms, grid)
    forms = replace(forms, is_plain=is_plain, is_exact=is_exact)
    return replace(grid, forms=forms), warnings


def _contradiction(grid: SourceGrid, zooms: np.ndarray, qform: np.ndarray | None) -> str | None:
    """How voxel size and qform contradict the grid of the sform, or None."""
    lengths = np.array(grid.spacing)
    far = _SAME_VOXELS * lengths.min()
    if (np.abs(lengths - zooms) * grid.size).max() > far:
        return f"its sform has voxels of {_mm(lengths)}, its pixdim {_mm(zooms)}"
    if qform is None:
        return None
    other = _grid_of_affine(qform, grid.size)
    if not (_along_axes(qform) and other.is_axis_aligned == grid.is_axis_aligned):
        return "its sform and its qform have axes that are turned against each other"
    if other.farthest_corner_mm(grid) <= far:
        return None
    return f"its sform and its qform place it differently ({grid.difference(other)})"


def _forms(header: np.void) -> NiftiForms:
    """Geometry fields of the header; those of an Analyze file, which has no forms, with codes 0."""
    has_forms = header["magic"] in (b"n+1", b"ni1", b"n+2", b"ni2")

    def values(name: str, count: int) -> tuple[float, ...]:
        return tuple(float(value) for value in header[name][:count])

    return NiftiForms(
        qform_code=int(header["qform_code"]) if has_forms else 0,
        sform_code=int(header["sform_code"]) if has_forms else 0,
        pixdim=values("pixdim", 4),
        quatern=values("quatern", 3),
        qoffset=values("qoffset", 3),
        srow=values("srow", 12),
        xyzt_units=int(header["xyzt_units"]),
    )


def _sform(forms: NiftiForms, unit_mm: float) -> np.ndarray | None:
    """Affine (4, 4) of the sform in mm, RAS; None where it is none."""
    affine = np.eye(4)
    affine[:3] = np.array(forms.srow).reshape(3, 4) * unit_mm
    if not np.isfinite(affine).all():
        return None
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    # The determinant of axes of length 1: 1 where they are at right angles.
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        return None
    return affine


def _qform(forms: NiftiForms, zooms: np.ndarray, unit_mm: float) -> np.ndarray | None:
    """Affine (4, 4) of the qform in mm, RAS; None where it is none."""
    if not np.isfinite((*forms.quatern, *forms.qoffset)).all():
        return None
    b, c, d = forms.quatern
    a = 1 - (b * b + c * c + d * d)
    if a < -_QUATERNION_ROUNDING:
        return None
    if a < 1e-7:
        # Rounding, or a half turn.
        length = np.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = np.sqrt(a)
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    factor = -1.0 if forms.pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = turn * zooms * (1, 1, factor)
    affine[:3, 3] = np.array(forms.qoffset) * unit_mm
    return affine


def _without_orientation(size: tuple[int, int, int], zooms: np.ndarray) -> np.ndarray:
    """Affine (4, 4) of a header without orientation in mm, RAS: left-anterior-superior, centred."""
    affine = np.diag([-zooms[0], zooms[1], zooms[2], 1.0])
    affine[:3, 3] = -affine.diagonal()[:3] * (np.array(size) - 1) / 2
    return affine


def _grid_of_affine(affine: np.ndarray, size: tuple[int, int, int]) -> SourceGrid:
    """Grid of an affine (4, 4) in mm, RAS."""
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    # To LPS: x and y the other way.
    turned = affine[:3] * [[-1], [-1], [1]]
    sx, sy, sz = lengths.tolist()
    x, y, z = turned[:, 3].tolist()
    direction = (turned[:, :3] / lengths).ravel().tolist()
    return SourceGrid(size, (sx, sy, sz), (x, y, z), tuple(direction))


def _along_axes(affine: np.ndarray) -> bool:
    """Whether the three axes run along different ones of the body."""
    return sorted(np.abs(affine[:3, :3]).argmax(0).tolist()) == [0, 1, 2]


def _is_plain(header: np.void, forms: NiftiForms, grid: SourceGrid) -> bool:
    """Whether ITK reads this header as `grid`, and writes one that says the same."""
    if header.itemsize != 348 or header["magic"] != b"n+1":
        return False
    if forms.xyzt_units & _UNIT_BITS in _UNIT_MM or min(forms.pixdim[1:]) <= 0:
        return False
    zooms = np.array(forms.pixdim[1:])
    if not np.allclose(zooms, grid.spacing, rtol=_ITK_ACCURACY, atol=0):
        return False
    if _error_of_axes(grid) > _ITK_ACCURACY:
        return False
    both = []
    if forms.sform_code > 0:
        both.append(_sform(forms, 1.0))
    if forms.qform_code > 0:
        both.append(_qform(forms, zooms, 1.0))
    if not both or any(affine is None or not _along_axes(affine) for affine in both):
        return False
    far = _SAME_VOXELS * min(grid.spacing)
    return all(
        _grid_of_affine(affine, grid.size).farthest_corner_mm(grid) <= far
        for affine in both
        if affine is not None
    )


def _is_exact(forms: NiftiForms, grid: SourceGrid) -> bool:
    """Whether ITK writes just these numbers for `grid`."""
    found = []
    if forms.sform_code > 0:
        found.append(_sform(forms, 1.0))
    if forms.qform_code > 0:
        found.append(_qform(forms, np.array(forms.pixdim[1:]), 1.0))
    return (
        forms.sform_code == forms.qform_code == ITK_CODE
        and _error_of_axes(grid) <= _EQUAL
        and np.allclose(forms.pixdim[1:], grid.spacing, rtol=_EQUAL, atol=0)
        and all(
            affine is not None and equal_grids(_grid_of_affine(affine, grid.size), grid)
            for affine in found
        )
    )


def _error_of_axes(grid: SourceGrid) -> float:
    """How far the axes are from right angles: the largest cosine between two of them."""
    direction = np.array(grid.direction).reshape(3, 3)
    return float(np.abs(direction.T @ direction - np.eye(3)).max())


def equal_grids(grid: SourceGrid, other: SourceGrid) -> bool:
    """Whether two grids are equal but for the rounding of a header."""
    return (
        grid.size == other.size
        and np.allclose(grid.spacing, other.spacing, rtol=_EQUAL, atol=0)
        and np.allclose(grid.direction, other.direction, rtol=0, atol=_EQUAL)
        and grid.farthest_corner_mm(other) <= _EQUAL_MM
    )


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in lengths) + " mm"
