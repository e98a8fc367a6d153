"""NIfTI headers that contradict themselves or say too little: one rule, one line, same header."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import read_suv, read_volume, require_same_grid, write_volume

nibabel = pytest.importorskip("nibabel")

AFFINE = np.diag([4.0, 4.0, 3.0, 1.0])
AFFINE[:3, 3] = (-60, -40, -500)
HALF = np.diag([2.0, 2.0, 1.5, 1.0])
SHIFTED = AFFINE + [[0, 0, 0, 20], [0] * 4, [0] * 4, [0] * 4]
MIRRORED = AFFINE * [[-1], [1], [1], [1]]
METRES = AFFINE * [[0.001], [0.001], [0.001], [1]]


def body() -> np.ndarray:
    """(i, j, k) of 30 x 24 x 40 voxels, without symmetry."""
    array = np.zeros((30, 24, 40), np.float32)
    array[4:26, 4:20, 3:37] = 1
    array[6:9, 5:8, 30:34] = 9
    return array


def write(
    path: Path,
    sform: np.ndarray | None = AFFINE,
    qform: np.ndarray | None = AFFINE,
    codes: tuple[int, int] | None = None,
    **fields: object,
) -> Path:
    """A file whose header holds just this; `codes` are those of sform and qform."""
    image = nibabel.Nifti1Image(body(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    nibabel.save(image, path)
    is_packed = path.suffix == ".gz"
    content = path.read_bytes()
    content = bytearray(gzip.decompress(content) if is_packed else content)
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    if qform is not None:
        header.set_qform(qform, 1)
    else:
        header["qform_code"] = 0
    if sform is not None:
        header.set_sform(sform, 1)
    else:
        header["sform_code"] = 0
    if codes is not None:
        header["sform_code"], header["qform_code"] = codes
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if is_packed else bytes(content))
    return path


def pixdim(*zooms: float) -> list[float]:
    return [1, *zooms, 0, 0, 0, 0]


ODD = {
    "scale": ({"sform": HALF, "qform": None, "pixdim": pixdim(4, 4, 3)}, "its sform has voxels of"),
    "both of other scale": (
        {"sform": HALF},
        "its sform has voxels of 2 x 2 x 1.5 mm, its pixdim 4",
    ),
    "shift": (
        {"sform": SHIFTED},
        "first voxel at (-76, -52, -500) mm against first voxel at (-56,",
    ),
    "shift, other code": ({"sform": SHIFTED, "codes": (2, 1)}, "place it differently"),
    "mirrored": ({"sform": MIRRORED}, "axes LAS against RAS"),
    "no orientation": ({"sform": None, "qform": None}, "has no orientation"),
    "empty sform": ({"srow_x": [0] * 4, "srow_y": [0] * 4}, "its sform is set but no orientation"),
    "empty sform alone": (
        {"srow_x": [0] * 4, "codes": (1, 0)},
        "its sform is set but no orientation",
    ),
    "pixdim 0": ({"pixdim": pixdim(4, 4, 0)}, "its pixdim is no voxel size"),
    "pixdim NaN": ({"pixdim": pixdim(4, np.nan, 3)}, "its pixdim is no voxel size"),
    "negative pixdim": ({"pixdim": pixdim(-4, 4, 3)}, "its pixdim is negative"),
    "negative pixdim, qform": ({"pixdim": pixdim(-4, 4, 3), "sform": None}, "is negative"),
    "metres": ({"sform": METRES, "qform": METRES}, "are read as 4 x 4 x 3 mm"),
    "lying metres": ({"xyzt_units": 1}, "voxels of 4000 x 4000 x 3000 mm by its header, which are"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_mask_has_the_header_of_its_source_whatever_that_says(kind, ending, tmp_path, capfd):
    fields, told = ODD[kind]
    source = write(tmp_path / f"v{ending}", **fields)
    volume = read_suv(source)
    assert any(told in line and str(source) in line for line in volume.warnings), volume.warnings
    mask = tmp_path / f"m{ending}"
    write_volume((volume.array > 5).astype(np.uint8), volume.grid, mask)
    # Nothing of ITK's own on the terminal.
    assert capfd.readouterr() == ("", "")
    before, after = nibabel.load(source), nibabel.load(mask)
    np.testing.assert_array_equal(after.affine, before.affine)
    for name in (
        "sform_code",
        "qform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "qoffset_x",
    ):
        np.testing.assert_array_equal(after.header[name], before.header[name])
    np.testing.assert_array_equal(after.get_fdata() > 0, before.get_fdata() > 5)
    if kind not in ("empty sform alone", "pixdim NaN"):
        one, other = sitk.ReadImage(str(source)), sitk.ReadImage(str(mask))
        assert one.GetSpacing() == other.GetSpacing()
        assert one.GetOrigin() == other.GetOrigin()
        assert one.GetDirection() == other.GetDirection()
    assert list(tmp_path.iterdir()) != [] and len(list(tmp_path.iterdir())) == 2


# As nibabel reads it: the sform, else the qform, else LAS; in mm.
PLACES = {
    "scale": HALF,
    "shift": SHIFTED,
    "shift, other code": SHIFTED,
    "mirrored": MIRRORED,
    "empty sform": AFFINE,
    "pixdim 0": AFFINE,
    "negative pixdim": AFFINE,
    "metres": AFFINE,
    "lying metres": AFFINE,
}


@pytest.mark.parametrize("kind", PLACES)
def test_the_place_is_that_of_nibabel(kind, tmp_path):
    volume = read_volume(write(tmp_path / "v.nii.gz", **ODD[kind][0]))
    affine = PLACES[kind]
    corner = volume.grid.from_canonical_index((0, 0, 0))
    place = (affine @ [*corner, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(volume.grid.canonical().origin, place, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(volume.spacing_mm[::-1], np.abs(affine.diagonal()[:3]), rtol=1e-5)


def test_without_orientation_it_is_left_anterior_superior_and_centred(tmp_path):
    volume = read_volume(write(tmp_path / "v.nii.gz", sform=None, qform=None))
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert volume.grid.axis_codes == "".join(nibabel.aff2axcodes(image.affine)) == "LAS"
    np.testing.assert_allclose(volume.grid.origin, image.affine[:3, 3] * [-1, -1, 1])
    # x to the left as stored, y to the back: the other way round.
    np.testing.assert_array_equal(volume.array, body().transpose()[:, ::-1])


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 1), (1, 2)])
def test_sound_headers_are_read_in_silence_and_keep_their_codes(codes, tmp_path):
    source = write(tmp_path / "v.nii.gz", codes=codes)
    volume = read_volume(source)
    assert volume.warnings == ()
    write_volume(volume.array, volume.grid, tmp_path / "m.nii.gz")
    before, after = (nibabel.load(tmp_path / name) for name in ("v.nii.gz", "m.nii.gz"))
    assert (after.header["sform_code"], after.header["qform_code"]) == codes
    np.testing.assert_allclose(after.affine, before.affine)


def test_rounded_digits_are_no_contradiction(tmp_path):
    source = write(tmp_path / "v.nii.gz", qform=np.diag([4.0001, 4, 3, 1]), codes=(1, 0))
    volume = read_volume(source)
    assert volume.warnings == ()
    write_volume(volume.array, volume.grid, tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(
        nibabel.load(tmp_path / "m.nii.gz").affine, nibabel.load(source).affine
    )


@pytest.mark.parametrize("zooms", [(4, 4, 0), (0, 0, 0), (np.nan, 4, 3), (np.inf, 4, 3)])
@pytest.mark.parametrize("codes", [(0, 0), (0, 1)])
def test_without_any_voxel_size_a_file_is_refused(zooms, codes, tmp_path):
    source = write(tmp_path / "v.nii.gz", codes=codes, pixdim=pixdim(*zooms))
    with pytest.raises(MipError, match=r"has a voxel size of .* in its header"):
        read_volume(source)


def test_a_mask_with_other_forms_lies_on_its_image(tmp_path):
    image = read_volume(write(tmp_path / "v.nii.gz"))
    mask = read_volume(write(tmp_path / "m.nii.gz", sform=None, codes=(0, 1)))
    assert mask.grid.same_as(image.grid)
    lost = read_volume(write(tmp_path / "l.nii.gz", sform=None, qform=None))
    with pytest.raises(MipError, match=r"header of l\.nii\.gz: its header has no orientation"):
        require_same_grid(lost, image)


def test_forms_travel_with_the_geometry_of_views(tmp_path):
    grid = read_volume(write(tmp_path / "v.nii.gz", **ODD["scale"][0])).grid
    again = SourceGrid.from_dict(grid.to_dict())
    write_volume(np.zeros(grid.shape_zyx, np.uint8), again, tmp_path / "m.nii.gz")
    one, other = (nibabel.load(tmp_path / name).header for name in ("v.nii.gz", "m.nii.gz"))
    for name in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_z"):
        np.testing.assert_array_equal(one[name][:4], other[name][:4]) if one[
            name
        ].ndim else np.testing.assert_array_equal(one[name], other[name])
    sound = read_volume(write(tmp_path / "s.nii.gz", codes=(2, 0))).grid
    assert "nifti" not in sound.to_dict()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nifti_2_is_read(ending, tmp_path):
    source = tmp_path / f"v{ending}"
    image = nibabel.Nifti2Image((body() * 10).astype(np.int16), MIRRORED)
    image.header.set_slope_inter(0.1, 0)
    nibabel.save(image, source)
    volume = read_suv(source)
    assert volume.warnings == () and volume.grid.axis_codes == "LAS"
    np.testing.assert_allclose(volume.array, body().transpose()[:, ::-1], rtol=1e-6)
    write_volume((volume.array > 5).astype(np.uint8), volume.grid, tmp_path / f"m{ending}")
    mask = nibabel.load(tmp_path / f"m{ending}")
    np.testing.assert_allclose(mask.affine, image.affine)
    np.testing.assert_array_equal(mask.get_fdata() > 0, body() > 5)


def test_a_cut_nifti_2_is_refused(tmp_path):
    source = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti2Image(body(), AFFINE), source)
    source.write_bytes(source.read_bytes()[:-7])
    with pytest.raises(MipError, match="7 bytes are missing"):
        read_volume(source)


def test_several_frames_and_colours_are_refused_whatever_the_forms(tmp_path):
    frames = np.stack([body(), body()], axis=-1)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        nibabel.save(kind(frames, None), tmp_path / "v.nii.gz")
        with pytest.raises(MipError, match="has 4 dimensions"):
            read_volume(tmp_path / "v.nii.gz")
        nibabel.save(kind(frames[..., None, :], None), tmp_path / "v.nii.gz")
        with pytest.raises(MipError, match="several values per voxel"):
            read_volume(tmp_path / "v.nii.gz")
        nibabel.save(kind(body()[..., None, None], AFFINE), tmp_path / "v.nii.gz")
        assert read_volume(tmp_path / "v.nii.gz").array.shape == (40, 24, 30)
