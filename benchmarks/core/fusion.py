"""Comparison of fusion rules: the share of a 3D mask that its views give back.

    python benchmarks/core/fusion.py [--out FOLDER] [--sts FOLDER] [--model FOLDER] [--views N ...]
        [--seeds N ...] [--noise_seeds N] [--pixel_mm MM] [--speed]

`--seeds --speed` times a large study and does nothing else.

Studies: the first six simulated lymphoma patients (crowded nodes) of each seed, voxels of 4 mm, and
--sts, a folder with SUV.nii.gz and SEG.nii.gz (the real STS_001). Seed 5 was used to choose the
weights of the rule `explain` and is not reported unless asked for; 6 and 7 were fixed beforehand.
Views that go into each rule:

- `oracle`: the projections of the true mask.
- `noisy`: what models do wrong, all at once. Occluded pixels are removed (labels `visible`); the
  lesions of a view are eroded, dilated (by a pixel, 4-neighbours) or left, one third each; 20 % of
  the views gain one to three false discs of 2 to 6 pixels radius in the body; 20 % are empty.
- `predicted`: probabilities of a trained model, --model.

`mean` and `visibility` need a threshold, which no single value serves: theirs are the best of 0.3,
0.4, ..., 0.9 on the noisy views of seed 5. `max` has 0.9 and `hull` 0.5, `explain` needs none. For
`predicted` views the rule that `fusion.rules.PREDICTED_VIEWS` names is shown too.

--pixel_mm 2 makes views for pixels of 2 mm: the detector is then finer than the voxels.
"""

import argparse
import json
import os
import platform
import statistics
from datetime import date
from pathlib import Path

import numba
import numpy as np
from scipy import ndimage

from nnunetv2_mip.conventions import DEFAULT_WINDOW_SUV
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import PREDICTED_VIEWS, FusionRule
from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv
from nnunetv2_mip.phantom.lesions import disease_pattern
from nnunetv2_mip.phantom.subject import simulate_subject
from nnunetv2_mip.views.channels import make_views
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.views.resampling import to_detector, view_spacing_mm

SEEDS = (6, 7)
PER_SEED = 6
SPACING_MM = 4.0
VIEWS = (2, 4, 8, 12, 24, 48)
RULES = {
    "hull": FusionRule("hull", threshold=0.5),
    "mean": FusionRule("mean", threshold=0.7),
    "max": FusionRule("max", threshold=0.9),
    "visibility": FusionRule("visibility", threshold=0.6),
    "explain": FusionRule("explain"),
}
SHARE = 0.2
DISCS, DISC_RADIUS_PX = (1, 3), (2.0, 6.0)
BODY_SUV = 0.5


def crowded_studies(seed: int) -> list[tuple[str, Volume, np.ndarray]]:
    """Name, SUV and mask of the first lymphoma patients of a seed."""
    numbers = (n for n in range(10**6) if disease_pattern(seed, n) == "lymphoma")
    studies = []
    for number in (next(numbers) for _ in range(PER_SEED)):
        study = simulate_subject(seed, number, SPACING_MM)
        name = f"seed {seed} subject {number}"
        suv = np.ascontiguousarray(study.suv, np.float32)
        studies.append((name, Volume(suv, study.grid, Path(name)), study.seg.astype(bool)))
    return studies


def spoil(
    labels: np.ndarray, suv_views: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Views (V, H, W) with the errors of the module's docstring, and what was done to each."""
    count = len(labels)
    some = max(1, round(SHARE * count))
    order = rng.permutation(count)
    empty, disturbed = set(order[:some]), set(order[some : 2 * some])
    cross = ndimage.generate_binary_structure(2, 1)
    out, what = [], []
    for view in range(count):
        mask, done = labels[view].astype(bool), ["eroded", "dilated", "kept"][rng.integers(3)]
        if done == "eroded":
            mask = ndimage.binary_erosion(mask, cross)
        elif done == "dilated":
            mask = ndimage.binary_dilation(mask, cross)
        if view in disturbed:
            rows, columns = np.nonzero(suv_views[view] > BODY_SUV)
            row, column = np.ogrid[: mask.shape[0], : mask.shape[1]]
            for _ in range(rng.integers(DISCS[0], DISCS[1] + 1)):
                at, radius = rng.integers(len(rows)), rng.uniform(*DISC_RADIUS_PX)
                near = (row - rows[at]) ** 2 + (column - columns[at]) ** 2 <= radius**2
                mask = mask | near
            done += ", discs"
        if view in empty:
            mask, done = np.zeros_like(mask), "empty"
        out.append(mask)
        what.append(done)
    return np.stack(out).astype(np.float32), what


def dices(stack: np.ndarray, geometry, suv: Volume, suv_views, truth, rules: dict) -> dict:
    return {
        name: dice(fuse(stack, geometry, rule, suv.array, suv_views), truth)
        for name, rule in rules.items()
    }


def score_study(
    name: str, suv: Volume, truth: np.ndarray, views: int, args: argparse.Namespace, predictor
) -> list[dict]:
    """A row for each kind of views (and noise seed) of one study at one number of views."""
    geometry = ViewGeometry.for_volume(suv, view_angles(views), args.pixel_mm)
    suv_views = project(suv.array, geometry).suv
    head = {"study": name, "views": views}
    oracle = project_mask(truth, geometry).astype(np.float32)
    rows = [{**head, "kind": "oracle", **dices(oracle, geometry, suv, suv_views, truth, RULES)}]
    found = label_views(
        truth.astype(np.uint8), suv.array, suv_views, geometry, DEFAULT_WINDOW_SUV
    ).label("visible")
    for seed in range(args.noise_seeds):
        noisy, _ = spoil(found, suv_views, np.random.default_rng([seed, views]))
        scores = dices(noisy, geometry, suv, suv_views, truth, RULES)
        rows.append({**head, "kind": "noisy", **scores})
    if predictor is not None:
        config = predictor.config
        geometry = ViewGeometry.for_volume(suv, view_angles(views), config.pixel_mm)
        made = make_views(
            suv.array, None, geometry, config.channels, config.window_suv, config.pixel_mm
        )
        spacing = view_spacing_mm(geometry, config.pixel_mm)
        answer = predictor.view_probabilities(made.levels, spacing[1:])
        answer = to_detector(answer, geometry, config.pixel_mm)
        rules = {**RULES, "default": PREDICTED_VIEWS}
        scores = dices(answer, geometry, suv, made.suv, truth, rules)
        rows.append({**head, "kind": "predicted", **scores})
    return rows


def measure_speed(repeats: int = 5) -> dict:
    """Seconds of projecting and fusing 48 views of a 400 x 400 x 326 volume, in turn."""
    from projection import AUTOPET, patient_on_grid, timed_in_turn

    suv, seg = patient_on_grid(*AUTOPET, simulate_mm=3.0)
    geometry = ViewGeometry.for_volume(suv, view_angles(48))
    suv_views = project(suv.array, geometry).suv
    oracle = project_mask(seg, geometry).astype(np.float32)
    found = label_views(seg, suv.array, suv_views, geometry, DEFAULT_WINDOW_SUV).label("visible")
    noisy, _ = spoil(found, suv_views, np.random.default_rng(0))
    works = {"project": lambda: project(suv.array, geometry)}
    for name, rule in RULES.items():
        for kind, stack in (("oracle", oracle), ("noisy", noisy)):
            works[f"{name}, {kind}"] = lambda stack=stack, rule=rule: fuse(
                stack, geometry, rule, suv.array, suv_views
            )
    seconds = timed_in_turn(works, repeats)
    return {name: statistics.median(values) for name, values in seconds.items()}


def summarise(rows: list[dict], rules: list[str]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    frame["cohort"] = np.where(frame.study == "STS_001", "STS_001", "crowded nodes")
    for (cohort, kind), part in frame.groupby(["cohort", "kind"], sort=False):
        there = [rule for rule in rules if rule in part and part[rule].notna().any()]
        table = part.groupby("views")[there].mean()
        print(f"\n{cohort}, {kind} views: mean Dice of {part.study.nunique()} studies")
        print(table.to_string(float_format=lambda value: f"{value:.3f}"))
        worst = (part["explain"] - part["hull"]).min()
        print(f"explain against hull, worst study and number of views: {worst:+.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark_fusion"))
    parser.add_argument("--sts", type=Path, help="folder with SUV.nii.gz and SEG.nii.gz")
    parser.add_argument("--model", type=Path, help="model folder, for predicted views")
    parser.add_argument("--views", type=int, nargs="+", default=list(VIEWS))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--noise_seeds", type=int, default=2)
    parser.add_argument("--pixel_mm", type=float, help="pixels of the views in mm")
    parser.add_argument("--speed", action="store_true", help="also time a large study")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    predictor = None
    if args.model:
        from nnunetv2_mip.inference.predictor import MIPPredictor

        predictor = MIPPredictor.from_model_folder(args.model, device="cpu")
    studies = [study for seed in args.seeds for study in crowded_studies(seed)]
    if args.sts:
        suv = read_suv(args.sts / "SUV.nii.gz")
        mask = read_mask(args.sts / "SEG.nii.gz", like=suv).array.astype(bool)
        studies.append(("STS_001", suv, mask))
    rows = []
    for name, suv, truth in studies:
        for views in args.views:
            rows += score_study(name, suv, truth, views, args, predictor)
        print(f"{name}: done", flush=True)
    report = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
        "threads": numba.get_num_threads(),
        "pixel_mm": args.pixel_mm,
        "rows": rows,
    }
    if rows:
        summarise(rows, [*RULES, "default"])
    if args.speed:
        report["seconds"] = measure_speed()
        print("\n400 x 400 x 326 voxels, 48 views, seconds")
        for name, seconds in report["seconds"].items():
            print(f"{name:24s}{seconds:.3f}")
    (args.out / "fusion.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
