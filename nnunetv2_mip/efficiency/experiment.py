"""Efficiency study: quality and cost of networks by number of views, on studies unseen in training.

A cell of the study is a network with a number of views (a 3D network has one cell). The folder OUT
of a study holds

- `settings.json`: settings that all cells have in common, and the networks by name;
- `cells/NETWORK/VIEWS/CASE.json`: a finished study (`3d` instead of views for a 3D network);
- `training/NETWORK.json`: the cost of an iteration of training, where it was asked for;
- the files of `efficiency.tables` and `efficiency.plots`.

Finished work is not repeated, and more networks or views may be added later. Every cell has a
process of its own, so that its memory is measured alone.
"""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_mip import __version__
from nnunetv2_mip.efficiency.tables import CELLS, SETTINGS_FILE, TRAINING, VOLUME_CELL
from nnunetv2_mip.efficiency.tasks import Model, Task
from nnunetv2_mip.efficiency.worker import run_task
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below, read_json, write_json
from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
from nnunetv2_mip.io.study_layouts import StudyFiles
from nnunetv2_mip.nnunet.loading import torch_device
from nnunetv2_mip.wording import counted

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunOptions:
    """Options that all cells of a study have in common.

    Attributes:
        tta: average over mirrored copies where the networks' `inference.json` says so.
        reference_views: number of views onto which all 3D masks are projected.
        device: device of the networks.
        energy: whether energy is estimated with codecarbon.
    """

    tta: bool = True
    reference_views: int = 48
    device: str = "cuda"
    energy: bool = True


class EfficiencyStudy:
    """Efficiency study in a folder.

    Args:
        out: the folder; a study in it is resumed.
        studies: with truth.
        options: common to all cells.

    Raises:
        MipError: `out` holds a study of other studies or with other options, or other files; or
            there is no such device.
    """

    def __init__(self, out: Path | str, studies: Sequence[StudyFiles], options: RunOptions):
        self.out, self.studies = Path(out), tuple(studies)
        self.options = replace(options, device=str(torch_device(options.device)))
        if not self.studies:
            raise MipError("there is no study to look at")
        self.settings: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "tta": options.tta,
            "reference_views": options.reference_views,
            "device": self.options.device,
            "energy": options.energy,
            "studies": {study.case: _digest_of_study(study) for study in self.studies},
            "models": {},
        }
        path = self.out / SETTINGS_FILE
        if path.exists():
            before = read_json(path)
            _require_same(before, self.settings, self.out)
            self.settings["models"] = before["models"]
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise MipError(f"{self.out}: is no folder of a study; choose another -o")

    def add_models(self, models: Sequence[Model]) -> None:
        """Add networks to `settings.json`.

        Raises:
            MipError: a name belongs to another network there.
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

    def open_tasks(
        self, models: Sequence[Model], views: Sequence[int], iterations: int
    ) -> list[Task]:
        """Tasks that are not finished.

        Args:
            models: networks that were added.
            views: numbers of views of the MIP networks.
            iterations: iterations of training to measure; 0 for none.

        Raises:
            MipError: a number of views below 1.
        """
        for number in views:
            if number < 1:
                raise MipError(f"--views {number}: at least one view is needed")
        tasks = []
        for model in models:
            numbers: list[int | None] = [None] if model.volumetric else [*sorted(set(views))]
            for cell in numbers:
                task = self._task(model, cell)
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
        options = self.options
        cell = VOLUME_CELL if views is None else str(views)
        return Task(
            model=model,
            views=views,
            studies=(),
            target=self.out / CELLS / model.name / cell,
            device=options.device,
            tta=options.tta,
            reference_views=options.reference_views,
            energy=options.energy,
        )

    def run(self, tasks: Sequence[Task], done: Callable[[Task, str], None]) -> None:
        """Run tasks, one process after the other.

        Args:
            tasks: from `open_tasks`.
            done: called with the task and the name of a finished study (for training, the name of
                the network).

        Raises:
            MipError: a network or study cannot be used, or a process was killed.
        """
        # Not the pool of `parallel`: a process that did another task before would keep its memory,
        # its compiled code and its energy counters. Each task has a fresh process, forked from a
        # server that has imported everything once and is itself without threads.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload(["nnunetv2_mip.efficiency.worker"])
        said: set[str] = set()
        for task in tasks:
            # A measurement is a file, a cell a folder of files.
            folder = task.target.parent if task.iterations else task.target
            folder.mkdir(parents=True, exist_ok=True)
            for kind, content in _run_in_process(context, task):
                if kind == "done":
                    done(task, content)
                elif content not in said:
                    # Once, not for every network and number of views.
                    said.add(content)
                    tqdm.write(f"warning: {content}", file=sys.stderr)


def _digest_of_study(study: StudyFiles) -> str:
    """Digest of the files of a study, and what the user says of its DICOM series."""
    said = f" {study.options.describe()}" if study.options else ""
    return _digest(*study.files) + said


def _run_in_process(context, task: Task) -> Iterator[tuple[str, str]]:
    """What the process of a task reports as it arrives: ("done", study) or ("warning", line)."""
    ours, theirs = context.Pipe(duplex=False)
    environment = {key: value for key, value in os.environ.items() if _is_passed_on(key)}
    process = context.Process(target=run_task, args=(task, theirs, environment), daemon=True)
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
            yield kind, content
        process.join()
        if process.exitcode:
            views = "" if task.views is None else f" with {counted(task.views, 'view')}"
            raise MipError(
                f"{task.model.folder}: its process{views} was killed (exit code "
                f"{process.exitcode}): was there too little memory? Run again to go on"
            )
    finally:
        ours.close()
        if process.is_alive():
            process.terminate()
            process.join()


def _is_passed_on(variable: str) -> bool:
    return variable.startswith(("nnUNet_", "NNUNETV2_MIP_"))


def _files_of(model: Model) -> list[Path]:
    """Files that define a network."""
    names = ("dataset.json", "plans.json", INFERENCE_FILE)
    files = [model.folder / name for name in names]
    files += [model.folder / f"fold_{fold}" / model.checkpoint for fold in model.folds]
    return [path for path in files if path.is_file()]


def _digest(*paths: Path) -> str:
    """Digest of the contents of files, and of all files in folders."""
    found = hashlib.sha256()
    for path in paths:
        for file in files_below(path) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    found.update(block)
    return found.hexdigest()[:16]


def _require_same(before: dict, now: dict, out: Path) -> None:
    """Raise MipError where a study in `out` has other settings than this one."""
    for key, value in now.items():
        if key == "models" or before.get(key) == value:
            continue
        shown = f"{key} {before.get(key)}, not {value}"
        if key == "studies":
            shown = _other_studies(before.get(key) or {}, value)
        raise MipError(
            f"{out}: holds a study with other settings ({shown}); choose another -o, or the same "
            "settings to go on with it"
        )


def _other_studies(before: dict[str, str], now: dict[str, str]) -> str:
    """What is different about the studies: new ones, gone ones, other files."""
    parts = [
        f"{words}: {', '.join(cases[:3])}{', …' if len(cases) > 3 else ''}"
        for words, cases in (
            (
                "files that have changed since",
                sorted(c for c in now if before.get(c, now[c]) != now[c]),
            ),
            ("new studies", sorted(now.keys() - before.keys())),
            ("studies that are gone", sorted(before.keys() - now.keys())),
        )
        if cases
    ]
    return "other studies, " + "; ".join(parts)
