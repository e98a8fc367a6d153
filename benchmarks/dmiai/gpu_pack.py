"""Train recipes on a machine that has a GPU but no network, in short visits.

Here, once (the data set converted by `nnUNetv2_mip_convert_dmiai`):

    python benchmarks/dmiai/gpu_pack.py pack -d 10 --presets cpu_wide default -o pack

There, as often as there is time; each run goes on where the last one stopped:

    python pack/gpu_pack.py run -o out --recipes recipe=nnUNetTrainerMIP_recipe,cpu_wide \\
        --folds 0 1 --iterations 20000 --minutes 9.5 [--saved out_of_the_last_run]

Back here, a checkpoint out of its pieces:

    python benchmarks/dmiai/gpu_pack.py join out/NAME_fold_0.pth -o checkpoint_final.pth

The pack holds the raw data set (nnU-Net's preprocessing of it takes seconds, and one copy serves
all presets), this package as a wheel, and `wheels.txt`, the pinned packages that the other machine
needs beside its torch. `python pack/gpu_pack.py missing` there lists those it lacks; here,
`pip wheel --no-deps -r LIST -w wheels` (for its Python) gets them, and `--wheels FOLDER` takes them
along where they fit into --limit_mib; others may lie in another folder, given there to
`run --wheels`. A pack above the limit is refused.

`run` trains --parallel recipes and rivals at once, fold by fold, and leaves in -o: `table.md` (mean
per-image Dice over the validation patients, clean and perturbed), `scores/` (see `score_table.py`)
and both again in `scores.tar.gz`, and for each recipe and fold a checkpoint in 16-bit numbers with
all that training needs to go on (or, by --back, less), cut into pieces of at most 16 MiB with a
list of their SHA-256.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024
LIMIT_MIB = 64
PIECE_MIB = 16
MINUTES = 9.5
# A GPU does so many in half a minute, and a checkpoint is written after each.
ITERATIONS_AN_EPOCH = 250
# Kept for prediction and scores out of the time of a run.
RESERVE_SHARE = 0.15
SCRIPTS = ("gpu_pack.py", "recipes.py", "recipe_scores.py", "rivals.py", "score_table.py")
# What benchmarks/dmiai/rivals.py needs beside the package.
RIVALS_NEED = ("monai", "segmentation-models-pytorch")
# What a wheel of this package is built from.
PACKAGED = (
    *("nnunetv2_mip", "dataset_conversion", "trainers", "plans"),
    *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
# Comes with the other machine's torch.
NOT_PACKED = ("torch", "torchvision", "triton", "nvidia-", "cuda-", "nnunetv2-mip")


# ---- here ----


def pack(args: argparse.Namespace) -> None:
    from nnunetv2_mip.nnunet.paths import raw_dataset

    raw = raw_dataset(args.d)
    if args.o.exists():
        raise SystemExit(f"{args.o}: exists; choose another -o or remove it")
    args.o.mkdir(parents=True)
    shutil.copytree(raw, args.o / "raw" / raw.name)
    for name in SCRIPTS:
        shutil.copy(HERE / name, args.o / name)
    _build_wheel(HERE.parents[1], args.o / "code")
    presets = args.o / "presets"
    presets.mkdir()
    for preset in args.presets:
        shutil.copy(_preset_file(preset), presets)
    (args.o / "wheels.txt").write_text("\n".join(wheels_needed()) + "\n")
    if args.wheels:
        shutil.copytree(args.wheels, args.o / "wheels")
    (args.o / "pack.json").write_text(json.dumps({"dataset": raw.name}) + "\n")
    size = sum(path.stat().st_size for path in args.o.rglob("*") if path.is_file())
    if size > args.limit_mib * MIB:
        shutil.rmtree(args.o)
        raise SystemExit(f"{args.o}: would be {size / MIB:.0f} MiB, above {args.limit_mib}")
    print(f"{args.o}: {size / MIB:.1f} MiB")


def _build_wheel(source: Path, target: Path) -> None:
    """Our wheel, built from a copy of what is in it: a build leaves folders in its source."""
    with tempfile.TemporaryDirectory() as copy:
        for name in PACKAGED:
            place = source / name
            if place.is_dir():
                skipped = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(place, Path(copy) / name, ignore=skipped)
            else:
                shutil.copy(place, copy)
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
        subprocess.run([*command, "-w", str(target), copy], check=True)


def _preset_file(preset: str) -> Path:
    from nnunetv2_mip.plans import presets

    return Path(preset) if preset.endswith(".json") else presets.FOLDER / f"{preset}.json"


def wheels_needed() -> list[str]:
    """`name==version` of what this package requires here, without torch and what comes with it."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    found, waiting = {}, ["nnunetv2-mip", *RIVALS_NEED]
    while waiting:
        name = waiting.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        for text in package.requires or []:
            requirement = Requirement(text)
            key = requirement.name.lower().replace("_", "-")
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and key not in found and not key.startswith(NOT_PACKED):
                found[key] = None
                waiting.append(key)
        if name != "nnunetv2-mip":
            found[name] = package.version
    return [f"{name}=={version}" for name, version in sorted(found.items()) if version]


# ---- there ----


def run(args: argparse.Namespace) -> None:
    deadline = time.time() + args.minutes * 60
    _install(args.work, args.wheels)
    _set_environment(args.work, args.parallel)
    import recipe_scores as scores
    import recipes
    import torch

    from nnunetv2_mip.errors import MipError

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dataset = json.loads((HERE / "pack.json").read_text())["dataset"]
    raw = args.work / "nnUNet_raw" / dataset
    if not raw.exists():
        shutil.copytree(HERE / "raw" / dataset, raw)
    args.o.mkdir(parents=True, exist_ok=True)
    plans_of = {}
    jobs = []
    for fold in args.folds:
        for text in args.recipes:
            name, _, rest = text.partition("=")
            base, _, preset = rest.partition(",")
            if preset not in plans_of:
                plans_of[preset] = _plan(dataset, preset, args.work, args.np)
            trainer = recipes.shortened_trainer(
                base, args.iterations, args.work / "trainers", ITERATIONS_AN_EPOCH
            )
            jobs.append(Job(name, fold, trainer, plans_of[preset]))
        jobs += [Job(name, fold) for name in args.rivals]
    os.environ["nnUNet_extTrainer"] += f"{os.pathsep}{args.work / 'trainers'}"

    # A process for each: networks this small leave most of a large GPU idle.
    parallel = max(1, min(args.parallel, len(jobs)))
    rounds = math.ceil(len(jobs) / parallel)
    kept = scores.ScoreFolder(args.o / "scores")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=spawn) as pool:
        waiting = {}
        for number, job in enumerate(jobs):
            seconds = (deadline - time.time()) / rounds
            stop_at = time.time() + seconds * (number // parallel + 1 - RESERVE_SHARE)
            waiting[pool.submit(_work, args, dataset, job, stop_at, device)] = job
        for future in as_completed(waiting):
            job = waiting[future]
            try:
                rows, about = future.result()
            except MipError as error:
                # The others shall have their time.
                print(f"{job.name}, fold {job.fold}: {error}", file=sys.stderr)
                continue
            kept.add(rows, about["iterations"], about["parameters"], about["minutes"])
            print(
                f"{job.name}, fold {job.fold}: {about['iterations']} of {args.iterations} "
                f"iterations in {about['minutes']:.1f} min"
            )
    rows = kept.rows()
    if rows:
        text = scores.table(rows, rows[0]["recipe"], kept.notes())
        (args.o / "table.md").write_text(text + "\n")
        print(text)
        # One file of all that is small, where few files may go back.
        with tarfile.open(args.o / "scores.tar.gz", "w:gz") as archive:
            for path in (args.o / "scores", args.o / "table.md"):
                archive.add(path, path.name)


@dataclass(frozen=True)
class Job:
    """One training: of our trainers with plans, or of a rival (no trainer)."""

    name: str
    fold: int
    trainer: str | None = None
    plans: str | None = None


def _work(args, dataset: str, job: Job, stop_at: float, device: str) -> tuple[list[dict], dict]:
    """Train, save and score one job, in a process of its own: rows and what is known of it."""
    import recipe_scores as scores
    import recipes

    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.inference.predictor import MIPPredictor

    if job.trainer is None:
        return _work_on_rival(args, dataset, job, stop_at, device)
    folder = recipes.model_folder(dataset, job.trainer, job.plans)
    fold_folder = folder / f"fold_{job.fold}"
    if args.saved is not None and not any(fold_folder.glob("checkpoint_*.pth")):
        _restore(args.saved / f"{job.name}_fold_{job.fold}.pth", fold_folder)
    minutes, ended = recipes.train(dataset, job.fold, job.trainer, job.plans, device, stop_at)
    latest = "checkpoint_final.pth" if ended else "checkpoint_latest.pth"
    if not (fold_folder / latest).is_file():
        raise MipError("no epoch was finished")
    if args.back != "scores":
        save_in_pieces(
            fold_folder / latest,
            args.o / f"{job.name}_fold_{job.fold}.pth",
            args.piece_mib,
            weights_only=args.back == "weights",
        )
    predictor = MIPPredictor.from_model_folder(folder, [job.fold], latest, device)
    raw = args.work / "nnUNet_raw" / dataset
    out = args.work / "predicted" / job.name
    rows = recipes.predict(predictor, raw, job.fold, job.name, ["clean", "perturbed"], out)
    about = {"parameters": predictor.parameters, "minutes": minutes}
    about["iterations"] = args.iterations if ended else _done(args, fold_folder / latest)
    return scores.read_rows(_written(scores, rows, out / f"fold_{job.fold}.csv")), about


def _work_on_rival(args, dataset: str, job: Job, stop_at: float, device: str):
    """Rivals cannot go on with a training: one that is not through in time is given up."""
    import recipe_scores as scores

    from nnunetv2_mip.errors import MipError

    out = args.work / "rivals" / f"{job.name}_{job.fold}"
    command = [sys.executable, str(HERE / "rivals.py"), "-d", str(int(dataset[7:10]))]
    command += ["-o", str(out), "--folds", str(job.fold), "--iterations", str(args.iterations)]
    command += ["--copies", "clean", "perturbed", "-device", device, *args.rival_options, job.name]
    try:
        done = subprocess.run(
            command, check=False, stdout=sys.stderr, timeout=max(1.0, stop_at - time.time())
        )
    except subprocess.TimeoutExpired:
        raise MipError("was not through in time; rivals start anew each time") from None
    if done.returncode:
        raise MipError(f"rivals.py failed (exit {done.returncode})")
    about = scores.read_notes(out / job.name / f"fold_{job.fold}.json")
    about["iterations"] = args.iterations
    return scores.read_rows(out / job.name / f"fold_{job.fold}.csv"), about


def _done(args, checkpoint: Path) -> int:
    """Iterations of a training that was stopped."""
    import recipes
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    return content["current_epoch"] * recipes.epochs_of(args.iterations, ITERATIONS_AN_EPOCH)[1]


def _written(scores, rows: list[dict], path: Path) -> Path:
    scores.write_rows(rows, path)
    return path


def missing() -> list[str]:
    """The lines of wheels.txt whose package this machine lacks (in any version)."""
    from importlib.metadata import PackageNotFoundError, distribution

    found = []
    for line in (HERE / "wheels.txt").read_text().split():
        try:
            distribution(line.partition("==")[0])
        except PackageNotFoundError:
            found.append(line)
    return found


def _install(work: Path, others: Path | None) -> None:
    """Put the wheels on the path of this and all processes that are started."""
    site = work / "site"
    if not site.is_dir():
        wheels = [*HERE.glob("code/*.whl"), *HERE.glob("wheels/*.whl")]
        wheels += others.glob("*.whl") if others else []
        if not wheels:
            # Run from a checkout, where the package is installed.
            return
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*command, "--target", str(site), *map(str, wheels)], check=True)
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(site), os.environ.get("PYTHONPATH")) if part
    )


def _set_environment(work: Path, parallel: int) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(work / name)
        (work / name).mkdir(parents=True, exist_ok=True)
    # Compiling takes a minute of each run.
    os.environ.setdefault("nnUNet_compile", "f")
    workers = ((os.cpu_count() or 1) - 2) // parallel
    os.environ.setdefault("nnUNet_n_proc_DA", str(max(1, workers)))
    from nnunetv2_mip.nnunet.paths import add_own_trainers

    add_own_trainers()


def _plan(dataset: str, preset: str, work: Path, processes: int) -> str:
    """Plan and preprocess once; gives the name of the plans."""
    from nnunetv2_mip.plans.presets import load_preset

    file = HERE / "presets" / f"{preset}.json"
    plans = load_preset(file).plans_name
    # Beside nnU-Net's folders: it takes every file in them for its own.
    done = work / f"{plans}.done"
    if not done.is_file():
        code = "from nnunetv2_mip.commands.plan_and_preprocess import main; main()"
        command = [sys.executable, "-c", code, "-d", str(int(dataset[7:10]))]
        command += ["--preset", str(file), "-np", str(processes)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        done.touch()
    return plans


# ---- checkpoints ----


def save_in_pieces(
    checkpoint: Path, target: Path, piece_mib: float = PIECE_MIB, weights_only: bool = False
) -> list[Path]:
    """A checkpoint of nnU-Net in 16-bit numbers as `target`.00, .01, … and `target`.json.

    All that is needed to go on is kept, or with `weights_only` to predict, a quarter of it. Second
    moments of the optimiser are stored as bfloat16: they are smaller than what float16 can hold.
    """
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    if weights_only:
        content.pop("live_weights", None)
        content["optimizer_state"] = None
    for key, kind in (
        ("network_weights", torch.float16),
        ("live_weights", torch.float16),
        ("optimizer_state", torch.bfloat16),
    ):
        if content.get(key) is not None:
            content[key] = _narrowed(content[key], kind, {})
    whole = target.with_name(target.name + ".whole")
    torch.save(content, whole)
    for old in target.parent.glob(f"{target.name}.[0-9][0-9]"):
        old.unlink()
    pieces, hashes = [], {}
    with whole.open("rb") as stream:
        while part := stream.read(int(piece_mib * MIB)):
            piece = target.with_name(f"{target.name}.{len(pieces):02d}")
            piece.write_bytes(part)
            pieces.append(piece)
            hashes[piece.name] = hashlib.sha256(part).hexdigest()
    whole.unlink()
    about = {"epoch": content.get("current_epoch"), "trainer": content.get("trainer_name")}
    target.with_name(target.name + ".json").write_text(json.dumps({**about, "pieces": hashes}))
    return pieces


def _narrowed(value, kind, seen: dict):
    """Tensors of more than one number in 16 bits; one that has several names is stored once."""
    import torch

    if isinstance(value, dict):
        return {key: _narrowed(item, kind, seen) for key, item in value.items()}
    if isinstance(value, list):
        return [_narrowed(item, kind, seen) for item in value]
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1:
        key = value.data_ptr()
        if key not in seen:
            seen[key] = value.to(kind)
        return seen[key]
    return value


def join_pieces(target: Path, whole: Path) -> Path:
    """Put the pieces of `target` together again, after checking them.

    Raises:
        SystemExit: a piece is missing or was changed.
    """
    listing = target.with_name(target.name + ".json")
    if not listing.is_file():
        raise SystemExit(f"{listing}: no such file")
    parts = []
    for name, expected in json.loads(listing.read_text())["pieces"].items():
        piece = target.with_name(name)
        if not piece.is_file() or hashlib.sha256(piece.read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{piece}: missing or changed; copy it again")
        parts.append(piece.read_bytes())
    whole.parent.mkdir(parents=True, exist_ok=True)
    partial = whole.with_name(whole.name + ".partial")
    partial.write_bytes(b"".join(parts))
    partial.replace(whole)
    return whole


def _restore(saved: Path, folder: Path) -> None:
    if saved.with_name(saved.name + ".json").is_file():
        join_pieces(saved, folder / "checkpoint_latest.pth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack")
    one.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    one.add_argument("-o", type=Path, required=True, help="new folder")
    one.add_argument("--presets", nargs="+", required=True, help="names or .json files")
    one.add_argument("--wheels", type=Path, help="folder with wheels to take along")
    one.add_argument("--limit_mib", type=float, default=LIMIT_MIB)
    one = commands.add_parser("run")
    one.add_argument("-o", type=Path, required=True, help="folder for what goes back")
    one.add_argument("--recipes", nargs="+", required=True, metavar="NAME=TRAINER,PRESET")
    one.add_argument("--rivals", nargs="+", default=[], choices=("attention", "smp"))
    one.add_argument(
        "--rival_options",
        type=str.split,
        default=[],
        help='options of rivals.py in one string, as "--reduce 2 --smp_size 256 192"',
    )
    one.add_argument("--parallel", type=int, default=1, help="trainings at once on the device")
    one.add_argument(
        "--back",
        choices=("all", "weights", "scores"),
        default="all",
        help="checkpoints to go on from, weights alone, or none",
    )
    one.add_argument("--folds", type=int, nargs="+", default=[0])
    one.add_argument("--iterations", type=int, required=True, help="of a whole training")
    one.add_argument("--minutes", type=float, default=MINUTES, help="of this run")
    one.add_argument("--saved", type=Path, help="-o of an earlier run, to go on from")
    one.add_argument("--work", type=Path, default=Path("work"), help="folder that may be lost")
    one.add_argument("--wheels", type=Path, help="folder with more wheels than the pack has")
    one.add_argument("--piece_mib", type=float, default=PIECE_MIB)
    one.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1))
    one.add_argument("-device", help="cuda where there is one")
    commands.add_parser("missing")
    one = commands.add_parser("join")
    one.add_argument("pieces", type=Path, help="the name without .00")
    one.add_argument("-o", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "pack":
        pack(args)
    elif args.command == "run":
        args.work, args.o = args.work.resolve(), args.o.resolve()
        run(args)
    elif args.command == "missing":
        print("\n".join(missing()))
    else:
        print(join_pieces(args.pieces, args.o))


if __name__ == "__main__":
    main()
