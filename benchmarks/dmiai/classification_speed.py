"""Processor time of the bundled classifier against the segmentation of the same images.

    OMP_NUM_THREADS=1 python benchmarks/dmiai/classification_speed.py --data DMIAI [-n 10]

DMIAI has patients/imgs/*.png. Each image is segmented and classified in turn, in this process.
NNUNETV2_MIP_ENGINE=torch runs both without OpenVINO.
"""

import argparse
import resource
from collections.abc import Callable
from pathlib import Path


def processor_seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes, user and system."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DMIAI")
    parser.add_argument("-n", type=int, default=10, help="images")
    args = parser.parse_args()
    from nnunetv2_mip.classification.classifier import load_classifier
    from nnunetv2_mip.conventions import PNG_PIXEL_MM
    from nnunetv2_mip.io.png import read_png

    paths = sorted((args.data / "patients" / "imgs").glob("*.png"))[: args.n]
    classifier = load_classifier(device="cpu")
    print("| image | segmentation, s | classification, s |", "|---|---|---|", sep="\n")
    for path in paths:
        levels = read_png(path).levels
        # The first image of each pays for the compilation of its network.
        mask = processor_seconds(lambda: classifier.predictor.predict_image(levels))  # noqa: B023
        pixel = (PNG_PIXEL_MM, PNG_PIXEL_MM)
        score = processor_seconds(lambda: classifier.score(levels[None], pixel))  # noqa: B023
        print(f"| {path.stem} | {mask:.2f} | {score:.2f} |", flush=True)


if __name__ == "__main__":
    main()
