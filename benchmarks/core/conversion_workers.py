"""Throughput of a conversion on one and on two Dask workers of one machine.

    python benchmarks/core/conversion_workers.py [--out FOLDER] [--studies N]

One simulated patient on autoPET's grid (400 x 400 x 326 voxels) is linked as N patients, and
converted with visible labels by `build_raw_dataset` on a Dask cluster whose workers have one numba
thread each. Workers and caches are warm: every round is preceded by a conversion of two studies a
worker that is not timed. Rounds alternate between one and two workers; the medians are compared.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

from projection import AUTOPET, patient_on_grid, write_study

from nnunetv2_mip.dataset_conversion.autopet import convert_autopet
from nnunetv2_mip.views.settings import ViewSettings


def link_cohort(files, tree: Path, count: int) -> Path:
    for number in range(count):
        folder = tree / f"PETCT_{number:04d}" / "study"
        folder.mkdir(parents=True)
        for path in (files.suv, files.seg):
            os.link(path, folder / path.name)
    return tree


def seconds(tree: Path, raw: Path, address: str) -> float:
    os.environ["nnUNet_raw"] = str(raw)
    start = time.perf_counter()
    convert_autopet(tree, 1, "Bench", ViewSettings(labels="visible"), dask=address)
    passed = time.perf_counter() - start
    shutil.rmtree(raw)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark_workers"))
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    # Workers inherit these.
    os.environ["NUMBA_NUM_THREADS"] = "1"
    from distributed import LocalCluster

    args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work.", dir=args.out))
    try:
        (work / "study").mkdir()
        files = write_study(*patient_on_grid(*AUTOPET, simulate_mm=3.0), work / "study")
        tree = link_cohort(files, work / "tree", args.studies)
        times: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(args.rounds):
            for count in times:
                with LocalCluster(
                    n_workers=count, threads_per_worker=1, dashboard_address=None
                ) as cluster:
                    address = cluster.scheduler_address
                    warm = link_cohort(files, work / f"warm_{turn}_{count}", 2 * count)
                    seconds(warm, work / "raw", address)
                    times[count].append(seconds(tree, work / "raw", address))
                print(f"{count} workers: {times[count][-1]:.2f} s", flush=True)
        rates = {count: args.studies / statistics.median(found) for count, found in times.items()}
        report = {
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} CPU cores",
            "studies": args.studies,
            "seconds": times,
            "studies_per_second": rates,
            "ratio": rates[2] / rates[1],
        }
        print(json.dumps(report, indent=1))
        (args.out / "workers.json").write_text(json.dumps(report, indent=1) + "\n")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
