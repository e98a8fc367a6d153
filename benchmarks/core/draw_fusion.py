"""Figure of docs/explanation/fusion.md: views of a simulated patient with errors, and fused masks.

    python benchmarks/core/draw_fusion.py --report benchmark_fusion/fusion.json --out docs/pictures

Left: a view of the patient and its label after the errors of `fusion.spoil`. Middle: an axial slice
with the true outline, the best voxel-wise vote and `explain`. Right: mean Dice against the number
of views, from the report.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from fusion import RULES, crowded_studies, spoil

from nnunetv2_mip.conventions import DEFAULT_WINDOW_SUV
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project

SEED, NUMBER, VIEWS = 6, 0, 12
COLOURS = {"truth": "#1b7837", "visibility": "#e08214", "explain": "#b2182b"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    _, suv, truth = crowded_studies(SEED)[NUMBER]
    geometry = ViewGeometry.for_volume(suv, view_angles(VIEWS))
    views = project(suv.array, geometry).suv
    labels = label_views(
        truth.astype(np.uint8), suv.array, views, geometry, DEFAULT_WINDOW_SUV
    ).label("visible")
    noisy, what = spoil(labels, views, np.random.default_rng([0, VIEWS]))
    masks = {"truth": truth}
    for rule in ("visibility", "explain"):
        masks[rule] = fuse(noisy, geometry, RULES[rule], suv.array, views)
    figure, axes = plt.subplots(1, 4, figsize=(13, 4.6), width_ratios=(0.8, 1, 0.9, 1.3))
    row_mm, column_mm = geometry.pixel_mm
    shown = next(view for view, done in enumerate(what) if "discs" in done)
    axes[0].imshow(views[shown], cmap="gray_r", vmax=10, aspect=row_mm / column_mm)
    axes[0].contour(noisy[shown], [0.5], colors="#2166ac", linewidths=0.9)
    axes[0].set_title(f"view {shown + 1} of {VIEWS}: {what[shown]}", fontsize=9)
    z = int(truth.sum((1, 2)).argmax())
    ys, xs = np.nonzero(truth[z])
    box = (slice(ys.min() - 6, ys.max() + 7), slice(xs.min() - 6, xs.max() + 7))
    axes[1].imshow(suv.array[z][box], cmap="gray_r", vmin=0, vmax=10)
    for name, mask in masks.items():
        axes[1].contour(mask[z][box], [0.5], colors=COLOURS[name], linewidths=1.6)
        label = name if name == "truth" else f"{name}, 3D Dice {dice(mask, truth):.2f}"
        axes[1].plot([], [], color=COLOURS[name], label=label)
    axes[1].legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, -0.32))
    axes[1].set_title("axial slice, from these 12 views", fontsize=9)
    report = json.loads(args.report.read_text())
    rows = [row for row in report["rows"] if row["study"] != "STS_001"]
    for axis, kind in ((axes[2], "oracle"), (axes[3], "noisy")):
        for rule in RULES:
            counts = sorted({row["views"] for row in rows})
            means = [
                np.mean([r[rule] for r in rows if r["views"] == count and r["kind"] == kind])
                for count in counts
            ]
            axis.plot(counts, means, marker="o", markersize=3, label=rule)
        axis.set(xscale="log", xticks=counts, ylim=(0, 1), xlabel="views")
        axis.set_xticklabels(counts)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.set_title(f"{kind} views: mean 3D Dice", fontsize=9)
    axes[3].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axis in axes[:2]:
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(args.out / "fusion.png", dpi=110)


if __name__ == "__main__":
    main()
