"""Fixtures of the report's tests: cases with predictions, their reports, a parser of the page."""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.commands import phantom, report
from nnunetv2_mip.io.study_layouts import find_studies


def _run(command, *arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


def _save_png(path: Path, grey: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.astype(np.uint8)).save(path)


class Page(HTMLParser):
    """Parsed report.

    Attributes:
        text: the file.
        tags: (name, attributes) of every element.
        words: text of all elements but scripts and styles.
        scores: text of the mean scores, by key.
        rows: values of the table of all cases, by case; None where there is no value.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags, self.words, self.scores, self.rows = [], "", {}, {}
        self._open, self._score, self._row = [], None, []
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self._open.append(tag)
        self._score = attributes.get("data-score")
        if "data-value" in attributes:
            value = attributes["data-value"]
            self._row.append(float(value) if value else None)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.words += data
        if self._score:
            self.scores[self._score], self._score = data, None
        if self._open[-2:] in (["tr", "th"], ["th", "a"]):
            self._row = self.rows.setdefault(data, [])

    def attributes_of(self, tag: str) -> list[dict]:
        """Attributes of all elements of a name."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def pictures(self) -> dict:
        """Data of the rotating MIPs, by the id of their card."""
        block = re.search(r'<script type="application/json" id="turns">(.*?)</script>', self.text)
        return json.loads(block.group(1))


@pytest.fixture(scope="session")
def run() -> Callable[..., int]:
    """Runs a command's `main` with arguments; gives its exit code."""
    return _run


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """Reads a report."""
    return Page


@pytest.fixture(scope="session")
def hostile_name() -> str:
    """Name of a case that is HTML with scripts."""
    return '"><img src=x onerror=alert(1)><script>alert(2)<!--'


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Folder with five coarse phantoms (`tree`) and their masks (`masks`): shifted, one empty."""
    folder = tmp_path_factory.mktemp("report")
    assert _run(phantom, "-o", folder / "tree", "-n", 5, "--spacing", 10, "--seed", 3) == 0
    (folder / "masks").mkdir()
    for number, study in enumerate(find_studies(folder / "tree")):
        image = sitk.ReadImage(str(study.seg))
        mask = np.roll(sitk.GetArrayFromImage(image), 1, axis=2)
        if number == 1:
            mask[:] = 0
        mask[2:4, 2:4, 2:5] = 1
        shifted = sitk.GetImageFromArray(mask)
        shifted.CopyInformation(image)
        sitk.WriteImage(shifted, str(folder / "masks" / f"{study.case}.nii.gz"))
    return folder


@pytest.fixture(scope="session")
def volume_report(cohort) -> Path:
    """Report of the phantoms."""
    output = cohort / "out" / "report.html"
    arguments = ["-i", cohort / "masks", "-g", cohort / "tree", "-o", output]
    assert _run(report, *arguments, "--cases", 1, "--views", 6) == 0
    return output


@pytest.fixture(scope="session")
def pngs(tmp_path_factory, hostile_name) -> Path:
    """Folder with a DM-i-AI folder (`data`: three patients, a control) and predictions (`masks`).

    One of the patients has the hostile name.
    """
    folder = tmp_path_factory.mktemp("pngs")
    for number, name in enumerate(("patient_1", "patient_2", hostile_name)):
        grey = np.full((60, 80), 250)
        grey[4:56, 28:52] = 180 + number
        grey[20:26, 32 : 36 + number] = 10
        mask = np.where(grey == 10, 255, 0)
        _save_png(folder / f"data/patients/imgs/{name}.png", grey)
        label = name.replace("patient_", "segmentation_")
        _save_png(folder / f"data/patients/labels/{label}.png", mask)
        _save_png(folder / f"masks/{name}.png", np.roll(mask, 2, axis=1))
    _save_png(folder / "data/controls/imgs/control_1.png", grey + (grey == 10) * 100)
    _save_png(folder / "masks/control_1.png", np.roll(mask, 3, axis=0))
    return folder


@pytest.fixture(scope="session")
def png_report(pngs) -> Path:
    """Report of the PNGs."""
    output = pngs / "report.html"
    assert _run(report, "-i", pngs / "masks", "-g", pngs / "data", "-o", output) == 0
    return output


@pytest.fixture
def look(browser) -> Iterator[Callable]:
    """Opens a file in the browser; checks at the end that it loaded nothing and had no errors."""
    opened = []

    def open_file(path: Path, width: int = 1200):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        address = path.resolve().as_uri()
        page.goto(address)
        opened.append((page, address, requests, errors))
        return page

    yield open_file
    for page, address, requests, errors in opened:
        others = [url for url in requests if url != address and not url.startswith("data:")]
        assert others == [] and errors == []
        page.close()
