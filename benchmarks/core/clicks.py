"""Effect of autoPET IV's clicks on simulated patients, click by click.

    python benchmarks/core/clicks.py [--out FOLDER] [--model FOLDER] [--seed N] [--studies N]
        [--sts FOLDER]

The first --studies simulated patients with lesions of a seed (voxels of 4 mm) are predicted as
inference.json says; then clicks are added, k of each kind for k = 0 to 10:

- `preset`: drawn from truth and image alone, as the challenge hands them out (tumour clicks
  innermost in the lesions, the largest first; background clicks where the uptake outside of lesions
  is highest);
- `corrective`: each pair innermost in the largest missed and the largest wrongly marked region of
  the mask so far, as a reader who looks at it would click.

The weights of `fusion.click_refinement.ClickModel` were chosen on seed 8 (eleven patients) and
STS_001; seed 9 was fixed beforehand. --sts adds the real study, a folder with SUV.nii.gz and
SEG.nii.gz. Simulated patients and predictions are kept in --out and used again.
"""

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np

from nnunetv2_mip.evaluation.case_scores import volume_scores
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.io.clicks import Clicks
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv
from nnunetv2_mip.nnunet.model_folder import bundled_model
from nnunetv2_mip.phantom.clicks import corrective_clicks, preset_clicks
from nnunetv2_mip.phantom.lesions import disease_pattern
from nnunetv2_mip.phantom.subject import simulate_subject

SPACING_MM = 4.0
MOST = 10


def predicted(seed: int, index: int, folder: Path, load) -> dict:
    """SUV, truth and predicted mask (z, y, x) of a simulated patient."""
    path = folder / f"{seed}_{index}.npz"
    if not path.is_file():
        study = simulate_subject(seed, index, SPACING_MM)
        suv = np.ascontiguousarray(study.suv, np.float32)
        found = load().predict_study(Study(Volume(suv, study.grid, path)))
        np.savez_compressed(path, suv=suv, seg=study.seg, mask=found.mask)
    with np.load(path) as content:
        return {name: content[name] for name in ("suv", "seg", "mask")}


def scores(mask: np.ndarray, truth: np.ndarray, clicks: Clicks, mm: tuple) -> dict:
    found = volume_scores(mask, truth, mm)
    return {
        "dice": found.dice,
        "fpv_ml": found.false_positive_volume_ml,
        "fnv_ml": found.false_negative_volume_ml,
        "clicks": len(clicks.tumour) + len(clicks.background),
        "inside": sum(int(mask[click]) for click in clicks.tumour),
        "outside": sum(1 - int(mask[click]) for click in clicks.background),
    }


def click_through(name: str, study: dict, mm: tuple) -> list[dict]:
    """A row for each way of clicking and each number of clicks."""
    suv, truth, before = study["suv"], study["seg"], study["mask"]
    rows = []
    preset, clicks, mask = preset_clicks(suv, truth, mm, MOST), Clicks(), before
    for k in range(MOST + 1):
        given = Clicks(preset.tumour[:k], preset.background[:k])
        found = with_clicks(before, suv, given, mm)
        rows.append({"study": name, "way": "preset", "k": k, **scores(found, truth, given, mm)})
        if k:
            clicks = corrective_clicks(mask, truth, mm, clicks)
            mask = with_clicks(before, suv, clicks, mm)
        rows.append({"study": name, "way": "corrective", "k": k, **scores(mask, truth, clicks, mm)})
    return rows


def summarise(rows: list[dict]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    for way, part in frame.groupby("way", sort=False):
        table = part.groupby("k")[["dice", "fpv_ml", "fnv_ml"]].mean()
        by_study = part.pivot(index="study", columns="k", values="dice")
        table["studies_worse_than_before"] = (by_study.diff(axis=1) < -0.005).sum()
        print(f"\n{way} clicks, {part.study.nunique()} studies, mean")
        print(table.to_string(float_format=lambda value: f"{value:.3f}"))
        kept = part["inside"].sum() + part["outside"].sum()
        print(f"clicks kept: {kept} of {part['clicks'].sum()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark_clicks"))
    parser.add_argument("--model", type=Path, help="model folder (the bundled one)")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--sts", type=Path, help="folder with SUV.nii.gz and SEG.nii.gz")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    loaded = []

    def load():
        if not loaded:
            from nnunetv2_mip.inference.predictor import MIPPredictor

            folder = args.model or bundled_model()
            loaded.append(MIPPredictor.from_model_folder(folder, device="cpu"))
        return loaded[0]

    rows, index, done, started = [], 0, 0, time.perf_counter()
    while done < args.studies:
        if disease_pattern(args.seed, index) != "healthy":
            study = predicted(args.seed, index, args.out, load)
            rows += click_through(f"{args.seed}_{index}", study, (SPACING_MM,) * 3)
            done += 1
            print(f"{done} of {args.studies}", end="\r", flush=True)
        index += 1
    summarise(rows)
    if args.sts:
        suv = read_suv(args.sts / "SUV.nii.gz")
        truth = read_mask(args.sts / "SEG.nii.gz", like=suv).array
        mask = load().predict_study(Study(suv)).mask
        study = {"suv": suv.array, "seg": truth, "mask": mask}
        real = click_through("STS_001", study, suv.spacing_mm)
        summarise(real)
        rows += real
    report = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    (args.out / "clicks.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
