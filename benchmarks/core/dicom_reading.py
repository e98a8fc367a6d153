"""Time to read a DICOM PET series, by turns with two installations of the package.

    python benchmarks/core/dicom_reading.py --before BIN --after BIN -o OUT [--slices 400]

BIN is the folder of the commands of an environment. The command that is timed is
`nnUNetv2_mip_project -i SERIES --views 1` on a simulated series of one file a slice, 200 x 200
pixels. OUT gets the series, and report.json with the seconds of every run.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from compare_sides import Side
from compare_speed import by_turns, measure_command

PIXELS, SLICE_MM, PIXEL_MM = 200, 3.0, 3.0


def write_series(folder: Path, slices: int) -> None:
    """Write a PET series in SUV (Units GML), noise on a body of SUV 1."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
    from pydicom.uid import generate_uid as uid

    folder.mkdir(parents=True)
    rng, (series, study, frame) = np.random.default_rng(0), (uid() for _ in range(3))
    for index in range(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        meta.MediaStorageSOPInstanceUID = uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta[0x00020002].value, meta[0x00020003].value
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.FrameOfReferenceUID, data.Modality, data.Units = frame, "PT", "GML"
        data.ImageType = ["ORIGINAL", "PRIMARY"]
        data.CorrectedImage, data.InstanceNumber = ["DECY", "ATTN"], index + 1
        data.ImagePositionPatient = [0.0, 0.0, index * SLICE_MM]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [PIXEL_MM] * 2, SLICE_MM
        data.Rows = data.Columns = PIXELS
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = "0.001", "0"
        data.PixelData = rng.gamma(4, 250, (PIXELS, PIXELS)).astype(np.int16).tobytes()
        data.save_as(folder / f"{index:04d}.dcm")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("before", "after"):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="BIN")
    parser.add_argument("-o", required=True, type=Path, metavar="OUT")
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    sides = tuple(Side.of(name, getattr(args, name).absolute()) for name in ("before", "after"))
    out, series = args.o.absolute(), args.o.absolute() / "series"
    shutil.rmtree(series, ignore_errors=True)
    write_series(series, args.slices)

    def measure(side: Side) -> dict[str, float]:
        shutil.rmtree(out / "views", ignore_errors=True)
        words = side.command(f"project -i {series} -o {out / 'views'} --views 1")
        return measure_command(words, side.environment(out), out)

    row = by_turns(sides, args.repeats, measure)
    (out / "report.json").write_text(json.dumps(row, indent=1) + "\n")
    for what in ("seconds", "cpu_seconds", "peak_mb"):
        one = row[what]
        print(f"{what}: {one['before']:.3g} before, {one['after']:.3g} after, {one['ratio']:.3f}")


if __name__ == "__main__":
    main()
