"""Processor time of starting up: import of the package, `-h` of every command, the first PNG.

    python benchmarks/core/start_up.py --before BIN --after BIN -o OUT [--png IMAGE] [--repeats 5]

BIN is the folder of the commands of an environment. Both installations are measured by turns, each
in a process of its own; the minimum of the repeats counts, because other work on the machine only
adds. Without --png the image is a simulated one of the usual size. OUT gets report.json and
report.md.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from compare_sides import Side
from compare_speed import measure_command

WARM_UP = 1


def write_png(path: Path) -> None:
    """Write a body of noise with a lesion, 400 x 480 pixels, dark is uptake."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = np.full((480, 400), 255, np.uint8)
    pixels[20:460, 120:280] = rng.integers(170, 235, (440, 160))
    pixels[200:215, 180:195] = 10
    Image.fromarray(pixels).save(path)


def commands_of(side: Side) -> list[str]:
    """Names of all commands of an installation."""
    return sorted(path.name for path in side.bin.glob("nnUNetv2_mip_*"))


def least(sides: tuple[Side, ...], repeats: int, words, work: Path) -> dict[str, dict | None]:
    """Least seconds of the processor and of the clock, by side.

    Args:
        sides: installations.
        repeats: after `WARM_UP` runs that do not count.
        words: `words(side)` gives the command, or None where the side has none.
        work: working folder.
    """
    found: dict[str, list[dict]] = {side.name: [] for side in sides}
    for turn in range(repeats + WARM_UP):
        for side in sides if turn % 2 else sides[::-1]:
            command = words(side)
            if command is None:
                continue
            measured = measure_command(command, side.environment(work), work)
            if turn >= WARM_UP:
                found[side.name].append(measured)
    return {
        name: {key: min(run[key] for run in runs) for key in ("cpu_seconds", "seconds")}
        if runs
        else None
        for name, runs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("before", "after"):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="BIN")
    parser.add_argument("-o", required=True, type=Path, metavar="OUT")
    parser.add_argument("--png", type=Path, metavar="IMAGE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--png_repeats", type=int, default=3)
    args = parser.parse_args()
    out = args.o.absolute()
    out.mkdir(parents=True, exist_ok=True)
    sides = tuple(Side.of(name, getattr(args, name).absolute()) for name in ("before", "after"))
    image = out / "image.png"
    if args.png is None:
        write_png(image)
    else:
        image.write_bytes(args.png.read_bytes())

    def call(name: str, *options: str):
        return lambda side: [str(side.bin / name), *options] if (side.bin / name).exists() else None

    rows = {}
    for name, code in (("nothing", "pass"), ("import nnunetv2_mip", "import nnunetv2_mip")):
        rows[name] = least(sides, args.repeats, call("python", "-c", code), out)
    names = sorted({name for side in sides for name in commands_of(side)})
    for name in names:
        rows[f"{name} -h"] = least(sides, args.repeats, call(name, "-h"), out)
    options = ("-i", str(image), "-o", str(out / "mask.png"), "-device", "cpu")
    rows["the first PNG"] = least(
        sides, args.png_repeats, call("nnUNetv2_mip_predict", *options), out
    )
    versions = {side.name: side.version for side in sides}
    content = {"versions": versions, "date": time.strftime("%Y-%m-%d"), "rows": rows}
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = ["| | before, s | after, s |", "|---|---|---|"]
    for name, row in rows.items():
        cells = ["-" if own is None else f"{own['cpu_seconds']:.3f}" for own in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (out / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
