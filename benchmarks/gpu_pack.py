"""Train recipes on a machine that has a GPU but no network, in short visits.

Here, once (the data set converted by `nnUNetv2_mip_convert_dmiai`):

    python benchmarks/gpu_pack.py pack -d 10 --presets cpu_wide default -o pack

There, as often as there is time; each run goes on where the last one stopped:

    python pack/gpu_pack.py run -o out --recipes recipe=nnUNetTrainerMIP_recipe,cpu_wide \\
        --folds 0 1 --iterations 20000 --minutes 9.5 [--saved out_of_the_last_run]

Back here, a checkpoint out of its pieces:

    python benchmarks/gpu_pack.py join out/NAME_fold_0.pth -o checkpoint_final.pth

The pack holds the raw data set (nnU-Net's preprocessing of it takes seconds, and one copy serves
all presets), this package as a wheel, and `wheels.txt`, the pinned packages that the other machine
needs beside its torch (`pip download --no-deps -r wheels.txt -d wheels` here; `--wheels FOLDER`
takes them along where they fit into --limit-mib). A pack above the limit is refused.

`run` leaves in -o: `table.md` (mean per-image Dice over the validation patients, clean and
perturbed), a CSV of scores for each recipe, and for each recipe and fold a checkpoint in 16-bit
numbers with all that training needs to go on, cut into pieces of at most 16 MiB with a list of
their SHA-256.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024
LIMIT_MIB = 64
PIECE_MIB = 16
MINUTES = 9.5
# Kept for prediction and scores out of the time of a run.
RESERVE_SHARE = 0.15
SCRIPTS = ("gpu_pack.py", "recipes.py", "recipe_scores.py")
# Comes with the other machine's torch.
NOT_PACKED = ("torch", "torchvision", "triton", "nvidia-", "cuda-", "nnunetv2-mip")


# ---- here ----


def pack(args: argparse.Namespace) -> None:
    from nnunetv2_mip.nnunet_paths import raw_dataset

    raw = raw_dataset(args.d)
    if args.o.exists():
        raise SystemExit(f"{args.o}: exists; choose another -o or remove it")
    args.o.mkdir(parents=True)
    shutil.copytree(raw, args.o / "raw" / raw.name)
    for name in SCRIPTS:
        shutil.copy(HERE / name, args.o / name)
    _build_wheel(HERE.parent, args.o / "code")
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
    """Our wheel, built from a copy: a build leaves folders in its source."""
    copy = target / "source"
    skipped = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "demo_out")
    shutil.copytree(source, copy, ignore=skipped)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(target), str(copy)], check=True)
    shutil.rmtree(copy)


def _preset_file(preset: str) -> Path:
    from nnunetv2_mip.plans import presets

    return Path(preset) if preset.endswith(".json") else presets.FOLDER / f"{preset}.json"


def wheels_needed() -> list[str]:
    """`name==version` of what this package requires here, without torch and what comes with it."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    found, waiting = {}, ["nnunetv2-mip"]
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
    _install(args.work)
    _set_environment(args.work)
    import recipe_scores as scores
    import recipes
    import torch

    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.predictor import MIPPredictor

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dataset = json.loads((HERE / "pack.json").read_text())["dataset"]
    raw = args.work / "nnUNet_raw" / dataset
    if not raw.exists():
        shutil.copytree(HERE / "raw" / dataset, raw)
    args.o.mkdir(parents=True, exist_ok=True)
    jobs = []
    for text in args.recipes:
        name, _, rest = text.partition("=")
        base, _, preset = rest.partition(",")
        plans = _plan(dataset, preset, args.work, args.np)
        trainer = recipes.shortened_trainer(base, args.iterations, args.work / "trainers")
        jobs += [(name, trainer, plans, fold) for fold in args.folds]
    os.environ["nnUNet_extTrainer"] += f"{os.pathsep}{args.work / 'trainers'}"

    for number, (name, trainer, plans, fold) in enumerate(jobs):
        folder = recipes.model_folder(dataset, trainer, plans) / f"fold_{fold}"
        if args.saved is not None and not any(folder.glob("checkpoint_*.pth")):
            _restore(args.saved / f"{name}_fold_{fold}.pth", folder)
        left = deadline - args.minutes * 60 * RESERVE_SHARE - time.time()
        stop_at = time.time() + left / (len(jobs) - number)
        try:
            _, ended = recipes.train(dataset, fold, trainer, plans, device, stop_at)
        except MipError as error:
            # The others shall have their time.
            print(error, file=sys.stderr)
            continue
        latest = folder / ("checkpoint_final.pth" if ended else "checkpoint_latest.pth")
        if latest.is_file():
            save_in_pieces(latest, args.o / f"{name}_fold_{fold}.pth", args.piece_mib)

    rows, notes = [], {}
    for name, trainer, plans, fold in jobs:
        folder = recipes.model_folder(dataset, trainer, plans)
        there = [
            file
            for file in ("checkpoint_final.pth", "checkpoint_latest.pth")
            if (folder / f"fold_{fold}" / file).is_file()
        ]
        if not there:
            print(f"{name}, fold {fold}: no epoch was finished", file=sys.stderr)
            continue
        predictor = MIPPredictor.from_model_folder(folder, [fold], there[0], device)
        found = recipes.predict(
            predictor, raw, fold, name, ["clean", "perturbed"], args.o / "scores" / name
        )
        scores.write_rows(found, args.o / f"{name}_fold_{fold}.csv")
        rows += found
        spent = scores.read_notes(folder / f"fold_{fold}" / "training_minutes.json")
        note = notes.setdefault(name, {"parameters": predictor.parameters, "training_minutes": 0.0})
        note["training_minutes"] += spent.get("minutes", 0.0)
    if rows:
        text = scores.table(rows, jobs[0][0], notes)
        (args.o / "table.md").write_text(text + "\n")
        print(text)


def _install(work: Path) -> None:
    """Put the pack's wheels on the path of this and all processes that are started."""
    site = work / "site"
    if not site.is_dir():
        wheels = [*HERE.glob("code/*.whl"), *HERE.glob("wheels/*.whl")]
        if not wheels:
            # Run from a checkout, where the package is installed.
            return
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*command, "--target", str(site), *map(str, wheels)], check=True)
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(site), os.environ.get("PYTHONPATH")) if part
    )


def _set_environment(work: Path) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(work / name)
        (work / name).mkdir(parents=True, exist_ok=True)
    # Compiling takes a minute of each run.
    os.environ.setdefault("nnUNet_compile", "f")
    os.environ.setdefault("nnUNet_n_proc_DA", str(max(1, (os.cpu_count() or 1) - 2)))
    from nnunetv2_mip.nnunet_paths import add_own_trainers

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


def save_in_pieces(checkpoint: Path, target: Path, piece_mib: float = PIECE_MIB) -> list[Path]:
    """A checkpoint of nnU-Net in 16-bit numbers as `target`.00, .01, … and `target`.json.

    All that is needed to go on is kept. Second moments of the optimiser are stored as bfloat16:
    they are smaller than what float16 can hold.
    """
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
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
    one.add_argument("--limit-mib", type=float, default=LIMIT_MIB)
    one = commands.add_parser("run")
    one.add_argument("-o", type=Path, required=True, help="folder for what goes back")
    one.add_argument("--recipes", nargs="+", required=True, metavar="NAME=TRAINER,PRESET")
    one.add_argument("--folds", type=int, nargs="+", default=[0])
    one.add_argument("--iterations", type=int, required=True, help="of a whole training")
    one.add_argument("--minutes", type=float, default=MINUTES, help="of this run")
    one.add_argument("--saved", type=Path, help="-o of an earlier run, to go on from")
    one.add_argument("--work", type=Path, default=Path("work"), help="folder that may be lost")
    one.add_argument("--piece-mib", type=float, default=PIECE_MIB)
    one.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1))
    one.add_argument("-device", help="cuda where there is one")
    one = commands.add_parser("join")
    one.add_argument("pieces", type=Path, help="the name without .00")
    one.add_argument("-o", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "pack":
        pack(args)
    elif args.command == "run":
        args.work, args.o = args.work.resolve(), args.o.resolve()
        run(args)
    else:
        print(join_pieces(args.pieces, args.o))


if __name__ == "__main__":
    main()
