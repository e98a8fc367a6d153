"""Fixtures of the classification tests: the command, cohorts, and a head on the tiny network."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run as run_command

from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.commands import classify as command

Cohort = tuple[list[np.ndarray], list[StudyLabel]]


run = partial(run_command, command)


def write_cohort(raw: Path, without: int = 6, with_lesions: int = 6, views: int = 1) -> None:
    """A raw data set as the converters write it: a bright square is a lesion."""
    rng = np.random.default_rng(3)
    (raw / "imagesTr").mkdir(parents=True)
    lesions = {}
    for number in range(without + with_lesions):
        case = f"case_{number:02d}"
        lesions[case] = number < with_lesions
        levels = rng.integers(20, 60, (views, 44, 36)).astype(np.uint8)
        if lesions[case]:
            row, column = rng.integers(5, 30), rng.integers(5, 25)
            levels[:, row : row + 8, column : column + 8] = 220
        image = sitk.GetImageFromArray(levels)
        image.SetSpacing((4.0, 5.0, 1000.0))
        sitk.WriteImage(image, str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
    mip = {"has_lesion": lesions, "patients": {case: case for case in lesions}}
    (raw / "dataset.json").write_text(json.dumps({"mip": mip}))


@pytest.fixture(name="classify")
def run_command() -> Callable[..., int]:
    """Exit code of `nnUNetv2_mip_classify` with the given arguments."""
    return run


@pytest.fixture
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    """Rows of a CSV file."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(name="write_cohort")
def cohort_writer() -> Callable[..., None]:
    """Writer of a raw data set."""
    return write_cohort


@pytest.fixture
def cohort() -> Callable[..., Cohort]:
    """Random features of studies: (count, views, shift, seed) → bags (2, V, 6) and labels.

    Studies with lesions have one view, the last but one, whose first features are raised by shift.
    """

    def make(count: int, views: int, shift: float, seed: int = 0) -> Cohort:
        rng = np.random.default_rng(seed)
        bags, studies = [], []
        for number in range(count):
            has_lesion = number % 2 == 0
            bag = rng.normal(size=(2, views, 6)).astype(np.float32)
            if has_lesion:
                bag[:, -2 if views > 1 else 0, :2] += shift
            bags.append(bag)
            studies.append(StudyLabel(f"c{number}", f"p{number}", has_lesion))
        return bags, studies

    return make


@pytest.fixture
def few_threads() -> Iterator[None]:
    """One thread of torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tiny_trained, tmp_path_factory) -> tuple[Path, Path, str]:
    """A head on the tiny network, its data set's nnUNet_raw, and the printed text of the command.

    Read it, do not change it.
    """
    base = tmp_path_factory.mktemp("classify")
    write_cohort(base / "raw" / "Dataset801_Cohort", views=2)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny_trained.environment.items():
            patch.setenv(name, value)
        patch.setenv("nnUNet_raw", str(base / "raw"))
        with contextlib.redirect_stdout(printed):
            code = run(
                *("train", "-d", 801, "-o", base / "out", "--network", tiny_trained.model),
                *("--cache", base / "cache", "-device", "cpu"),
            )
    assert code == 0, printed.getvalue()
    return base / "out", base / "raw", printed.getvalue()
