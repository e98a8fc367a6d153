"""Cases of the web page: uploads, their predictions and masks, kept in memory for a limited time.

An uploaded file lies in a temporary folder until it is read, and is then removed. Nothing else of a
case is written to disk.
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
from nnunetv2_mip.inference.deadline import Cancelled, Deadline
from nnunetv2_mip.inference.postprocessing import mask_of_image
from nnunetv2_mip.inference.predictor import MIPPredictor, StudyPrediction
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import write_volume
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.lesions.region_table import region_table
from nnunetv2_mip.service.device_lock import BackgroundDeadline
from nnunetv2_mip.service.image_codec import mask_png
from nnunetv2_mip.service.logs import log
from nnunetv2_mip.service.request_queue import RequestQueue
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.service.uploads import Upload, read_upload
from nnunetv2_mip.views.projection import project_mask
from nnunetv2_mip.views.resampling import to_pixels
from nnunetv2_mip.wording import counted

NIFTI = ".nii.gz"


@dataclass(frozen=True)
class CaseMask:
    """Mask of a case at one threshold.

    Attributes:
        mask: uint8 of 0 and 1, (H, W) of an image, (z, y, x) of a volume.
        overlay: (V, H, W) uint8 of 0 and 1, the mask on the views.
        rows: table of lesions (volume) or of regions (image).
    """

    mask: np.ndarray
    overlay: np.ndarray
    rows: list[dict]


@dataclass(frozen=True)
class ImageResult:
    """Prediction of an image: probability, (H, W) float32."""

    probability: np.ndarray


@dataclass(frozen=True)
class StudyResult:
    """Volumes of a study and their prediction."""

    study: Study
    prediction: StudyPrediction


@dataclass
class Case:
    """Upload with its prediction.

    Attributes:
        name: file name given by the user.
        options: of a zip with DICOM.
        key: random text that identifies the case in URLs.
        state: `waiting`, `running`, `done` or `failed`.
        progress: finished share, 0 to 1.
        reason: error in one line, for a failed case.
        warnings: lines for the user.
        dropped: True once the case was removed; work on it stops.
        levels: (V, H, W) uint8, input of the network; an image is one view. No view before the
            prediction.
        pixel_mm: (row, column) size of a pixel of the views.
        angles_deg: projection angles of the views.
        threshold: threshold of the model.
        result: prediction of the image or study, None before it.
        last_mask: last threshold and its mask.
        lock: held while a mask is made.
    """

    name: str
    options: DicomOptions = FROM_HEADERS
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "waiting"
    progress: float = 0.0
    reason: str = ""
    warnings: tuple[str, ...] = ()
    dropped: bool = False
    levels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    pixel_mm: tuple[float, float] = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    angles_deg: tuple[float, ...] = (0.0,)
    threshold: float = 0.5
    result: ImageResult | StudyResult | None = None
    last_mask: tuple[float, CaseMask] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_volume(self) -> bool:
        return isinstance(self.result, StudyResult)


@dataclass(frozen=True)
class _StoredCase:
    """Case with the temporary folder of its upload, its work, and the timer that removes it."""

    case: Case
    folder: tempfile.TemporaryDirectory
    job: Future
    expiry: threading.Timer


class CaseStore:
    """Store of the cases, and the thread that works on them, one at a time.

    Args:
        queue: request queue, whose predictor and device are used.
        settings: limits.
    """

    def __init__(self, queue: RequestQueue, settings: Settings):
        self._queue, self._settings = queue, settings
        self._cases: OrderedDict[str, _StoredCase] = OrderedDict()
        self._lock = threading.Lock()
        self._pending = 0
        self._worker = ThreadPoolExecutor(1, "page")
        # Work of the page waits on threads of its own; asyncio's are for prediction requests.
        self._threads = ThreadPoolExecutor(4, "page-files")
        # Not all of numba's threading layers allow two threads at once to project or to fuse.
        self._numba_lock = threading.Lock()

    def __len__(self) -> int:
        """Number of cases kept."""
        return len(self._cases)

    @property
    def pending(self) -> int:
        """Number of files being received, waiting or in work, of removed cases too."""
        return self._pending

    def reserve(self, name: str, options: DicomOptions = FROM_HEADERS) -> Case:
        """New case for a file not yet received; `start` or `release` must follow.

        Raises:
            MipError: the number of pending files is at its limit.
        """
        with self._lock:
            if self._pending >= self._settings.max_cases:
                raise MipError(
                    f"{name}: {counted(self._pending, 'file', 'is')} being worked on; come "
                    "again later"
                )
            self._pending += 1
        return Case(name, options)

    def release(self) -> None:
        """End a reservation: the file was not received, or will not be worked on."""
        with self._lock:
            self._pending -= 1

    def start(self, case: Case, path: Path, folder: tempfile.TemporaryDirectory) -> None:
        """Start work on an uploaded file at `path`; its `folder` is removed when it is read."""
        with self._lock:
            finished = [k for k, c in self._cases.items() if c.case.state in ("done", "failed")]
            while len(self._cases) >= self._settings.max_cases:
                self._cases.pop(finished.pop(0)).expiry.cancel()
            job = self._worker.submit(self._run, case, path, folder)
            expiry = threading.Timer(60 * self._settings.case_minutes, self.drop, [case.key])
            expiry.daemon = True
            self._cases[case.key] = _StoredCase(case, folder, job, expiry)
            expiry.start()

    def get(self, key: str) -> Case:
        """Case of a key.

        Raises:
            KeyError: the case does not exist, or was removed.
        """
        with self._lock:
            return self._cases[key].case

    def drop(self, key: str) -> None:
        """Remove a case and stop work on it."""
        with self._lock:
            stored = self._cases.pop(key, None)
        if stored is None:
            return
        stored.case.dropped = True
        stored.expiry.cancel()
        if stored.job.cancel():
            stored.folder.cleanup()
            self.release()

    def close(self) -> None:
        """Remove all cases and stop all work."""
        for key in list(self._cases):
            self.drop(key)
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run_in_thread(self, work: Callable, *arguments):
        """Result of `work(*arguments)`, run on a thread of the page."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def mask_at(self, case: Case, threshold: float) -> CaseMask:
        """Mask of a finished case at a threshold; the last one is kept."""
        with case.lock:
            if case.last_mask is None or case.last_mask[0] != threshold:
                with self._numba_lock:
                    case.last_mask = (threshold, _mask(case, threshold, self._queue.predictor))
            return case.last_mask[1]

    def _run(self, case: Case, path: Path, folder: tempfile.TemporaryDirectory) -> None:
        """Work on a case, from reading to its end as `done` or `failed`."""
        start = time.monotonic()
        try:
            self._read_and_predict(case, path, folder)
            case.progress = 1.0
            state, reason = "done", ""
        except MipError as error:
            state, reason = "failed", " ".join(str(error).splitlines())[:400]
        except Cancelled:
            state, reason = "failed", "stopped"
        except Exception as error:
            # The page must show the failure, and the thread must live on.
            log("defect", logging.ERROR, exc_info=True, error=type(error).__name__, where="page")
            state, reason = "failed", "an internal error; see the service's log"
        with self._lock:
            # Both together: a client that sees the end of the case may send the next file.
            case.reason, case.state = reason, state
            self._pending -= 1
        seconds = round(time.monotonic() - start, 2)
        log("case", state=case.state, volume=case.is_volume, seconds=seconds)

    def _read_and_predict(
        self, case: Case, path: Path, folder: tempfile.TemporaryDirectory
    ) -> None:
        predictor = self._queue.predictor
        with folder:
            case.state = "running"
            upload = read_upload(path, case.name, predictor.wants_ct, self._settings, case.options)
        case.warnings = upload.warnings
        if upload.study is not None:
            case.warnings = tuple(
                line.replace(str(path), case.name) for line in upload.study.warnings
            )
        if case.dropped:
            raise Cancelled
        deadline = BackgroundDeadline(
            self._queue.device_lock,
            self._numba_lock,
            lambda share: _set_progress(case, share),
            lambda: case.dropped,
        )
        with self._numba_lock:
            _predict(case, upload, predictor, deadline)
        self.mask_at(case, case.threshold)


def _set_progress(case: Case, share: float) -> None:
    """Progress of a case from the finished share of windows.

    Reading and projecting take the first tenth, fusing the last. A second network starts again
    from 0, which must not move the progress back.
    """
    case.progress = max(case.progress, 0.1 + 0.8 * share)


def _predict(case: Case, upload: Upload, predictor: MIPPredictor, deadline: Deadline) -> None:
    """Predict an upload and store the results in its case."""
    if upload.levels is not None:
        _, probability = predictor.predict_image(upload.levels, deadline)
        case.levels, case.result = upload.levels[None], ImageResult(probability)
        case.threshold = predictor.for_images.config.threshold
    elif upload.study is not None:
        _predict_study(case, upload.study, predictor, deadline)


def _predict_study(case: Case, study: Study, predictor: MIPPredictor, deadline: Deadline) -> None:
    found = predictor.predict_study(study, deadline=deadline)
    case.result = StudyResult(study, found)
    case.threshold = predictor.volume_threshold
    case.levels = found.levels
    case.pixel_mm = found.spacing_mm[1:]
    case.angles_deg = tuple(found.geometry.angles_deg)


def _mask(case: Case, threshold: float, predictor: MIPPredictor) -> CaseMask:
    if case.result is None:
        raise ValueError(f"{case.name}: has no prediction yet")
    if isinstance(case.result, StudyResult):
        return _volume_mask(case.result, threshold, predictor)
    return _image_mask(case.levels[0], case.result.probability, threshold, predictor)


def _image_mask(
    levels: np.ndarray, probability: np.ndarray, threshold: float, predictor: MIPPredictor
) -> CaseMask:
    own = predictor.for_images.config
    config = replace(own, threshold=threshold)
    if threshold < own.threshold:
        # Asked for more than the model marks: a healthy image shows its most likely regions too.
        config = replace(config, healthy_image=None)
    mask = mask_of_image(probability, config)
    rows = region_table(mask, levels, probability=probability)
    return CaseMask(mask, mask[None], rows)


def _volume_mask(result: StudyResult, threshold: float, predictor: MIPPredictor) -> CaseMask:
    study, found = result.study, result.prediction
    mask = predictor.mask_at(found, study, threshold)
    projected = project_mask(mask, found.geometry)
    overlay = to_pixels(projected, found.geometry, found.views.pixel_mm, nearest=True)
    rows = lesion_table(mask, study.suv.array, study.grid)
    return CaseMask(mask, (overlay != 0).astype(np.uint8), rows)


def mask_file(case: Case, found: CaseMask) -> tuple[bytes, str]:
    """File content of a mask and its suffix: PNG as for DM i AI (image) or NIfTI (volume)."""
    if not isinstance(case.result, StudyResult):
        return mask_png(found.mask), ".png"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{NIFTI}"
        write_volume(found.mask, case.result.study.grid, path)
        return path.read_bytes(), NIFTI
