"""What the service allows, and how long it may take."""

from dataclasses import dataclass

SERVICE_NAME = "tumor-segmentation"
# The competition gives up on a request after this long.
CALLER_LIMIT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """Limits of the service.

    Attributes:
        deadline_s: an answer is due so long after its request arrived.
        queue: requests that may wait; more get 503.
        never_empty: mark the most likely region where nothing reaches the threshold.
        polarity: of PNGs, one of `png.POLARITIES`.
        page: serve the page for people, too.
        max_body_bytes: of a request for a prediction.
        max_pixels: of an image (the competition's largest has 396 400).
        max_side_px: longest side of an image.
        max_upload_bytes: of a file for the page.
        max_voxels: of a volume for the page.
        max_cases: that the page keeps in memory, the oldest go first.
        case_minutes: how long it keeps them.
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
