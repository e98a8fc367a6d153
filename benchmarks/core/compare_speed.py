"""Speed of two installations, measured by turns."""

import os
import resource
import shlex
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from compare_sides import Side, body_of, service
from compare_steps import DICOM

AUTOPET_SIZE, AUTOPET_SPACING = (400, 400, 326), (2.036, 2.036, 3.0)
READ_ONLY = "challenge, read-only installation"


def measure_command(words: list[str], environment: dict, work: Path) -> dict[str, float]:
    """Seconds, seconds of the processor, and MB at most, of a whole command."""
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (work / "speed.log").open("w") as log:
        process = subprocess.Popen(words, env=environment, cwd=work, stdout=log, stderr=log)
        _, status, own = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{shlex.join(words)}: {(work / 'speed.log').read_text()[-500:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": own.ru_maxrss / 1024}


def by_turns(sides, repeats: int, measure: Callable[[Side], dict]) -> dict:
    """Medians of both sides and their ratio; the first of all runs is thrown away on each side."""
    found = {side.name: [] for side in sides}
    for turn in range(repeats + 1):
        # Who begins alternates too.
        for side in sides if turn % 2 else sides[::-1]:
            measured = measure(side)
            if turn:
                found[side.name].append(measured)
    row = {"runs": found}
    for what in found["before"][0]:
        one, two = (statistics.median(r[what] for r in found[s.name]) for s in sides)
        row[what] = {"before": one, "after": two, "ratio": two / one if one else None}
    return row


def measure_speed(sides: tuple[Side, Side], out: Path, repeats: int) -> dict[str, dict]:
    """Every measurement by its name."""
    work = out / "speed"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    write_full_size(out / "inputs" / "tree_nifti", work / "full")
    make = sides[0].command("phantom -o phantoms -n 4 --seed 4 --spacing 4")
    measure_command(make, sides[0].environment(work), work)
    few = sorted((out / "inputs" / "few").iterdir())
    commands = {
        "--help": "predict --help",
        "convert one study of 400 x 400 x 326 voxels": "convert_autopet -i full -d 1",
        "convert a tree of 4 studies": "convert_autopet -i phantoms -d 1 --labels visible",
        "predict one PNG": f"predict -i {few[0]} -o png -device cpu",
        "predict STS_001 from DICOM": f"predict -i {DICOM} -o dicom -device cpu",
    }

    def command(words: str) -> Callable[[Side], dict]:
        def measure(side: Side) -> dict:
            for part in ("nnunet", "png", "dicom"):
                shutil.rmtree(work / part, ignore_errors=True)
            return measure_command(side.command(words), side.environment(work), work)

        return measure

    found = {}
    for name, words in commands.items():
        found[name] = by_turns(sides, repeats, command(words))
        print(f"{name}: {found[name]['seconds']}", flush=True)
    found["answer of the service"] = measure_service(sides, few, work, 4 * repeats)
    if shutil.which("bwrap") is None:
        print("bubblewrap is not installed: the challenge is not run read-only")
        return found
    found[READ_ONLY] = by_turns(sides, 2, lambda side: read_only(side, out, work))
    return found


def write_full_size(tree: Path, folder: Path) -> None:
    """The study of a tree, resampled to autoPET's grid."""
    import SimpleITK as sitk

    target = folder / "PETCT_full" / "study"
    target.mkdir(parents=True)
    for name, kind in (("SUV.nii.gz", sitk.sitkLinear), ("SEG.nii.gz", sitk.sitkNearestNeighbor)):
        image = sitk.ReadImage(str(next(tree.rglob(name))))
        found = sitk.Resample(
            image, AUTOPET_SIZE, sitk.Transform(), kind, image.GetOrigin(), AUTOPET_SPACING,
            image.GetDirection(), 0.0, image.GetPixelID(),
        )  # fmt: skip
        sitk.WriteImage(found, str(target / name), useCompression=True)


def measure_service(sides, images: list[Path], work: Path, repeats: int) -> dict:
    """Latency of one request after the other, by turns to two running services."""
    import httpx

    with ExitStack() as stack:
        clients = {}
        for side in sides:
            url = stack.enter_context(
                service(side, side.environment(work), work / f"serve_{side.name}.log")
            )
            clients[side.name] = stack.enter_context(httpx.Client(base_url=url, timeout=300))
        bodies = [body_of(path) for path in images]

        def ask(side: Side) -> dict[str, float]:
            started = time.perf_counter()
            for body in bodies:
                clients[side.name].post("/predict", content=body).raise_for_status()
            return {"seconds": (time.perf_counter() - started) / len(bodies)}

        return by_turns(sides, repeats, ask)


def read_only(side: Side, out: Path, work: Path) -> dict[str, float]:
    """The challenge on a machine that may write nowhere but to its output and /tmp.

    Kernels that numba loads, and those that it compiles anew, are counted from what it says of its
    caches. Without a warm cache beside the package all are compiled: half a minute.
    """
    words = side.command(f"grand_challenge --input {work}/in --output {work}/out --budget 100000")
    source = work / "in" / "images" / "pet" / "STS_001.mha"
    if not source.exists():
        import SimpleITK as sitk

        source.parent.mkdir(parents=True)
        image = sitk.ReadImage(str(next((out / "inputs" / "tree_nifti").rglob("SUV.nii.gz"))))
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
        sitk.WriteImage(image, str(source), useCompression=True)
    (work / "temporary").mkdir(exist_ok=True)
    sandbox = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    sandbox += ["--bind", str(work), str(work), "--die-with-parent"]
    own = {"HOME": "/nonexistent", "TMPDIR": str(work / "temporary"), "NUMBA_DEBUG_CACHE": "1"}
    environment = side.environment(work, **own)
    environment.pop("NUMBA_CACHE_DIR", None)
    found = measure_command([*sandbox, *words], environment, work)
    log = (work / "speed.log").read_text()
    shutil.rmtree(work / "temporary")
    kernels = {"kernels loaded": "data loaded from", "kernels compiled": "data saved to"}
    return {**found, **{name: log.count(sign) for name, sign in kernels.items()}}
