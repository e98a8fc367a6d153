"""`nnUNetv2_mip_evaluate`: scores of predicted masks against the truth."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import (
    add_patient_options,
    add_processes_option,
    add_scoring_options,
    patient_options,
)
from nnunetv2_mip.wording import counted

TABLE_ROWS = 25
MAX_NAMES = 5
MAX_WARNINGS = 10
# Column head → (score, format), by kind of report.
COLUMNS = {
    "png": {
        "Dice": ("dice", ".3f"),
        "FP px": ("false_positive_pixels", ".0f"),
        "FN px": ("false_negative_pixels", ".0f"),
        "true px": ("true_pixels", ".0f"),
        "recall": ("lesion_recall", ".3f"),
        "precision": ("lesion_precision", ".3f"),
    },
    "volume": {
        "Dice": ("dice", ".3f"),
        "HD95 mm": ("hd95_mm", ".1f"),
        "FPV ml": ("false_positive_volume_ml", ".2f"),
        "FNV ml": ("false_negative_volume_ml", ".2f"),
        "true ml": ("true_volume_ml", ".2f"),
        "recall": ("lesion_recall", ".3f"),
        "precision": ("lesion_precision", ".3f"),
    },
    "stack": {
        "Dice": ("dice", ".3f"),
        "FP px": ("false_positive_pixels", ".0f"),
        "FN px": ("false_negative_pixels", ".0f"),
        "true px": ("true_pixels", ".0f"),
    },
}


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_evaluate",
        "Score predicted masks: PNGs by mean per-image Dice (DM-i-AI), volumes by the autoPET "
        "metrics and lesion by lesion, stacks of views view by view.",
        epilog="Cases without lesions have no Dice and stay out of its mean; their false "
        "positives are reported instead.",
    )
    parser.add_argument(
        "-i",
        "-p",
        dest="predictions",
        metavar="PRED",
        type=Path,
        required=True,
        help="folder or file of masks",
    )
    parser.add_argument(
        "-g",
        dest="truths",
        metavar="GT",
        type=Path,
        required=True,
        help="file (NIfTI, …, or the DICOM SEG or RTSTRUCT of the PET), folder of masks, "
        "raw nnU-Net data set, DM-i-AI data folder or autoPET tree",
    )
    parser.add_argument(
        "-o",
        dest="output",
        metavar="FILE.json",
        type=Path,
        required=True,
        help="the report; a CSV of the cases is written beside it",
    )
    parser.add_argument(
        "--against",
        metavar="PRED2",
        type=Path,
        help="other predictions of the same cases: adds the paired difference of Dice",
    )
    add_processes_option(parser, "processes for volumes")
    add_scoring_options(parser)
    add_patient_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.evaluation.comparison import compare, describe_comparison, grouping_of
    from nnunetv2_mip.evaluation.evaluate import evaluate, write_report
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.io.patients import Grouping, PatientOptions

    if not 0 <= args.min_overlap <= 1:
        raise MipError(f"--min_overlap {args.min_overlap}: give a fraction from 0 to 1")
    if args.output.suffix.lower() != ".json":
        raise MipError(f"{args.output}: the report is JSON; give a name that ends in .json")
    check_output(args.output)

    def score(predictions: Path) -> dict:
        report = evaluate(
            predictions,
            args.truths,
            allow_missing=args.allow_missing,
            only_predicted=args.only_predicted,
            min_overlap=args.min_overlap,
            processes=args.np,
            show_progress=True,
        )
        _print_warnings(report.get("warnings", []))
        return report

    options = patient_options(args)
    if args.against is None and options != PatientOptions():
        raise MipError("the patients matter for --against alone: give it, or leave them out")
    report = score(args.predictions)
    grouping = Grouping()
    if args.against is not None:
        patients, grouping = grouping_of(args.truths, options)
        report["against"] = str(args.against.name)
        report["comparison"] = compare(report, score(args.against), patients)
    table = write_report(report, args.output)
    print(describe(report))
    if args.against is not None:
        print(describe_comparison(report["comparison"], args.against))
        if grouping.line:
            print(f"patients: {grouping.line}")
        for line in (*grouping.warnings, grouping.question):
            if line:
                print(f"warning: {line}", file=sys.stderr)
    print(f"written: {args.output} and {table}")


def _print_warnings(lines: list[str]) -> None:
    for line in lines[:MAX_WARNINGS]:
        print(f"warning: {line}", file=sys.stderr)
    if len(lines) > MAX_WARNINGS:
        print(f"warning: … and {len(lines) - MAX_WARNINGS} more, see the report", file=sys.stderr)


def describe(report: dict) -> str:
    """Printed text of a report: worst cases first, means, controls, cases left out."""
    from nnunetv2_mip.evaluation.summary import false_positive_name, worst_first

    columns = COLUMNS[report["kind"]]
    error = false_positive_name(report["mean"])
    ranked = worst_first(report["cases"])
    rows = [[case, *_cells(report["cases"][case], columns)] for case in ranked[:TABLE_ROWS]]
    rows.append(["mean", *_cells(report["mean"], columns)])
    lines = _aligned(["case", *columns], rows)
    if len(ranked) > TABLE_ROWS:
        lines.insert(-1, f"… and {counted(len(ranked) - TABLE_ROWS, 'better case')}, see the CSV")
    return "\n".join([*lines, *_remarks(report, error)])


def _remarks(report: dict, error: str) -> list[str]:
    counts, low_high = report["counts"], report["dice_interval_95"]
    remarks = []
    if counts["with_lesions"]:
        cases = f"{counted(counts['with_lesions'], 'case')} with lesions"
        line = f"mean Dice {report['mean']['dice']:.3f} over {cases}"
        if not math.isnan(low_high[0]):
            line += f" (95 % interval {low_high[0]:.3f} to {low_high[1]:.3f}, bootstrap over cases)"
        remarks.append(line)
    if "lesions" in counts:
        remarks.append(
            f"lesions found: {counts['lesions_found']} of {counts['lesions']}; predicted lesions "
            f"that are right: {counts['predicted_lesions_right']} of {counts['predicted_lesions']}"
        )
    if counts["controls"]:
        controls = report["controls"]
        unit = "ml" if error.endswith("_ml") else "pixels"
        remarks.append(
            f"cases without lesions: {counts['controls']}, of which "
            f"{controls['with_false_positives']} with false positives; "
            f"on average {controls[f'mean_{error}']:.2f} {unit}"
        )
    for key, words in (
        ("missing_predictions", "missing, counted as empty"),
        ("ignored_predictions", "ignored, no ground truth"),
        ("controls_left_out", "controls left out, no prediction"),
        ("not_predicted", "cases left out, no prediction"),
    ):
        names = report[key]
        if names:
            more = f", … ({len(names)} in all)" if len(names) > MAX_NAMES else ""
            remarks.append(f"{words}: {', '.join(names[:MAX_NAMES])}{more}")
    remarks += [f"warning: {line}" for line in report.get("warnings", [])]
    return remarks


def _cells(scores: dict, columns: dict[str, tuple[str, str]]) -> list[str]:
    values = [(scores[name], style) for name, style in columns.values()]
    return ["-" if math.isnan(value) else format(value, style) for value, style in values]


def _aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: names to the left, numbers to the right, a rule above the last row."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in [head, *rows]
    ]
    rule = "-" * len(lines[0])
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
