"""Settings of the service: limits of time, size and number."""

from dataclasses import dataclass

SERVICE_NAME = "tumor-segmentation"


@dataclass(frozen=True)
class Settings:
    """Limits of the service.

    Attributes:
        deadline_s: seconds from the arrival of a request to its answer.
        queue: number of requests that may wait; more get status 503.
        never_empty: mark the most likely region where no pixel reaches the threshold.
        polarity: grey value of uptake in PNGs, one of `png.POLARITIES`.
        page: serve the web page too.
        max_body_bytes: size of a request for a prediction.
        max_pixels: pixels of an image (the largest of DM i AI has 396 400).
        max_side_px: longest side of an image.
        max_upload_bytes: size of a file for the page.
        max_voxels: voxels of a volume for the page.
        max_cases: number of cases that the page keeps in memory; the oldest is removed first.
        case_minutes: time for which the page keeps a case.
    """

    deadline_s: float = 8.0
    queue: int = 32
    never_empty: bool = False
    polarity: str = "dark"
    page: bool = True
    max_body_bytes: int = 16 * 2**20
    max_pixels: int = 2_000_000
    max_side_px: int = 4096
    max_upload_bytes: int = 2**30
    max_voxels: int = 250_000_000
    max_cases: int = 4
    case_minutes: float = 30.0
