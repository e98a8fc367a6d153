"""The page: sections, tables and cards around plots and pictures, in one file.

The browser is told to fetch nothing: a policy in the page allows its own style sheet and script
(by its checksum) and embedded pictures, and no address at all.
"""

import base64
import hashlib
import time
from pathlib import Path

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import Content, Request
from nnunetv2_mip.report.markup import Markup, element, join, json_block
from nnunetv2_mip.report.sections.cases import cases_section
from nnunetv2_mip.report.sections.data import dataset_section, training_section
from nnunetv2_mip.report.sections.parts import card_id, section_of
from nnunetv2_mip.report.sections.scores import all_cases_section, metrics_section
from nnunetv2_mip.report.sections.summary import summary_section

STATIC = Path(__file__).parent / "static"
# The rotating MIP of the service's page and of the report are turned by the same script.
SHARED = Path(__file__).parent.parent / "visualization" / "static"
SCRIPTS = (SHARED / "turntable.js", STATIC / "report.js")
STYLE = STATIC / "report.css"


def page_of(content: Content) -> str:
    """The whole file."""
    sections = [
        section
        for section in (
            summary_section(content),
            metrics_section(content),
            cases_section(content),
            all_cases_section(content),
            dataset_section(content),
            training_section(content.training),
            _method(content),
        )
        if section is not None
    ]
    title = content.request.title or _default_title(content)
    script = "\n".join(path.read_text("utf-8") for path in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="generator", content=f"nnunetv2-mip {__version__}"),
            element("title", title),
            element("style", Markup(STYLE.read_text("utf-8"))),
        ]
    )
    links = [element("a", name, href=f"#{identity}") for identity, name, _ in sections]
    body = join(
        [
            element(
                "header",
                element("h1", title),
                element("p", _subtitle(content), class_="muted"),
                element(
                    "p",
                    element("b", "Research use only."),
                    " Not a medical device: not for diagnosis, therapy planning or any clinical "
                    "decision.",
                    class_="research",
                ),
            ),
            element("nav", links, aria_label="Sections"),
            element("main", [section for _, _, section in sections]),
            json_block("turns", {card_id(content, c): t.page for c, t in content.turns.items()}),
            Markup(f"<script>{script}</script>"),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _default_title(content: Content) -> str:
    request = content.request
    if request.predictions is not None:
        return f"Report: {request.predictions.resolve().name}"
    if content.check is not None:
        return f"Data set check: {content.check.name}"
    return f"Training: {content.training.name}"


def _subtitle(content: Content) -> str:
    request = content.request
    parts = [
        f"{word} {path.resolve().name}"
        for word, path in (
            ("predictions", request.predictions),
            ("truth", request.truths),
            ("data set", request.dataset),
            ("model", request.model),
        )
        if path is not None
    ]
    return f"{' · '.join(parts)} · {time.strftime('%Y-%m-%d')}"


def _method(content: Content):
    request = content.request
    lines = []
    if content.scores is not None:
        overlap = (
            "at least one voxel"
            if not request.min_overlap
            else f"at least {request.min_overlap:g} of it"
        )
        lines += [
            "Scores are those of nnUNetv2_mip_evaluate. A case without lesions has no Dice and "
            "stays out of its mean; its false positives are reported instead. Intervals are "
            "percentile bootstraps over cases (95 %, 10 000 draws).",
            "A lesion is a connected component: 18-connected in a volume, 8-connected in an "
            f"image. It is found when {overlap} is predicted; a predicted lesion is right by the "
            "same rule with the roles exchanged.",
        ]
    if any(f.kind == "volume" for f in content.drawn_facts.values()):
        lines.append(
            f"Rotating MIPs: {request.turn.views} views over 180°, window SUV 0 to "
            f"{request.turn.window_suv:g}; the other half of the turn is their mirror image. 0° is "
            "seen from the front, with the patient's left on the right of the picture. A lesion "
            "counts as visible in a view when enough of its pixels win their rays (occlusion rule "
            "of arXiv 2510.09326). TLG: mean SUV × ml."
        )
    if any(f.kind == "png" for f in (*content.facts.values(), *content.drawn_facts.values())):
        lines.append("PNGs say nothing of their pixels: 2 mm are taken.")
    lines.append(f"Made by nnunetv2-mip {__version__}, nnUNetv2_mip_report.")
    return section_of("method", "Method", [element("p", line) for line in lines])


SUFFIX = ".html"


def write_report(request: Request, output: Path, show_progress: bool = False) -> Content:
    """Make a report and write it, whole or not at all.

    Raises:
        MipError: see `collect`; or `output` is no `.html`.
    """
    from nnunetv2_mip.report.page import page_of

    if output.suffix.lower() != SUFFIX:
        raise MipError(f"{output}: the report is HTML; give a name that ends in {SUFFIX}")
    if output.is_dir():
        raise MipError(f"{output}: is a folder; choose another -o")
    content = collect(request, show_progress)
    text = page_of(content)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as partial_output:
        # Names of files need not be text.
        partial_output.write_bytes(text.encode("utf-8", "replace"))
    return content
