"""The efficiency study: what views cost and bring, on studies that no network has seen.

A cell of the study is a network with a number of views (a 3D network has one cell). Below OUT lie

- `settings.json`: what all cells have in common, and the networks by name;
- `cells/NETWORK/VIEWS/CASE.json`: a finished study (`3d` instead of views for a 3D network);
- `training/NETWORK.json`: the cost of an iteration of training, where it was asked for;
- what `tables` and `plots` make of them.

What is there is not repeated, and more networks or views may come later. Every cell has a process
of its own, so that its memory is its own.
"""

import hashlib
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_mip import __version__
from nnunetv2_mip.efficiency.tables import CELLS, SETTINGS_FILE, TRAINING, VOLUME_CELL
from nnunetv2_mip.efficiency.worker import Model, Task, work
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
from nnunetv2_mip.io.study_layouts import StudyFiles, scan_tree
from nnunetv2_mip.nnunet.loading import torch_device
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, folds_with_checkpoint
from nnunetv2_mip.nnunet.second_stage_data import CUE, STAGE2
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_format
from nnunetv2_mip.nnunet.training_splits import seen_patients
from nnunetv2_mip.views.settings import check_channels

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Choices:
    """What all cells of a study have in common.

    Attributes:
        tta: average over mirrored copies where the networks' recipes do.
        reference_views: onto which all 3D masks are projected.
        device: where the networks run.
        energy: estimate energy with codecarbon.
    """

    tta: bool = True
    reference_views: int = 48
    device: str = "cuda"
    energy: bool = True


def studies_of_tree(tree: Path | str) -> list[StudyFiles]:
    """The studies of a tree, each with its truth.

    Raises:
        MipError: as `studies.scan_tree`; or a study is broken or has no truth.
    """
    found = scan_tree(tree)
    for path, reason in found.problems:
        raise MipError(f"{path}: {reason}")
    for study in found.studies:
        if study.seg is None:
            raise MipError(
                f"{study.suv}: its study has no lesion mask (SEG): a study of efficiency needs "
                "the truth; add it or take the study out"
            )
    return list(found.studies)


def studies_of_dataset(raw: Path, fold: int) -> list[StudyFiles]:
    """The validation studies of a fold of a data set of volumes.

    Args:
        raw: raw data set of `nnUNetv2_mip_convert_stage2` (with a cue or not).
        fold: of its `splits_final.json`.

    Raises:
        MipError: it holds views, not volumes; lacks the truth; or has no such fold.
    """
    mip = read_json(raw / "dataset.json").get("mip", {})
    if mip.get("source") != STAGE2:
        raise MipError(
            f"{raw}: holds no volumes, so there is no truth in 3D: give the tree of its studies "
            "by -i, or a data set of nnUNetv2_mip_convert_stage2 --no-cue"
        )
    splits = read_json(raw / SPLITS_FILE)
    check_format(splits, str(raw / SPLITS_FILE))
    if not 0 <= fold < len(splits):
        raise MipError(f"{raw / SPLITS_FILE}: has no fold {fold}; choose 0 to {len(splits) - 1}")
    studies = []
    for case in sorted(splits[fold]["val"]):
        files = {
            channel: raw / "imagesTr" / f"{case}_{index:04d}.nii.gz"
            for index, channel in enumerate(mip["channels"])
        }
        seg = raw / "labelsTr" / f"{case}.nii.gz"
        for path in (files["suv"], seg):
            if not path.is_file():
                raise MipError(f"{path}: no such file; convert the data set again")
        patient = mip.get("patients", {}).get(case, case)
        studies.append(StudyFiles(case, patient, files["suv"], files.get("ct"), seg))
    return studies


def read_models(
    arguments: Sequence[str],
    folds: Sequence[int | str] | None = None,
    checkpoint: str = CHECKPOINT,
) -> list[Model]:
    """The networks of `[NAME=]FOLDER` arguments, looked at without loading them.

    A name that is not given is that of the data set and the trainer.

    Raises:
        MipError: a folder that is no model of views or volumes, or a name that comes twice.
    """
    models: list[Model] = []
    for text in arguments:
        name, separator, folder = text.partition("=")
        path = Path(folder if separator else text)
        if separator and not re.fullmatch(r"[\w.+-]+", name):
            raise MipError(f"--models {text}: a name has letters, digits and . _ + - only")
        chosen = tuple(folds_with_checkpoint(path, folds, checkpoint))
        if not separator:
            parent = path.resolve().parent.name
            name = re.sub(r"[^\w.+-]", "_", f"{parent}_{path.resolve().name.split('__')[0]}")
        if name in [model.name for model in models]:
            raise MipError(f"--models {text}: {name} comes twice; call one NAME={path}")
        models.append(Model(name, path, _is_volumetric(path), chosen, checkpoint))
    return models


def _is_volumetric(folder: Path) -> bool:
    """Whether a model is a 3D network; MipError where it is neither that nor one of views."""
    mip = read_json(folder / "dataset.json").get("mip")
    if isinstance(mip, dict) and mip.get("source") == STAGE2:
        if CUE in mip["channels"]:
            raise MipError(
                f"{folder}: wants the cue of a 2D model, so it is no 3D network of its own: train "
                "one on a data set of nnUNetv2_mip_convert_stage2 --no-cue"
            )
        return True
    if not isinstance(mip, dict) and not (folder / INFERENCE_FILE).is_file():
        raise MipError(
            f'{folder}: is no MIP model (its dataset.json has no "mip" part): train one on a data '
            "set of nnUNetv2_mip_convert_autopet, or of nnUNetv2_mip_convert_stage2 --no-cue"
        )
    try:
        check_channels(InferenceConfig.load(folder).channels)
    except MipError as error:
        raise MipError(f"{folder}: the model wants {error}") from None
    return False


def check_unseen(models: Sequence[Model], studies: Sequence[StudyFiles]) -> list[str]:
    """Check that no network was trained on a patient of the studies.

    Returns:
        a line for every network whose patients nobody here can tell.

    Raises:
        MipError: a network has seen one of the patients.
    """
    untold = []
    for model in models:
        try:
            known = seen_patients(model.folder, model.folds)
        except MipError as error:
            untold.append(
                f"{model.folder}: cannot tell whom it was trained on ({error}): make sure that it "
                "has not seen these patients"
            )
            continue
        for study in studies:
            if study.patient in known:
                raise MipError(
                    f"{model.folder}: was trained on {study.patient}, which is among the studies: "
                    "give studies that it has not seen, or -d ID -f FOLD"
                )
    return untold


class EfficiencyStudy:
    """A study in a folder.

    Args:
        out: the folder; one that is there is gone on with.
        studies: with truth.
        choices: what all cells have in common.

    Raises:
        MipError: `out` holds a study of other studies or with other choices, or something else;
            or there is no such device.
    """

    def __init__(self, out: Path | str, studies: Sequence[StudyFiles], choices: Choices):
        self.out, self.studies = Path(out), tuple(studies)
        self.choices = replace(choices, device=str(torch_device(choices.device)))
        if not self.studies:
            raise MipError("there is no study to look at")
        self.settings = {
            "format_version": FORMAT_VERSION,
            "tta": choices.tta,
            "reference_views": choices.reference_views,
            "device": self.choices.device,
            "energy": choices.energy,
            "studies": {study.case: _digest(*_files_of_study(study)) for study in self.studies},
            "models": {},
        }
        path = self.out / SETTINGS_FILE
        if path.exists():
            before = read_json(path)
            _require_same(before, self.settings, self.out)
            self.settings["models"] = before["models"]
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise MipError(f"{self.out}: is no folder of a study; choose another -o")

    def add(self, models: Sequence[Model]) -> None:
        """Note networks in `settings.json`.

        Raises:
            MipError: a name that stands for another network there.
        """
        known = dict(self.settings["models"])
        for model in models:
            config = None if model.volumetric else InferenceConfig.load(model.folder)
            content = {
                "folder": model.folder.resolve().name,
                "volumetric": model.volumetric,
                "trained_views": None if config is None else config.views,
                "folds": list(model.folds),
                "digest": _digest(*_files_of(model)),
            }
            if known.setdefault(model.name, content)["digest"] != content["digest"]:
                raise MipError(
                    f"{self.out / SETTINGS_FILE}: {model.name} was another network before: give "
                    f"{model.folder} another name (NAME=FOLDER), or choose another -o"
                )
        self.settings["models"] = known
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / SETTINGS_FILE, {**self.settings, "version": __version__})

    def tasks(self, models: Sequence[Model], views: Sequence[int], iterations: int) -> list[Task]:
        """What is still to be done.

        Args:
            models: networks that were added.
            views: numbers of views for those that have views.
            iterations: of training to measure; 0 for none.

        Raises:
            MipError: a number of views below 1.
        """
        for number in views:
            if number < 1:
                raise MipError(f"--views {number}: at least one view is needed")
        tasks = []
        for model in models:
            for number in [None] if model.volumetric else sorted(set(views)):
                task = self._task(model, number)
                left = tuple(
                    study
                    for study in self.studies
                    if not (task.target / f"{study.case}.json").is_file()
                )
                if left:
                    tasks.append(replace(task, studies=left))
            target = self.out / TRAINING / f"{model.name}.json"
            if iterations and not target.is_file():
                task = self._task(model, None)
                tasks.append(replace(task, target=target, iterations=iterations))
        return tasks

    def _task(self, model: Model, views: int | None) -> Task:
        choices = self.choices
        cell = VOLUME_CELL if views is None else str(views)
        return Task(
            model=model,
            views=views,
            studies=(),
            target=self.out / CELLS / model.name / cell,
            device=choices.device,
            tta=choices.tta,
            reference_views=choices.reference_views,
            energy=choices.energy,
        )

    def run(self, tasks: Sequence[Task], done: Callable[[Task, str], None]) -> None:
        """Do what is to be done, one process after the other.

        Args:
            tasks: from `tasks`.
            done: called with the task and the study (or the network whose training was measured).

        Raises:
            MipError: a network or study cannot be served, or a process was killed.
        """
        # Not the pool of `parallel`: a process that did another task before would keep its memory,
        # its compiled code and its energy counters. Each task has a fresh process, forked from a
        # server that has imported everything once and is itself without threads.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload(["nnunetv2_mip.efficiency.worker"])
        for task in tasks:
            # A measurement is a file, a cell a folder of files.
            folder = task.target.parent if task.iterations else task.target
            folder.mkdir(parents=True, exist_ok=True)
            for name in _listen(context, task):
                done(task, name)


def _listen(context, task: Task) -> Iterator[str]:
    """What a process of a task has finished, as it comes."""
    ours, theirs = context.Pipe(duplex=False)
    environment = {key: value for key, value in os.environ.items() if _matters(key)}
    process = context.Process(target=work, args=(task, theirs, environment), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            try:
                kind, content = ours.recv()
            except EOFError:
                break
            if kind == "failed":
                raise MipError(content)
            if kind == "broken":
                raise RuntimeError(content)
            yield content
        process.join()
        if process.exitcode:
            views = "" if task.views is None else f" with {task.views} views"
            raise MipError(
                f"{task.model.folder}: its process{views} was killed (exit code "
                f"{process.exitcode}): was there too little memory? Run again to go on"
            )
    finally:
        ours.close()
        if process.is_alive():
            process.terminate()
            process.join()


def _matters(variable: str) -> bool:
    return variable.startswith(("nnUNet_", "NNUNETV2_MIP_"))


def _files_of(model: Model) -> list[Path]:
    """What makes a network what it is."""
    names = ("dataset.json", "plans.json", INFERENCE_FILE)
    files = [model.folder / name for name in names]
    files += [model.folder / f"fold_{fold}" / model.checkpoint for fold in model.folds]
    return [path for path in files if path.is_file()]


def _files_of_study(study: StudyFiles) -> list[Path]:
    return [path for path in (study.suv, study.ct, study.seg) if path is not None]


def _digest(*paths: Path) -> str:
    """Of the contents of files, and of all files in a folder."""
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    found.update(block)
    return found.hexdigest()[:16]


def _require_same(before: dict, now: dict, out: Path) -> None:
    for key, value in now.items():
        if key == "models" or before.get(key) == value:
            continue
        shown = "other studies" if key == "studies" else f"{key} {before.get(key)}, not {value}"
        raise MipError(
            f"{out}: holds a study with other settings ({shown}); choose another -o, or the same "
            "settings to go on with it"
        )
