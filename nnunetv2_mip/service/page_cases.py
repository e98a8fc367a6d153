"""The cases of the page: read, predicted, kept in memory for a while.

An upload lies in a temporary folder until its turn comes, and is removed when it has been read.
Nothing else of a case is ever on disk.
"""

import asyncio
import logging
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Cancelled
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.inference.predictor import MIPPredictor, StudyPrediction
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import write_volume
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.lesions.region_table import region_table
from nnunetv2_mip.service.image_codec import mask_png
from nnunetv2_mip.service.logs import log
from nnunetv2_mip.service.request_queue import BackgroundDeadline, Desk
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.service.uploads import read_upload
from nnunetv2_mip.views.projection import project_mask
from nnunetv2_mip.views.resampling import to_pixels

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
        folder: where the upload lies until it is read.
        work, clock: on it, and until it is forgotten.
    """

    name: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "waiting"
    progress: float = 0.0
    reason: str = ""
    warnings: tuple[str, ...] = ()
    dropped: bool = False
    levels: np.ndarray | None = None
    pixel_mm: tuple[float, float] = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    angles_deg: tuple[float, ...] = (0.0,)
    threshold: float = 0.5
    study: Study | None = None
    found: StudyPrediction | None = None
    probability: np.ndarray | None = None
    marked: tuple[float, Marked] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    folder: tempfile.TemporaryDirectory | None = None
    work: Future | None = None
    clock: threading.Timer | None = None

    @property
    def is_volume(self) -> bool:
        return self.study is not None


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
        # Files that are coming, waiting or being worked on, forgotten ones too.
        self._pending = 0
        self._worker = ThreadPoolExecutor(1, "page")
        # Threads of the page's own: it may wait, requests for predictions use asyncio's.
        self._aside = ThreadPoolExecutor(4, "page-aside")
        # Of numba's threading layers not all bear two threads at once: who projects or fuses.
        self._hands = threading.Lock()

    def reserve(self, name: str) -> Case:
        """A case for a file that is to come; `start` or `release` must follow.

        Raises:
            MipError: as many files as are kept are coming, waiting or being worked on already.
        """
        with self._lock:
            if self._pending >= self._settings.max_cases:
                raise MipError(
                    f"{name}: {self._pending} files are being worked on; come again later"
                )
            self._pending += 1
        return Case(name)

    def release(self) -> None:
        """Give back what was reserved: the file did not come, or is not worked on."""
        with self._lock:
            self._pending -= 1

    def start(self, case: Case, content: Path, folder: tempfile.TemporaryDirectory) -> None:
        """Start work on an uploaded file; `folder`, where it lies, is removed when it is read."""
        with self._lock:
            finished = [k for k, c in self._cases.items() if c.state in ("done", "failed")]
            while len(self._cases) >= self._settings.max_cases:
                self._cases.pop(finished.pop(0)).clock.cancel()
            self._cases[case.key] = case
            case.folder = folder
            case.work = self._worker.submit(self._work, case, content)
            case.clock = threading.Timer(60 * self._settings.case_minutes, self.drop, [case.key])
            case.clock.daemon = True
            case.clock.start()

    def get(self, key: str) -> Case:
        """A case.

        Raises:
            KeyError: there is none, or it was forgotten.
        """
        with self._lock:
            return self._cases[key]

    def drop(self, key: str) -> None:
        """Forget a case, and stop working on it."""
        with self._lock:
            case = self._cases.pop(key, None)
        if case is None:
            return
        case.dropped = True
        case.clock.cancel()
        if case.work.cancel():
            case.folder.cleanup()
            self.release()

    def close(self) -> None:
        """Stop all work."""
        for key in list(self._cases):
            self.drop(key)
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._aside.shutdown(wait=True, cancel_futures=True)

    async def aside(self, work: Callable, *arguments):
        """Do for the page what takes a while, on a thread of the page's own."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work, *arguments)

    def mark(self, case: Case, threshold: float) -> Marked:
        """The answer of a finished case at a threshold (the last one asked for is kept)."""
        with case.lock:
            if case.marked is None or case.marked[0] != threshold:
                how = _mark_volume if case.is_volume else _mark_image
                with self._hands:
                    case.marked = (threshold, how(case, threshold, self._desk.predictor))
            return case.marked[1]

    def _work(self, case: Case, content: Path) -> None:
        start = time.monotonic()
        try:
            with case.folder:
                case.state = "running"
                wants_ct = self._desk.predictor.wants_ct
                upload = read_upload(content, case.name, wants_ct, self._settings)
            if upload.study is not None:
                case.warnings = tuple(
                    line.replace(str(content), case.name) for line in upload.study.warnings
                )
            if case.dropped:
                raise Cancelled
            deadline = BackgroundDeadline(
                self._desk.device, self._hands, _teller(case), lambda: case.dropped
            )
            with self._hands:
                _predict(case, upload, self._desk.predictor, deadline)
            self.mark(case, case.threshold)
            case.progress = 1.0
            state, reason = "done", ""
        except MipError as error:
            state, reason = "failed", " ".join(str(error).splitlines())[:400]
        except Cancelled:
            state, reason = "failed", "stopped"
        except Exception as error:
            # The page must hear of it, and the thread must live.
            log("defect", logging.ERROR, exc_info=True, error=type(error).__name__, where="page")
            state, reason = "failed", "an internal error; see the service's log"
        with self._lock:
            # At once: who sees that a case has ended may send the next.
            case.reason, case.state = reason, state
            self._pending -= 1
        seconds = round(time.monotonic() - start, 2)
        log("case", state=case.state, volume=case.is_volume, seconds=seconds)


def _teller(case: Case) -> Callable[[float], None]:
    def tell(share: float) -> None:
        # Reading and projecting come before, fusing after; another network begins anew.
        case.progress = max(case.progress, 0.1 + 0.8 * share)

    return tell


def _predict(case: Case, upload, predictor: MIPPredictor, deadline: BackgroundDeadline) -> None:
    if upload.levels is not None:
        _, probability = predictor.predict_image(upload.levels, deadline)
        case.levels, case.probability = upload.levels[None], probability
        case.threshold = predictor.config.threshold
        return
    found = predictor.predict_study(upload.study, deadline=deadline)
    case.found, case.study = found, upload.study
    case.threshold = predictor.volume_threshold
    case.levels = found.levels
    case.pixel_mm = found.spacing_mm[1:]
    case.angles_deg = tuple(found.geometry.angles_deg)


def _mark_image(case: Case, threshold: float, predictor: MIPPredictor) -> Marked:
    config = replace(predictor.config, threshold=threshold)
    mask = mask_of_view(case.probability, config)
    rows = region_table(mask, case.levels[0], probability=case.probability)
    return Marked(mask, mask[None], rows)


def _mark_volume(case: Case, threshold: float, predictor: MIPPredictor) -> Marked:
    found, study = case.found, case.study
    mask = predictor.mask_at(found, study, threshold)
    shadow = project_mask(mask, found.geometry)
    overlay = to_pixels(shadow, found.geometry, found.views.pixel_mm, nearest=True)
    rows = lesion_table(mask, study.suv.array, study.grid)
    return Marked(mask, (overlay != 0).astype(np.uint8), rows)


def mask_file(case: Case, marked: Marked) -> tuple[bytes, str]:
    """The mask as a file to keep, and its suffix: PNG as the competition wants it, or NIfTI."""
    if not case.is_volume:
        return mask_png(marked.mask), ".png"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{NIFTI}"
        write_volume(marked.mask, case.study.grid, path)
        return path.read_bytes(), NIFTI
