"""Worker process of an efficiency study: one network on the studies, with one number of views.

The record of each study is written as soon as it is finished (whole or not at all), so that a
stopped study can be resumed. The parent process receives the names of finished studies, or an
error.
"""

import dataclasses
import math
import os
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import torch

from nnunetv2_mip.efficiency.cost import Meter, OperationCount, training_cost
from nnunetv2_mip.efficiency.scores import mask_scores, view_scores
from nnunetv2_mip.efficiency.tasks import Task
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.second_stage import SecondStagePredictor
from nnunetv2_mip.io.read_study import Study, read_study_files
from nnunetv2_mip.io.study_layouts import StudyFiles

CLASSES = 2


def run_task(task: Task, pipe, environment: dict[str, str]) -> None:
    """Run a task in this process and report to its parent.

    Args:
        task: the work.
        pipe: receives ("warning", line for the user), ("done", study), ("failed", line for the
            user) or ("broken", traceback).
        environment: variables to set; the fork server may have been started with others.
    """
    os.environ.update(environment)
    try:
        if task.iterations:
            _measure_training(task)
            pipe.send(("done", task.model.name))
        else:
            for case in _measure_studies(task, lambda line: pipe.send(("warning", line))):
                pipe.send(("done", case))
    except MipError as error:
        pipe.send(("failed", str(error)))
    except BrokenPipeError:
        # The parent process has ended: the command was stopped.
        pass
    except Exception:
        pipe.send(("broken", traceback.format_exc()))


def _load(task: Task) -> MIPPredictor | SecondStagePredictor:
    model = task.model
    source = (model.folder, model.folds, model.checkpoint, task.device)
    if model.volumetric:
        return SecondStagePredictor.from_model_folder(*source, mirror=task.tta)
    choices: dict[str, int | bool] = {} if task.views is None else {"views": task.views}
    if not task.tta:
        choices["tta"] = False
    # Views are studied: a second stage in 3D in the same folder is a model of its own.
    return MIPPredictor.from_model_folder(*source, second_stage=False).override(**choices)


def _read(
    files: StudyFiles, predictor: MIPPredictor | SecondStagePredictor
) -> tuple[Study, np.ndarray]:
    """Study, with its CT where the network needs it, and its truth (z, y, x).

    Raises:
        MipError: it cannot be read, or has no truth.
    """
    wants_ct = getattr(predictor, "wants_ct", False) or "ct" in getattr(predictor, "channels", ())
    study = read_study_files(files, wants_ct=wants_ct)
    if study.seg is None:
        raise MipError(f"{files.suv}: has no lesion mask to compare with")
    return study, study.seg.array


def _measure_studies(task: Task, warn: Callable[[str], None]) -> Iterator[str]:
    """Names of the studies of a task, each when its record is written; `warn` gets the lines."""
    predictor = _load(task)
    count, meter = OperationCount(predictor), Meter(predictor.device, task.energy)
    if isinstance(predictor, MIPPredictor):
        # Kernels are compiled at first use, which is no cost of a study.
        predictor.override(views=1).predict_study(_read(task.studies[0], predictor)[0])
    for files in task.studies:
        study, truth = _read(files, predictor)
        for line in study.warnings:
            warn(line)
        scores: dict[str, float] = {}
        with count.counting() as operations, meter.measuring() as cost:
            if isinstance(predictor, SecondStagePredictor):
                mask = predictor.predict(study, np.zeros_like(study.suv.array))[0]
            else:
                found = predictor.predict_study(study)
                mask = found.mask
        if isinstance(predictor, MIPPredictor):
            scores = view_scores(found, truth, predictor.config)
        scores |= mask_scores(mask, truth, study.suv, task.reference_views)
        record = {
            "case": files.case,
            "patient": files.patient,
            "has_lesion": bool(truth.any()),
            **({"warnings": "; ".join(study.warnings)} if study.warnings else {}),
            **{name: None if math.isnan(value) else value for name, value in scores.items()},
            "parameters": predictor.parameters,
            "operations": operations[0],
            **dataclasses.asdict(cost),
            "energy_missing": meter.reason,
            "engine": getattr(predictor, "engine", "torch"),
            "threads": torch.get_num_threads(),
        }
        write_json(task.target / f"{files.case}.json", record)
        yield files.case


def _measure_training(task: Task) -> None:
    """Measure iterations of training and write their record."""
    predictor = _load(task)
    module = (
        predictor.module
        if isinstance(predictor, SecondStagePredictor)
        else predictor.networks[-1].module
    )
    meter = Meter(predictor.device, task.energy)
    batch = predictor.training_batch
    found = training_cost(module, batch, CLASSES, predictor.device, meter, task.iterations)
    record = {"batch": list(batch), **found, "energy_missing": meter.reason}
    write_json(task.target, record)
