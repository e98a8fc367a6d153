"""Section "Method": how scores and pictures were made."""

from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip import __version__
from nnunetv2_mip.report.content import ReportContent


@dataclass(frozen=True)
class MethodSection:
    """Values of the method section.

    Attributes:
        has_scores: whether scores are shown.
        overlap: share of a lesion that must be predicted for it to be found, in words.
        has_volumes, has_pngs: whether the cases include such.
        views: of a rotating MIP, over 180°.
        window_suv: SUV drawn black.
        version: of this package.
    """

    id: ClassVar[str] = "method"
    title: ClassVar[str] = "Method"
    template: ClassVar[str] = "method.html"
    has_scores: bool
    overlap: str
    has_volumes: bool
    has_pngs: bool
    views: int
    window_suv: str
    version: str


def method_section(content: ReportContent) -> MethodSection:
    """Method behind the other sections of the page."""
    request = content.request
    overlap = "at least one voxel"
    if request.min_overlap:
        overlap = f"at least {request.min_overlap:g} of it"
    drawn = content.drawn_facts.values()
    return MethodSection(
        content.scores is not None,
        overlap,
        any(f.kind == "volume" for f in drawn),
        any(f.kind == "png" for f in (*content.facts.values(), *drawn)),
        request.drawing.views,
        f"{request.drawing.window_suv:g}",
        __version__,
    )
