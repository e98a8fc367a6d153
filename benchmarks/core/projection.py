"""Speed of projection and conversion against other ways, side by side in one run.

    python benchmarks/core/projection.py [--out FOLDER] [--study FOLDER] [--rival_views N] [--quick]

Volume: a simulated patient on autoPET's grid (400 x 400 x 326 voxels of 2.036 x 2.036 x 3 mm), or
--study, a folder with SUV.nii.gz and SEG.nii.gz. Four tables are printed and written as JSON:

- `rivals`: 48 SUV views and 48 mask views, by this projector, by its plain numba form (the one it
  takes where LLVM refuses its own IR), and by rotating the volume for every view and taking the
  maximum: MONAI's Affine (as "MIP-Based Tumor Segmentation", arXiv 2510.09326,
  has it), scipy.ndimage.rotate, and SimpleITK's resampler. A rival's cost a view does not depend on
  the angle: --rival_views of them are timed, evenly spread, and the mean is multiplied by 48.
- `conversion`: one study from files to files with every kind of label, against the floor: reading
  the same SUV and SEG, and writing the same outputs, without computing anything between; once by
  this package's reader, once by SimpleITK (zlib).
- `scaling`: seconds for 12, 24, 48 and 96 views of three sizes of volume.
- `memory`: peak of one conversion in a process of its own, also for a total-body volume
  (440 x 440 x 1000 voxels of 1.65 mm).

Every figure is the median of --repeats runs after one that is not counted (compiling, caches);
a ratio to a floor is the median of the ratios of rounds in which both were timed.
"""

import argparse
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numba
import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.conventions import DEFAULT_WINDOW_SUV
from nnunetv2_mip.dataset_conversion.autopet import convert_study
from nnunetv2_mip.dataset_conversion.conversion_plan import CasePaths
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.study_layouts import StudyFiles
from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv, write_volume
from nnunetv2_mip.phantom.subject import simulate_subject
from nnunetv2_mip.views import simd
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.views.settings import LABEL_MODES, ViewSettings
from nnunetv2_mip.views.stack_files import read_stack, write_stack

VIEWS = 48
SEED, SUBJECT = 0, 38
AUTOPET = ((400, 400, 326), (2.036, 2.036, 3.0))
TOTAL_BODY = ((440, 440, 1000), (1.65, 1.65, 1.65))
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def patient_on_grid(size: tuple, spacing: tuple, simulate_mm: float) -> tuple[Volume, np.ndarray]:
    """A simulated patient, resampled to a grid that is centred on it."""
    study = simulate_subject(SEED, SUBJECT, simulate_mm)
    arrays = []
    for array, how in ((study.suv, sitk.sitkLinear), (study.seg, sitk.sitkNearestNeighbor)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([simulate_mm] * 3)
        centre = [(n - 1) / 2 * simulate_mm for n in image.GetSize()]
        origin = [c - (n - 1) / 2 * mm for c, n, mm in zip(centre, size, spacing)]
        resampled = sitk.Resample(
            image, size, sitk.Transform(), how, origin, spacing, IDENTITY, 0.0
        )
        arrays.append(sitk.GetArrayFromImage(resampled))
    # A scanner's air is not empty: a little of the noise of reconstruction, as in real studies.
    rng = np.random.default_rng(SEED)
    air = arrays[0] == 0
    arrays[0][air] = rng.exponential(0.01, int(air.sum())).astype(np.float32)
    # DICOM holds 16-bit numbers and a slope a slice: files compress as those of real studies do.
    slope = arrays[0].max(axis=(1, 2), keepdims=True) / np.float32(32767)
    arrays[0] = np.rint(arrays[0] / slope).astype(np.float32) * slope
    grid = SourceGrid(size, spacing, (0.0, 0.0, 0.0), IDENTITY)
    return Volume(arrays[0], grid, Path("phantom")), arrays[1]


def timed(work: Callable, repeats: int, warm: bool = True) -> float:
    """Median seconds of `work`."""
    if warm:
        work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def timed_in_turn(works: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turn: what disturbs the machine disturbs them all."""
    seconds = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compare_rivals(suv: Volume, seg: np.ndarray, rival_views: int, repeats: int) -> dict:
    geometry = ViewGeometry.for_volume(suv, view_angles(VIEWS))

    def ours() -> None:
        views = project(suv.array, geometry).suv
        label_views(seg, suv.array, views, geometry, DEFAULT_WINDOW_SUV)

    table = {
        "this projector": {
            "suv_s": timed(lambda: project(suv.array, geometry), repeats),
            "suv_with_depth_s": timed(lambda: project(suv.array, geometry, depth=True), repeats),
            "projected_label_s": timed(lambda: project_mask(seg, geometry), repeats),
            "suv_and_labels_s": timed(ours, repeats),
        }
    }
    table["this projector"]["occlusion_aware_against_projected"] = table["this projector"][
        "suv_and_labels_s"
    ] / (table["this projector"]["suv_s"] + table["this projector"]["projected_label_s"])
    table["in plain numba"] = time_plain_form(suv, geometry, repeats)
    angles = view_angles(rival_views, start_deg=7.0)
    for name, rotate in (("MONAI Affine", monai), ("scipy", scipy), ("SimpleITK", simpleitk)):
        suv_rotate, seg_rotate = rotate(suv.array, False), rotate(seg, True)
        suv_rotate(1.0)
        per_view = [
            statistics.mean(_seconds(view, angle) for angle in angles)
            for view in (suv_rotate, seg_rotate)
        ]
        table[name] = {
            "suv_s": per_view[0] * VIEWS,
            "projected_label_s": per_view[1] * VIEWS,
            "suv_and_labels_s": sum(per_view) * VIEWS,
            "slower": sum(per_view) * VIEWS / table["this projector"]["suv_and_labels_s"],
        }
    return table


def time_plain_form(suv: Volume, geometry: ViewGeometry, repeats: int) -> dict:
    """Seconds of the projection by `views.simd_plain`."""
    os.environ[simd.FORM_VARIABLE] = "plain"
    simd.needs_plain_form.cache_clear()
    try:
        return {
            "suv_s": timed(lambda: project(suv.array, geometry), repeats),
            "suv_with_depth_s": timed(lambda: project(suv.array, geometry, depth=True), repeats),
        }
    finally:
        del os.environ[simd.FORM_VARIABLE]
        simd.needs_plain_form.cache_clear()


def _seconds(view: Callable, angle: float) -> float:
    start = time.perf_counter()
    view(angle)
    return time.perf_counter() - start


def monai(volume: np.ndarray, mask: bool) -> Callable:
    import torch
    from monai.transforms import Affine

    torch.set_num_threads(numba.get_num_threads())
    # (channel, z, y, x); rotation about z is the first of MONAI's three angles.
    tensor = torch.from_numpy(np.ascontiguousarray(volume, np.float32))[None]
    mode = "nearest" if mask else "bilinear"

    def view(angle: float) -> np.ndarray:
        rotate = Affine(
            rotate_params=(np.deg2rad(angle), 0.0, 0.0),
            mode=mode,
            padding_mode="zeros",
            image_only=True,
        )
        return rotate(tensor)[0].amax(1).numpy()

    return view


def scipy(volume: np.ndarray, mask: bool) -> Callable:
    from scipy import ndimage

    def view(angle: float) -> np.ndarray:
        turned = ndimage.rotate(volume, angle, axes=(1, 2), reshape=False, order=0 if mask else 1)
        return turned.max(axis=1)

    return view


def simpleitk(volume: np.ndarray, mask: bool) -> Callable:
    image = sitk.GetImageFromArray(volume)
    how = sitk.sitkNearestNeighbor if mask else sitk.sitkLinear
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(numba.get_num_threads())

    def view(angle: float) -> np.ndarray:
        turn = sitk.Euler3DTransform()
        turn.SetCenter([(n - 1) / 2 for n in image.GetSize()])
        turn.SetRotation(0, 0, float(np.deg2rad(angle)))
        turned = sitk.Resample(image, image, turn, how, 0.0)
        return sitk.GetArrayFromImage(turned).max(axis=1)

    return view


def compare_conversion(study: StudyFiles, folder: Path, repeats: int) -> dict:
    """Seconds of a conversion, and of reading and writing the same files without it."""
    table = {}
    for mode in LABEL_MODES:
        paths = _paths(folder / mode)
        work = functools.partial(convert_study, (study, ViewSettings(labels=mode)), paths)
        work()
        outputs = [path for path in paths.files() if path.name.endswith(".nii.gz")]
        stacks = [(read_stack(path), folder / f"again_{path.name}") for path in outputs]
        images = [sitk.ReadImage(str(path)) for path in outputs]
        seconds = timed_in_turn(
            {
                "conversion_s": work,
                "read_s": functools.partial(_read, study),
                "write_s": functools.partial(_write, stacks),
                "simpleitk_floor_s": functools.partial(_usual, study, images, folder),
            },
            repeats,
        )
        seconds["floor_s"] = [sum(pair) for pair in zip(seconds["read_s"], seconds["write_s"])]
        table[mode] = {name: statistics.median(values) for name, values in seconds.items()}
        for name, floor in (
            ("against_floor", "floor_s"),
            ("against_simpleitk_floor", "simpleitk_floor_s"),
        ):
            # Round by round: other work on the machine slows down both.
            pairs = zip(seconds["conversion_s"], seconds[floor])
            table[mode][name] = statistics.median(a / b for a, b in pairs)
    plain = table["projected"]["conversion_s"]
    for row in table.values():
        row["against_projected"] = row["conversion_s"] / plain
    return table


def _read(study: StudyFiles) -> None:
    read_mask(study.seg, like=read_suv(study.suv))


def _write(stacks: list) -> None:
    for (stack, spacing), target in stacks:
        write_stack(stack, spacing, target)


def _usual(study: StudyFiles, images: list[sitk.Image], folder: Path) -> None:
    """Read and write the same files with SimpleITK alone, as the floor of other programs."""
    sitk.GetArrayFromImage(sitk.ReadImage(str(study.suv)))
    sitk.GetArrayFromImage(sitk.ReadImage(str(study.seg)))
    for image in images:
        sitk.WriteImage(image, str(folder / "usual.nii.gz"), useCompression=True)


def _paths(folder: Path) -> CasePaths:
    for name in ("imagesTr", "labelsTr", "labelsTr_projected"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return CasePaths(folder / "imagesTr", folder / "labelsTr", "case")


def measure_scaling(repeats: int) -> list[dict]:
    rows = []
    for factor in (0.5, 0.75, 1.0):
        size = tuple(round(n * factor / 2) * 2 for n in AUTOPET[0])
        spacing = tuple(mm * n / m for mm, n, m in zip(AUTOPET[1], AUTOPET[0], size))
        suv, _ = patient_on_grid(size, spacing, 4.0)
        for views in (12, 24, 48, 96):
            geometry = ViewGeometry.for_volume(suv, view_angles(views))
            seconds = timed(functools.partial(project, suv.array, geometry), repeats)
            rows.append(
                {
                    "size": list(size),
                    "views": views,
                    "seconds": seconds,
                    "ns_per_voxel_and_view": seconds / views / suv.array.size * 1e9,
                }
            )
    return rows


def measure_memory(study: StudyFiles, folder: Path) -> dict:
    """Peak memory and seconds of one conversion in a process of its own."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from nnunetv2_mip.dataset_conversion.autopet import convert_study\n"
        "from nnunetv2_mip.dataset_conversion.conversion_plan import CasePaths\n"
        "from nnunetv2_mip.io.study_layouts import StudyFiles\n"
        "from nnunetv2_mip.views.settings import ViewSettings\n"
        "suv, seg, out = map(Path, sys.argv[1:])\n"
        "start = time.perf_counter()\n"
        "study = StudyFiles('case', 'patient', suv, None, seg)\n"
        "paths = CasePaths(out / 'imagesTr', out / 'labelsTr', 'case')\n"
        "convert_study((study, ViewSettings(labels='visible')), paths)\n"
        "seconds = time.perf_counter() - start\n"
        # Not getrusage: what it says begins with the memory of the process that started this one.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['VmHWM'].split()[0]) * 1024, seconds)\n"
    )
    _paths(folder)
    command = [sys.executable, "-c", code, str(study.suv), str(study.seg), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, seconds = done.stdout.split()
    return {"peak_gb": int(peak) / 1e9, "seconds": float(seconds)}


def write_study(suv: Volume, seg: np.ndarray, folder: Path) -> StudyFiles:
    write_volume(suv.array, suv.grid, folder / "SUV.nii.gz")
    write_volume(seg, suv.grid, folder / "SEG.nii.gz")
    return StudyFiles("case", "patient", folder / "SUV.nii.gz", None, folder / "SEG.nii.gz")


def show(title: str, rows: dict | list) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows).T if isinstance(rows, dict) else pd.DataFrame(rows)
    print(f"\n{title}\n{frame.to_string(float_format=lambda value: f'{value:.3f}')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark_projection"))
    parser.add_argument("--study", type=Path, help="folder with SUV.nii.gz and SEG.nii.gz")
    parser.add_argument("--rival_views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="without scaling and total body")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work.", dir=args.out))
    try:
        if args.study:
            suv = read_suv(args.study / "SUV.nii.gz")
            seg = read_mask(args.study / "SEG.nii.gz", like=suv).array
            name = "SUV.nii.gz, SEG.nii.gz"
            study = StudyFiles(
                "case", "patient", args.study / "SUV.nii.gz", None, args.study / "SEG.nii.gz"
            )
        else:
            suv, seg = patient_on_grid(*AUTOPET, simulate_mm=3.0)
            name = "simulated patient"
            study = write_study(suv, seg, work)
        report = {
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
            "threads": numba.get_num_threads(),
            "volume": {"what": name, "grid": suv.grid.describe()},
            "file_mb": {p.name: p.stat().st_size / 1e6 for p in (study.suv, study.seg)},
        }
        print(json.dumps(report, indent=1))
        report["conversion"] = compare_conversion(study, work / "conversion", args.repeats)
        show("conversion of one study, files to files", report["conversion"])
        report["rivals"] = compare_rivals(suv, seg, args.rival_views, args.repeats)
        show(f"{VIEWS} views, in memory", report["rivals"])
        report["memory"] = {"this study": measure_memory(study, work / "memory")}
        if not args.quick:
            report["scaling"] = measure_scaling(args.repeats)
            show("scaling", report["scaling"])
            big, mask = patient_on_grid(*TOTAL_BODY, simulate_mm=4.0)
            (work / "total_body").mkdir()
            files = write_study(big, mask, work / "total_body")
            del big, mask
            report["memory"]["total body"] = measure_memory(files, work / "total_body")
        show("memory of a conversion with visible labels", report["memory"])
        (args.out / "projection.json").write_text(json.dumps(report, indent=1) + "\n")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
