"""HTML file of a report: its sections around one style sheet and one script.

The file loads nothing: its content security policy allows its own style sheet, its own script (by
checksum) and embedded pictures, and no address at all.
"""

import base64
import hashlib
import time
from contextlib import nullcontext
from pathlib import Path

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.inference.progress import shown
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import ReportContent, ReportRequest
from nnunetv2_mip.report.sections.all_cases import all_cases_section
from nnunetv2_mip.report.sections.cases import cases_section
from nnunetv2_mip.report.sections.data import data_section
from nnunetv2_mip.report.sections.method import method_section
from nnunetv2_mip.report.sections.metrics import metrics_section
from nnunetv2_mip.report.sections.summary import summary_section
from nnunetv2_mip.report.sections.training import training_section
from nnunetv2_mip.report.templating import STATIC, render

SUFFIX = ".html"
# The rotating MIPs of the service's page and of the report share this script.
SHARED = Path(__file__).parent.parent / "visualization" / "static"
SCRIPTS = (SHARED / "turntable.js", STATIC / "report.js")
STYLE = STATIC / "report.css"
# In the order of the page; each gives None where it has nothing to show.
SECTIONS = (
    summary_section,
    metrics_section,
    cases_section,
    all_cases_section,
    data_section,
    training_section,
    method_section,
)


def write_report(
    request: ReportRequest, output: Path, show_progress: bool = False
) -> ReportContent:
    """Content of the report that is asked for, after its file is written (whole or not at all).

    Raises:
        MipError: see `collect`; or `output` is no `.html`.
    """
    if output.suffix.lower() != SUFFIX:
        raise MipError(f"{output}: the report is HTML; give a name that ends in {SUFFIX}")
    if output.is_dir():
        raise MipError(f"{output}: is a folder; choose another -o")
    content = collect(request, show_progress)
    with shown("writing the page") if show_progress else nullcontext():
        text = render_page(content)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as partial_output:
        # Names of files may hold bytes that are no text.
        partial_output.write_bytes(text.encode("utf-8", "replace"))
    return content


def render_page(content: ReportContent) -> str:
    """HTML of the whole page."""
    sections = [section for make in SECTIONS if (section := make(content)) is not None]
    script = "\n".join(path.read_text("utf-8") for path in SCRIPTS)
    return render(
        "page.html",
        title=content.request.title or _default_title(content),
        inputs=_inputs(content.request),
        date=time.strftime("%Y-%m-%d"),
        sections=sections,
        pictures={content.card_id(case): p.page for case, p in content.pictures.items()},
        policy=_security_policy(script),
        script=script,
        style=STYLE.read_text("utf-8"),
        version=__version__,
    )


def _security_policy(script: str) -> str:
    checksum = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'"
    )


def _default_title(content: ReportContent) -> str:
    request = content.request
    if request.predictions is not None:
        return f"Report: {request.predictions.resolve().name}"
    if content.check is not None:
        return f"Data set check: {content.check.name}"
    return "Report" if content.training is None else f"Training: {content.training.name}"


def _inputs(request: ReportRequest) -> list[str]:
    return [
        f"{word} {path.resolve().name}"
        for word, path in (
            ("predictions", request.predictions),
            ("truth", request.truths),
            ("data set", request.dataset),
            ("model", request.model),
        )
        if path is not None
    ]
