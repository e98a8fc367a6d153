"""Printed summary of a conversion."""

import sys


def print_conversion(result, dataset_id: int) -> None:
    """Print a `ConversionResult`: warnings, left-out cases, counts, and the next command."""
    summary = result.summary
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for skipped in summary["skipped"]:
        print(f"left out: {skipped['case']}: {skipped['reason']}", file=sys.stderr)
    print(
        f"{result.folder}: {summary['converted']} cases of {summary['patients']} patients, "
        f"{summary['with_lesion']} with lesions, {len(summary['skipped'])} left out"
    )
    if summary.get("grouping"):
        print(f"patients: {summary['grouping']}")
    if summary.get("lesions"):
        print(
            f"{summary['lesions']} lesions ({summary['lesion_ml']:.1f} ml), "
            f"{summary['lesions_seen_in_no_view']} of them ({summary['unseen_ml']:.1f} ml) are "
            "seen in no view"
        )
    print(f"next: nnUNetv2_mip_plan_and_preprocess -d {dataset_id}")
