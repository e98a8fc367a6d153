"""Functions that several test modules share: commands run in this process, images written."""

import subprocess
from itertools import permutations, product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

import nnunetv2_mip

ROOT = Path(nnunetv2_mip.__file__).parent.parent
# Letters of the axes of a volume in all 48 orders and directions.
AXIS_CODES = [
    "".join(pair[way] for pair, way in zip(pairs, ways))
    for pairs in permutations(("RL", "AP", "IS"))
    for ways in product((0, 1), repeat=3)
]


def run(command: ModuleType, *argv: object) -> int:
    """Exit code of a command of `nnunetv2_mip.commands`, run in this process."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(part) for part in argv])
    return ended.value.code


def assert_refused(capsys, named: Path | str, command: ModuleType, *argv: object) -> str:
    """The one line of a command that ends with exit code 2; it must hold `named`."""
    capsys.readouterr()
    assert run(command, *argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith(f"{command.build_parser().prog}: error: ")
    assert "Traceback" not in err
    assert str(named) in err
    return err


def write_image(
    array: np.ndarray,
    path: Path,
    spacing: tuple[float, ...] = (4.0, 4.0, 5.0),
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
    orientation: str = "LPS",
) -> Path:
    """Path of an array (z, y, x) written as an image; spacing and origin in mm, (x, y, z).

    Arrays of other than three dimensions get ITK's default spacing and origin.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    if image.GetDimension() == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image = sitk.DICOMOrient(image, orientation)
    sitk.WriteImage(image, str(path))
    return path


def save_png(array: np.ndarray, path: Path) -> Path:
    """Path of pixels written as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def truncate(path: Path, share: float = 0.5) -> None:
    """Cut a file to the first part of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def paths_below(folder: Path) -> set[str]:
    """Files and folders below a folder, hidden ones too, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def source_files() -> list[str]:
    """Files of the checkout, relative to it, without those that git ignores."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
