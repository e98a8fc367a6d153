"""Command `nnUNetv2_mip_project`: views of one study, as stacks and as PNG images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._view_options import add_view_options, view_settings
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from nnunetv2_mip.io.volumes import Volume
    from nnunetv2_mip.views.channels import StudyViews
    from nnunetv2_mip.views.settings import ViewSettings


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
        "of 2 mm (or --pixel_mm), like the DM-i-AI images",
    )
    add_dicom_options(parser)
    add_view_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.progress import shown
    from nnunetv2_mip.io.read_study import read_study
    from nnunetv2_mip.views.channels import view_study
    from nnunetv2_mip.views.stack_files import GEOMETRY_NAME, save_geometry

    check_output(args.o)
    settings = view_settings(args)
    options = dicom_options(args)
    _check_options(args, settings)
    with shown("reading"):
        study = read_study(args.i, args.ct, args.seg, wants_ct=bool(args.ct), options=options)
    for line in study.warnings:
        print(f"warning: {line}", file=sys.stderr)
    folder = _new_folder(Path(args.o))
    with shown("projecting"):
        views = view_study(study, settings)
        folder.mkdir(parents=True, exist_ok=True)
        if study.seg is not None:
            _write_labels(study.seg, study.suv, views, settings, folder)
        count, rows, columns = _write_stacks(views, settings, folder)
        # The stacks hold raw SUV, without a window.
        save_geometry(views.geometry.with_window(None), folder / GEOMETRY_NAME, settings.pixel_mm)
        if args.png:
            _write_pngs(views, settings, folder / "png")
    _, row_mm, column_mm = views.spacing_mm
    print(
        f"{folder}: {counted(count, 'view')} of {rows} x {columns} pixels, {row_mm:.3g} x "
        f"{column_mm:.3g} mm"
    )


def _check_options(args: argparse.Namespace, settings: "ViewSettings") -> None:
    """Check of options that need or exclude each other, before any volume is read."""
    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.views.stack_files import is_stack_file

    if settings.labels != "projected" and not args.seg:
        raise MipError(f"--labels {settings.labels}: needs the lesion mask, --seg FILE")
    if args.ct and "ct" not in settings.channels:
        raise MipError(f"--ct {args.ct}: add --channels suv,ct to have its views")
    if is_stack_file(args.i):
        raise MipError(f"{args.i}: is a stack of views already, a SUV volume is needed")


def _new_folder(folder: Path) -> Path:
    """The output folder, which must be new or empty."""
    from nnunetv2_mip.errors import MipError

    if folder.exists() and not folder.is_dir():
        raise MipError(f"{folder}: is a file, the views need a folder")
    if folder.is_dir() and any(folder.iterdir()):
        # Views of two runs in one folder would be fused with the wrong geometry.
        raise MipError(f"{folder}: is not empty; name a new folder by -o")
    return folder


def _write_labels(
    seg: "Volume", suv: "Volume", views: "StudyViews", settings: "ViewSettings", folder: Path
) -> None:
    """Write the label views of the study's mask, and the table of its lesions."""
    from nnunetv2_mip.files import write_json
    from nnunetv2_mip.views.labels import label_views
    from nnunetv2_mip.views.resampling import to_pixels
    from nnunetv2_mip.views.stack_files import write_stack

    geometry, window_suv = views.geometry, settings.window_suv
    found = label_views(seg.array, suv.array, views.suv, geometry, window_suv, settings.occlusion)
    label = to_pixels(found.label(settings.labels), geometry, settings.pixel_mm, nearest=True)
    write_stack(label, views.spacing_mm, folder / "seg.nii.gz")
    write_json(folder / "lesions.json", found.table(geometry))


def _write_stacks(
    views: "StudyViews", settings: "ViewSettings", folder: Path
) -> tuple[int, int, int]:
    """Write a stack for each channel; returns their shape (V, H, W)."""
    from nnunetv2_mip.views.resampling import to_pixels
    from nnunetv2_mip.views.stack_files import write_stack

    stacks = {"suv": views.suv, "ct": views.ct_hu, "depth": views.depth_mm}
    drawn = {channel: stack for channel, stack in stacks.items() if stack is not None}
    for channel in settings.channels:
        nearest = channel != "suv"
        stack = to_pixels(drawn[channel], views.geometry, settings.pixel_mm, nearest=nearest)
        write_stack(stack, views.spacing_mm, folder / f"{channel}.nii.gz")
    return stack.shape


def _write_pngs(views: "StudyViews", settings: "ViewSettings", folder: Path) -> None:
    """Write a PNG of each view."""
    from nnunetv2_mip.conventions import PNG_PIXEL_MM
    from nnunetv2_mip.io.png import write_view_png
    from nnunetv2_mip.views.intensity import levels_from_suv
    from nnunetv2_mip.views.resampling import to_pixels

    pixel_mm = settings.pixel_mm or PNG_PIXEL_MM
    pictures = to_pixels(views.suv, views.geometry, pixel_mm)
    for view, levels in enumerate(levels_from_suv(pictures, settings.window_suv)):
        write_view_png(levels, folder / f"view_{view:03d}.png")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
