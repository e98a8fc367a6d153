"""Printed summary of a conversion."""

import sys

from nnunetv2_mip.wording import counted


def print_conversion(result, dataset_id: int) -> None:
    """Print a `ConversionResult`: warnings, left-out cases, counts, and the next command."""
    summary = result.summary
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for skipped in summary["skipped"]:
        print(f"left out: {skipped['case']}: {skipped['reason']}", file=sys.stderr)
    print(
        f"{result.folder}: {counted(summary['converted'], 'case')} of "
        f"{counted(summary['patients'], 'patient')}, "
        f"{summary['with_lesion']} with lesions, {len(summary['skipped'])} left out"
    )
    if summary.get("grouping"):
        print(f"patients: {summary['grouping']}")
    if summary.get("lesions"):
        unseen = summary["lesions_seen_in_no_view"]
        print(
            f"{counted(summary['lesions'], 'lesion')} ({summary['lesion_ml']:.1f} ml), "
            f"{unseen} of them ({summary['unseen_ml']:.1f} ml) seen in no view"
        )
    print(f"next: nnUNetv2_mip_plan_and_preprocess -d {dataset_id}")
