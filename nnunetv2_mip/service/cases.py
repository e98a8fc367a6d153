"""The cases of the page: read, predicted, kept in memory for a while, never on disk."""

import logging
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion import fuse
from nnunetv2_mip.lesion_table import lesion_table
from nnunetv2_mip.masks import mask_of_view
from nnunetv2_mip.pixels import to_detector, to_pixels
from nnunetv2_mip.predictor import MIPPredictor, StudyPrediction
from nnunetv2_mip.projection import project_mask
from nnunetv2_mip.region_table import region_table
from nnunetv2_mip.scale import PNG_PIXEL_MM
from nnunetv2_mip.service.desk import Desk, PatientWatch
from nnunetv2_mip.service.images import mask_png
from nnunetv2_mip.service.logs import log
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.service.uploads import read_upload
from nnunetv2_mip.volumes import Volume, write_volume
from nnunetv2_mip.watch import Cancelled

NIFTI = ".nii.gz"


@dataclass(frozen=True)
class Marked:
    """The answer at one threshold.

    Attributes:
        mask: (H, W) of an image, (z, y, x) of a volume, uint8 of 0 and 1.
        overlay: (V, H, W) uint8 of 0 and 1: the mask as the views show it.
        rows: table of lesions (volume) or regions (image).
    """

    mask: np.ndarray
    overlay: np.ndarray
    rows: list[dict]


@dataclass
class Case:
    """One upload.

    Attributes:
        state: `waiting`, `running`, `done` or `failed`.
        progress: 0 to 1.
        reason: why it failed, one line.
        levels: (V, H, W) uint8, what the network saw (an image is one view).
        pixel_mm: (row, column) of the views.
    """

    name: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    made: float = field(default_factory=time.monotonic)
    state: str = "waiting"
    progress: float = 0.0
    reason: str = ""
    warnings: tuple[str, ...] = ()
    dropped: bool = False
    levels: np.ndarray | None = None
    pixel_mm: tuple[float, float] = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    angles_deg: tuple[float, ...] = (0.0,)
    threshold: float = 0.5
    suv: Volume | None = None
    study: StudyPrediction | None = None
    probability: np.ndarray | None = None
    marked: tuple[float, Marked] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_volume(self) -> bool:
        return self.suv is not None


class Cases:
    """The cases there are; one is worked on at a time.

    Args:
        desk: predictor and device.
        settings: limits.
    """

    def __init__(self, desk: Desk, settings: Settings):
        self._desk, self._settings = desk, settings
        self._cases: OrderedDict[str, Case] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "page")

    def add(self, content: Path, folder: tempfile.TemporaryDirectory, name: str) -> Case:
        """Start work on an uploaded file; `folder`, in which it lies, is removed when it is read.

        Raises:
            MipError: as many cases as are kept wait already.
        """
        case = Case(name)
        with self._lock:
            self._forget_old()
            pending = sum(c.state in ("waiting", "running") for c in self._cases.values())
            if pending >= self._settings.max_cases:
                folder.cleanup()
                raise MipError(f"{name}: {pending} files are being worked on; come again later")
            finished = [k for k, c in self._cases.items() if c.state in ("done", "failed")]
            while len(self._cases) >= self._settings.max_cases:
                self._cases.pop(finished.pop(0))
            self._cases[case.key] = case
        self._worker.submit(self._work, case, content, folder)
        return case

    def get(self, key: str) -> Case:
        """A case.

        Raises:
            KeyError: there is none, or it was forgotten.
        """
        with self._lock:
            self._forget_old()
            return self._cases[key]

    def drop(self, key: str) -> None:
        """Forget a case, and stop working on it."""
        with self._lock:
            case = self._cases.pop(key, None)
        if case is not None:
            case.dropped = True

    def close(self) -> None:
        """Stop all work."""
        with self._lock:
            for case in self._cases.values():
                case.dropped = True
        self._worker.shutdown(wait=True, cancel_futures=True)

    def mark(self, case: Case, threshold: float) -> Marked:
        """The answer of a finished case at a threshold (the last one asked for is kept)."""
        with case.lock:
            if case.marked is None or case.marked[0] != threshold:
                how = _mark_volume if case.is_volume else _mark_image
                case.marked = (threshold, how(case, threshold, self._desk.predictor))
            return case.marked[1]

    def _forget_old(self) -> None:
        oldest = time.monotonic() - 60 * self._settings.case_minutes
        for key in [k for k, c in self._cases.items() if c.made < oldest]:
            self._cases.pop(key).dropped = True

    def _work(self, case: Case, content: Path, folder: tempfile.TemporaryDirectory) -> None:
        start = time.monotonic()
        try:
            with folder:
                case.state = "running"
                wants_ct = self._desk.predictor.wants_ct
                upload = read_upload(content, case.name, wants_ct, self._settings)
            case.warnings = tuple(line.replace(str(content), case.name) for line in upload.warnings)
            device = self._desk.device
            with device.use(urgent=False):
                watch = PatientWatch(device, _teller(case), lambda: case.dropped)
                _predict(case, upload, self._desk.predictor, watch)
            self.mark(case, case.threshold)
            case.progress, case.state = 1.0, "done"
        except MipError as error:
            case.reason, case.state = " ".join(str(error).splitlines())[:400], "failed"
        except Cancelled:
            case.reason, case.state = "stopped", "failed"
        except Exception as error:
            # The page must hear of it, and the thread must live.
            log("defect", logging.ERROR, exc_info=True, error=type(error).__name__, where="page")
            case.reason, case.state = "an internal error; see the service's log", "failed"
        seconds = round(time.monotonic() - start, 2)
        log("case", state=case.state, volume=case.is_volume, seconds=seconds)


def _teller(case: Case) -> Callable[[float], None]:
    def tell(share: float) -> None:
        # Reading and projecting come before, fusing after.
        case.progress = 0.1 + 0.8 * share

    return tell


def _predict(case: Case, upload, predictor: MIPPredictor, watch: PatientWatch) -> None:
    if upload.levels is not None:
        _, probability = predictor.predict_image(upload.levels, watch)
        case.levels, case.probability = upload.levels[None], probability
        case.threshold = predictor.config.threshold
        return
    study = predictor.predict_study(upload.suv, upload.ct, watch=watch)
    case.study, case.suv = study, upload.suv
    case.levels = study.levels
    case.pixel_mm = study.spacing_mm[1:]
    case.angles_deg = tuple(study.geometry.angles_deg)


def _mark_image(case: Case, threshold: float, predictor: MIPPredictor) -> Marked:
    config = replace(predictor.config, threshold=threshold)
    mask = mask_of_view(case.probability, config)
    rows = region_table(mask, case.levels[0], probability=case.probability)
    return Marked(mask, mask[None], rows)


def _mark_volume(case: Case, threshold: float, predictor: MIPPredictor) -> Marked:
    study, config = case.study, predictor.config
    if threshold == case.threshold:
        mask = study.mask
    else:
        # Fusion takes 0.5 for the border of a lesion: what is probable by `threshold` becomes that.
        views = study.view_probability
        shifted = np.where(
            views < threshold,
            0.5 * views / threshold,
            0.5 + 0.5 * (views - threshold) / (1 - threshold),
        ).astype(np.float32)
        asked = to_detector(shifted, study.geometry, config.pixel_mm)
        mask = fuse(asked, study.geometry, config.fusion, case.suv.array)
    shadow = project_mask(mask, study.geometry)
    overlay = to_pixels(shadow, study.geometry, config.pixel_mm, nearest=True)
    rows = lesion_table(mask, case.suv.array, case.suv.grid)
    return Marked(mask, (overlay != 0).astype(np.uint8), rows)


def mask_file(case: Case, marked: Marked) -> tuple[bytes, str]:
    """The mask as a file to keep, and its suffix: PNG as the competition wants it, or NIfTI."""
    if not case.is_volume:
        return mask_png(marked.mask), ".png"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{NIFTI}"
        write_volume(marked.mask, case.suv.grid, path)
        return path.read_bytes(), NIFTI
