"""Proof that two installations of the package write the same files, and how fast each is.

    python benchmarks/core/compare_commits.py --before BIN --after BIN --data DATA -o OUT

BIN is the folder of the commands of an environment; run the script by the Python of either. DATA
(or NNUNETV2_MIP_TEST_DATA) has dmiai/, petct/STS_001/, organ_maps/ and golden_metrics/. Outputs:
one list of commands runs in OUT/run, first before, then after, so that no path differs; every file,
also what each command printed, is compared byte by byte but for `allowed_differences`. Speed: both
by turns. OUT/report.md and OUT/report.json tell what was found; exit code 0 only if all outputs are
equal and no kernel is compiled anew on a read-only machine. `--keep before` takes the outputs of
OUT/before from an earlier run. Not run: demo and its training without a seed, submit.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from compare_files import ALLOWED, DIFFERENT, Allowed
from compare_outputs import DROPPED_HEADERS, allowed_differences, compare_outputs, write_inputs
from compare_sides import Side
from compare_speed import READ_ONLY, measure_speed


def report(sides, rows: list[dict], speed: dict, out: Path) -> bool:
    """Write report.json and report.md; returns whether nothing was found that is not allowed."""
    equal = all(not row["different"] and row["as_expected"] for row in rows)
    kernels = speed.get(READ_ONLY, {}).get("kernels compiled", {"before": 0, "after": 0})
    slow = kernels["after"] > kernels["before"]
    content = {"sides": [{**asdict(side), "bin": str(side.bin)} for side in sides]}
    content |= {"equal": equal, "outputs": rows, "speed": speed}
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [f"Before: {sides[0].version}, after: {sides[1].version}."]
    if rows:
        lines += [f"Outputs: {'all are equal' if equal else 'there are differences'}."]
        lines += [*count_lines(rows), *difference_lines(rows)]
        lines += allowed_lines(rows, allowed_differences(sides))
    if slow:
        lines += ["", "The challenge compiles kernels anew on a read-only machine."]
    (out / "report.md").write_text("\n".join([*lines, *speed_lines(speed)]) + "\n")
    return equal and not slow


def count_lines(rows: list[dict]) -> list[str]:
    """A table of the steps and the numbers of their files."""
    lines = ["", "| step | commands | files | equal | but for allowed | different |"]
    lines.append("|---|---|---|---|---|---|")
    groups = {step: [row for row in rows if row["step"] == step] for step in _in_order(rows)}
    for step, own in {**groups, "all": rows}.items():
        sums = [sum(row[what] for row in own) for what in ("files", "allowed", "different")]
        equal = sums[0] - sums[1] - sums[2]
        lines.append(f"| {step} | {len(own)} | {sums[0]} | {equal} | {sums[1]} | {sums[2]} |")
    return lines


def _in_order(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["step"] for row in rows))


def difference_lines(rows: list[dict]) -> list[str]:
    lines = [""]
    for row in rows:
        if not row["as_expected"]:
            lines.append(f"- not as expected: `{row['command']}`: exit codes {row['codes']}")
        for verdict in row["verdicts"]:
            if verdict["state"] == DIFFERENT:
                lines.append(f"- different: `{verdict['path']}`: {'; '.join(verdict['notes'])}")
    return lines if len(lines) > 1 else []


def allowed_lines(rows: list[dict], allowed: list[Allowed]) -> list[str]:
    """Everything that may differ, and in how many files something was found to."""
    needed = {rule.name: [] for rule in allowed}
    for verdict in (v for row in rows for v in row["verdicts"] if v["state"] == ALLOWED):
        for note in verdict["notes"]:
            needed.setdefault(note, []).append(verdict["path"])
    lines = ["", "What may differ, and where it did:", ""]
    for name, paths in needed.items():
        where = ", ".join(f"`{rule.files}`" for rule in allowed if rule.name == name)
        first = f", such as `{paths[0]}`" if paths else ""
        lines.append(f"- {name}{f' (in {where})' if where else ''}: {len(paths)} files{first}")
    dropped = ", ".join(DROPPED_HEADERS)
    return [*lines, f"- never kept: values of /metrics, headers of answers ({dropped})"]


def speed_lines(speed: dict) -> list[str]:
    if not speed:
        return []
    note = "Medians of runs by turns; other work on the machine disturbs the seconds."
    lines = [
        "",
        note,
        "",
        "| what | unit | before | after | after / before |",
        "|---|---|---|---|---|",
    ]
    for name, row in speed.items():
        for what in (key for key in row if key != "runs"):
            one, two, ratio = (row[what][key] for key in ("before", "after", "ratio"))
            shown = f"{ratio:.2f}" if ratio is not None else "-"
            lines.append(f"| {name} | {what} | {one:.2f} | {two:.2f} | {shown} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, metavar="BIN")
    parser.add_argument("--after", type=Path, required=True, metavar="BIN")
    parser.add_argument("--data", type=Path, default=os.environ.get("NNUNETV2_MIP_TEST_DATA"))
    parser.add_argument("-o", type=Path, required=True, metavar="OUT", dest="out")
    parser.add_argument("--only", choices=("outputs", "speed"))
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement of speed")
    parser.add_argument("--keep", nargs="+", choices=("before", "after"), default=[])
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data, or NNUNETV2_MIP_TEST_DATA, is needed")
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    sides = tuple(Side.of(name, getattr(args, name).absolute()) for name in ("before", "after"))
    write_inputs(Path(args.data), out / "inputs")
    rows = [] if args.only == "speed" else compare_outputs(sides, out, args.keep)
    speed = {} if args.only == "outputs" else measure_speed(sides, out, args.repeats)
    equal = report(sides, rows, speed, out)
    print((out / "report.md").read_text())
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
