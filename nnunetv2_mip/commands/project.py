"""`nnUNetv2_mip_project`: the views of one SUV volume."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._frame import new_parser, run_command
from nnunetv2_mip.geometry import DEFAULT_ARC_DEG, DEFAULT_VIEWS


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_project",
        "Project a SUV volume (and its lesion mask) on many angles. Writes suv.nii.gz (raw SUV) "
        "and seg.nii.gz as (view, row, column) stacks, and geometry.json.",
    )
    parser.add_argument("-i", required=True, metavar="SUV", help="SUV volume")
    parser.add_argument("-o", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seg", metavar="SEG", help="lesion mask on the same grid")
    parser.add_argument("--views", type=int, default=DEFAULT_VIEWS, metavar="N", help="angles")
    parser.add_argument(
        "--arc", type=float, default=DEFAULT_ARC_DEG, metavar="DEG", help="angles cover this arc"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="DEG", help="first angle")
    return parser


def run(args: argparse.Namespace) -> None:
    import sys

    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.geometry import ViewGeometry, view_angles
    from nnunetv2_mip.projection import project, project_mask
    from nnunetv2_mip.stacks import GEOMETRY_NAME, write_stack
    from nnunetv2_mip.volumes import read_mask, read_suv, suv_warning

    angles = view_angles(args.views, args.arc, args.start)
    suv = read_suv(args.i)
    seg = read_mask(args.seg, like=suv) if args.seg else None
    warning = suv_warning(suv)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    geometry = ViewGeometry.for_volume(suv, angles)
    folder = Path(args.o)
    if folder.exists() and not folder.is_dir():
        raise MipError(f"{folder}: is a file, the views need a folder")
    for source in filter(None, (args.i, args.seg)):
        for name in ("suv.nii.gz", "seg.nii.gz"):
            # samefile: on some file systems SUV.nii.gz and suv.nii.gz are one.
            if (folder / name).exists() and (folder / name).samefile(source):
                raise MipError(f"{source}: would be replaced by its views; choose another -o")
    folder.mkdir(parents=True, exist_ok=True)
    if seg is not None:
        stack = project_mask(seg.array, geometry)
        write_stack(stack, geometry.stack_spacing_mm, folder / "seg.nii.gz")
    views = project(suv.array, geometry).suv
    write_stack(views, geometry.stack_spacing_mm, folder / "suv.nii.gz")
    geometry.save(folder / GEOMETRY_NAME)
    count, rows, columns = geometry.stack_shape
    row_mm, column_mm = geometry.pixel_mm
    print(
        f"{folder}: {count} views of {rows} x {columns} pixels, {row_mm:.3g} x {column_mm:.3g} mm"
    )


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
