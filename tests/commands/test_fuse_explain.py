"""Command `fuse` with the rule `explain`: axis orders, and the table beside the mask."""

import csv
import math

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run
from simulated import (
    dice,
    nodes,
    views_of,
)

from nnunetv2_mip.commands import fuse as fuse_command
from nnunetv2_mip.commands import project as project_command
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.io.volumes import read_volume
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "SRP", "PIR", "RAS cropped"])
@pytest.mark.parametrize("rule", ["explain", "hull"])
def test_any_axis_order_gives_the_same_mask_on_its_own_header(codes, rule, tmp_path):
    volume, mask = nodes(1)
    for array, name in ((volume.array, "suv"), (mask.astype(np.uint8), "seg")):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(volume.grid.spacing)
        image.SetOrigin(volume.grid.origin)
        if "cropped" in codes:
            image = image[3:-2, 4:, 1:-1]
        image = sitk.DICOMOrient(image, codes[:3])
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    views = tmp_path / "views"
    suv, seg = tmp_path / "suv.nii.gz", tmp_path / "seg.nii.gz"
    assert run(project_command, "-i", suv, "--seg", seg, "-o", views, "--views", 6) == 0
    target = tmp_path / "mask.nii.gz"
    assert run(fuse_command, "-i", views, "-o", target, "--rule", rule, "--suv", suv) == 0
    found = sitk.ReadImage(str(target))
    source = sitk.ReadImage(str(tmp_path / "suv.nii.gz"))
    assert found.GetSize() == source.GetSize()
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, what)() == getattr(source, what)()
    suv, mask = read_volume(suv), read_volume(seg).array
    geometry, stack = views_of(suv, mask, 6)
    expected = fuse(stack, geometry, FusionRule(rule), suv.array)
    assert dice(read_volume(target).array, expected) > 0.99


def test_fuse_writes_the_table(tmp_path):
    volume, mask = nodes(2)
    for array, name in ((volume.array, "suv"), (mask.astype(np.uint8), "seg")):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(volume.grid.spacing)
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    suv, seg = tmp_path / "suv.nii.gz", tmp_path / "seg.nii.gz"
    views, target = tmp_path / "views", tmp_path / "out.nii.gz"
    assert run(project_command, "-i", suv, "--seg", seg, "-o", views, "--views", 4) == 0
    assert run(fuse_command, "-i", views, "-o", target, "--suv", suv) == 0
    with (tmp_path / "out_lesions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = read_volume(target).array
    total = sum(float(row["volume_ml"]) for row in rows)
    assert math.isclose(total, found.sum() * volume.grid.voxel_ml, rel_tol=1e-3)
    inside = project(volume.array, ViewGeometry.for_volume(volume, [0.0])).suv.max()
    assert 1 < max(float(row["suv_max"]) for row in rows) <= inside + 1e-3
