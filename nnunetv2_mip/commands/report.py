"""`nnUNetv2_mip_report`: one HTML file about predictions, a data set, a training."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import add_processes_option, add_scoring_options
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from nnunetv2_mip.report.content import ReportContent, ReportRequest


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_report",
        "Write one self-contained HTML file that opens offline: scores with plots, the worst and "
        "best cases as rotating MIPs with their masks, a check of the data, training curves. Give "
        "what there is: -i with -g scores predictions, -i alone lists their lesions, -d (or -g) "
        "alone checks data, -m adds training curves.",
    )
    parser.add_argument(
        "-i", dest="predictions", metavar="PRED", type=Path, help="folder or file of masks"
    )
    parser.add_argument(
        "-g",
        dest="truths",
        metavar="GT",
        type=Path,
        help="file, folder of masks, raw nnU-Net data set, DM-i-AI data folder or autoPET tree",
    )
    parser.add_argument(
        "-d", dest="dataset", metavar="ID", help="raw nnU-Net data set to check: number or folder"
    )
    parser.add_argument(
        "-m", dest="model", metavar="FOLDER", type=Path, help="model folder (plans.json, fold_*)"
    )
    parser.add_argument(
        "-o", dest="output", metavar="FILE.html", type=Path, required=True, help="file to write"
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        type=Path,
        help="images of the cases, where neither -g nor -d has them: PNGs or SUV volumes named "
        "like the masks, a tree of studies, or one file",
    )
    parser.add_argument("--title", help="of the page")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--cases", type=int, default=4, metavar="N", help="worst and best cases drawn, N each"
    )
    pictures.add_argument(
        "--views", type=int, default=24, metavar="N", help="angles of a rotating MIP, over 180°"
    )
    pictures.add_argument(
        "--window", type=float, default=10.0, metavar="SUV", help="SUV drawn black"
    )
    add_scoring_options(parser)
    add_dicom_options(parser)
    add_processes_option(parser, "processes for reading")
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.report.page import write_report

    check_output(args.output)
    content = write_report(_request(args), args.output, show_progress=True)
    for line in _summary(content):
        print(line)
    size = args.output.stat().st_size / 1e6
    print(f"written: {args.output} ({size:.1f} MB, cases drawn: {len(content.pictures)})")


def _request(args: argparse.Namespace) -> "ReportRequest":
    from nnunetv2_mip.report.content import ReportRequest
    from nnunetv2_mip.report.dataset_check import dataset_folder
    from nnunetv2_mip.report.rotating_mip import RotatingMIPSettings

    return ReportRequest(
        predictions=args.predictions,
        truths=args.truths,
        dataset=None if args.dataset is None else dataset_folder(args.dataset),
        model=args.model,
        images=args.images,
        title=args.title,
        shown=args.cases,
        drawing=RotatingMIPSettings(args.views, args.window),
        allow_missing=args.allow_missing,
        only_predicted=args.only_predicted,
        min_overlap=args.min_overlap,
        processes=args.np,
        dicom=dicom_options(args),
    )


def _summary(content: "ReportContent") -> list[str]:
    """Lines for the terminal: mean Dice, warnings of the data check, cases without an image."""
    lines = []
    if content.scores is not None:
        counts, dice = content.scores["counts"], content.scores["mean"]["dice"]
        number = counts["with_lesions"]
        # Without lesions there is no Dice.
        mean = f"mean Dice {dice:.3f} over " if number else ""
        cases = f"{counted(number, 'case')} with lesions"
        lines.append(f"{mean}{cases}, {counts['controls']} without")
    elif content.request.predictions is not None:
        lines.append("no truth (-g): lesions are listed, nothing is scored")
    if content.check is not None:
        warnings = [f.text for f in content.check.findings if f.level == "warning"]
        lines += [f"warning: {text}" for text in warnings]
    facts = list(content.facts.values()) or (content.check.facts if content.check else [])
    without_image = sum(one.uptake is None for one in facts)
    if without_image:
        text = f"{without_image} of {len(facts)} without an image: --images FOLDER may have them"
        lines.append(text)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
