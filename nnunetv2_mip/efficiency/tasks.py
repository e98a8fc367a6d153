"""Networks and tasks of an efficiency study, as they are passed to the worker processes."""

from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.io.study_layouts import StudyFiles


@dataclass(frozen=True)
class Model:
    """Network under study.

    Attributes:
        name: in the tables.
        folder: nnU-Net's model folder.
        volumetric: whether it is a 3D network, which has no views.
        folds, checkpoint: of the model folder.
    """

    name: str
    folder: Path
    volumetric: bool
    folds: tuple[int | str, ...]
    checkpoint: str


@dataclass(frozen=True)
class Task:
    """Work of one process: a network on studies, or a measurement of its training.

    Attributes:
        model: the network.
        views: number of views; None for a 3D network, and for training.
        studies: studies that are left to do.
        target: folder of the records; for training, the file of the record.
        device, tta, reference_views, energy: see `experiment.RunOptions`.
        iterations: iterations of training to measure, instead of studies; 0 for none.
    """

    model: Model
    views: int | None
    studies: tuple[StudyFiles, ...]
    target: Path
    device: str
    tta: bool
    reference_views: int
    energy: bool
    iterations: int = 0
