"""Draw docs/pictures/views_labels.png: one view with projected, visible and ignore labels.

    python benchmarks/core/draw_label_views.py [--real FOLDER] [--out PNG]

The upper row is a simulated patient. The lower row, with --real, is the study in FOLDER
(SUV.nii.gz and SEG.nii.gz), for the picture in the docs STS_001 of TCIA's Soft-tissue-Sarcoma
collection (CC BY 3.0). Of 48 views the one with the most occluded lesion pixels is shown. Its one
lesion is visible in 75 % of its pixels everywhere, so that the default settings keep it whole: the
row is drawn with --visible_share 1.
"""

import argparse
from pathlib import Path

import cc3d
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv
from nnunetv2_mip.phantom.subject import simulate_subject
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project
from nnunetv2_mip.views.settings import LABEL_MODES, OcclusionSettings

SEED, SUBJECT, SPACING_MM = 0, 38, 4.0
WINDOW_SUV = 10.0
MARGIN_MM, LEAST_MM = 40, 220
COLOURS = {1: (0.90, 0.16, 0.16), 2: (0.10, 0.45, 0.95)}
TITLES = {
    "projected": "projected: any ray that meets a lesion",
    "visible": "visible: what the image shows of it",
    "ignore": "ignore: the rest is neither (blue)",
}


def phantom() -> tuple[Volume, np.ndarray, str, OcclusionSettings]:
    study = simulate_subject(SEED, SUBJECT, SPACING_MM)
    volume = Volume(study.suv, study.grid, Path("phantom"))
    return volume, study.seg, "simulated patient", OcclusionSettings()


def real(folder: Path) -> tuple[Volume, np.ndarray, str, OcclusionSettings]:
    suv = read_suv(folder / "SUV.nii.gz")
    return (
        suv,
        read_mask(folder / "SEG.nii.gz", suv).array,
        folder.name,
        OcclusionSettings(visible_share=1),
    )


def draw_row(axes, suv: Volume, seg: np.ndarray, name: str, settings: OcclusionSettings) -> None:
    geometry = ViewGeometry.for_volume(suv, view_angles(48))
    views = project(suv.array, geometry).suv
    found = label_views(seg, suv.array, views, geometry, WINDOW_SUV, settings)
    occluded = (found.stack == 2).sum(axis=(1, 2))
    view = int(occluded.argmax())
    parts = cc3d.connected_components((found.stack[view] == 2).astype(np.uint8), connectivity=8)
    hidden = np.argwhere(parts == np.bincount(parts[parts > 0]).argmax())
    row_mm, column_mm = geometry.pixel_mm
    boxes = []
    for axis, step in ((0, row_mm), (1, column_mm)):
        low, high = hidden[:, axis].min() * step, (hidden[:, axis].max() + 1) * step
        grow = max(MARGIN_MM, (LEAST_MM - (high - low)) / 2)
        boxes.append((low - grow, high + grow))
    (top, bottom), (left, right) = boxes
    # A square part, so that the panels of a row are equal.
    half = max(bottom - top, right - left) / 2
    top, bottom = (top + bottom) / 2 - half, (top + bottom) / 2 + half
    left, right = (left + right) / 2 - half, (left + right) / 2 + half
    image = np.clip(views[view] / WINDOW_SUV, 0, 1)
    extent = (0, image.shape[1] * column_mm, image.shape[0] * row_mm, 0)

    def show(axis):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
        axis.set_xticks([])
        axis.set_yticks([])

    show(axes[0])
    axes[0].add_patch(
        plt.Rectangle((left, top), right - left, bottom - top, fill=False, color="k", lw=1)
    )
    angle = geometry.angles_deg[view]
    axes[0].set_title(f"{name}\n{angle:.4g}°", fontsize=9)
    for axis, mode in zip(axes[1:], LABEL_MODES):
        show(axis)
        label = found.label(mode)[view]
        for value, colour in COLOURS.items():
            shade = np.zeros((*label.shape, 4))
            shade[label == value] = (*colour, 0.28)
            axis.imshow(shade, extent=extent, interpolation="nearest")
            outline(axis, label == value, row_mm, column_mm, colour)
        axis.set_xlim(left, right)
        axis.set_ylim(bottom, top)
        axis.set_title(TITLES[mode], fontsize=9)


def outline(axis, mask: np.ndarray, row_mm: float, column_mm: float, colour) -> None:
    """Draw the edges of the pixels of a mask."""
    padded = np.pad(mask, 1)
    for r, c in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        axis.plot([c * column_mm, (c + 1) * column_mm], [r * row_mm] * 2, color=colour, lw=1.2)
    for r, c in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        axis.plot([c * column_mm] * 2, [r * row_mm, (r + 1) * row_mm], color=colour, lw=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/views_labels.png"))
    args = parser.parse_args()
    studies = [phantom()] + ([real(args.real)] if args.real else [])
    figure, axes = plt.subplots(
        len(studies),
        4,
        figsize=(12.5, 4.0 * len(studies)),
        squeeze=False,
        gridspec_kw={"width_ratios": [0.62, 1, 1, 1]},
        layout="constrained",
    )
    for row, study in zip(axes, studies):
        draw_row(row, *study)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)


if __name__ == "__main__":
    main()
