"""`nnUNetv2_mip_project`: the views of one study, as stacks and as pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_view_options, view_settings


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_project",
        "Project a PET on many angles. Writes (view, row, column) stacks: suv.nii.gz (raw SUV), "
        "ct.nii.gz (HU), depth.nii.gz (mm) and seg.nii.gz as asked for, and geometry.json.",
    )
    parser.add_argument(
        "-i", required=True, metavar="SUV", help="SUV volume, or folder with a DICOM PET series"
    )
    parser.add_argument("-o", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seg", metavar="SEG", help="lesion mask on the same grid")
    parser.add_argument("--ct", metavar="CT", help="CT in HU on the same grid")
    parser.add_argument(
        "--png",
        action="store_true",
        help="also png/view_000.png …: 8 bit, dark = uptake, brightest at --window, square pixels "
        "of 2 mm (or --pixel), like the DM-i-AI images",
    )
    add_view_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.conventions import PNG_PIXEL_MM
    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.files import check_output, write_json
    from nnunetv2_mip.io.png import write_view_png
    from nnunetv2_mip.io.read_study import read_study
    from nnunetv2_mip.views.channels import view_study
    from nnunetv2_mip.views.intensity import levels_from_suv
    from nnunetv2_mip.views.labels import label_views
    from nnunetv2_mip.views.resampling import to_pixels
    from nnunetv2_mip.views.stack_files import (
        GEOMETRY_NAME,
        is_stack_file,
        save_geometry,
        write_stack,
    )

    check_output(args.o)
    settings = view_settings(args)
    if settings.labels != "projected" and not args.seg:
        raise MipError(f"--labels {settings.labels}: needs the lesion mask, --seg FILE")
    if args.ct and "ct" not in settings.channels:
        raise MipError(f"--ct {args.ct}: add --channels suv,ct to have its views")
    if is_stack_file(args.i):
        raise MipError(f"{args.i}: is a stack of views already, a SUV volume is needed")
    study = read_study(args.i, args.ct, args.seg, wants_ct=bool(args.ct))
    for line in study.warnings:
        print(f"warning: {line}", file=sys.stderr)
    folder = Path(args.o)
    if folder.exists() and not folder.is_dir():
        raise MipError(f"{folder}: is a file, the views need a folder")
    if folder.is_dir() and any(folder.iterdir()):
        # Views of two runs in one folder would be fused with the wrong geometry.
        raise MipError(f"{folder}: is not empty; name a new folder by -o")
    views = view_study(study, settings)
    pixel, window, spacing = settings.pixel_mm, settings.window_suv, views.spacing_mm
    # The stacks hold raw SUV.
    geometry = views.geometry.with_window(None)
    folder.mkdir(parents=True, exist_ok=True)
    if study.seg is not None:
        found = label_views(
            study.seg.array, study.suv.array, views.suv, geometry, window, settings.occlusion
        )
        label = to_pixels(found.label(settings.labels), geometry, pixel, nearest=True)
        write_stack(label, spacing, folder / "seg.nii.gz")
        write_json(folder / "lesions.json", found.table(geometry))
    stacks = {"suv": views.suv, "ct": views.ct_hu, "depth": views.depth_mm}
    for channel in settings.channels:
        stack = to_pixels(stacks[channel], geometry, pixel, nearest=channel != "suv")
        write_stack(stack, spacing, folder / f"{channel}.nii.gz")
    save_geometry(geometry, folder / GEOMETRY_NAME, pixel)
    if args.png:
        pictures = levels_from_suv(to_pixels(views.suv, geometry, pixel or PNG_PIXEL_MM), window)
        for view, levels in enumerate(pictures):
            write_view_png(levels, folder / "png" / f"view_{view:03d}.png")
    count, rows, columns = stack.shape
    print(
        f"{folder}: {count} views of {rows} x {columns} pixels, "
        f"{spacing[1]:.3g} x {spacing[2]:.3g} mm"
    )


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
