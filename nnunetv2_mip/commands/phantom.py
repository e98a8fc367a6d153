"""Command `nnUNetv2_mip_phantom`: a cohort of simulated PET/CT studies."""

import argparse
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_processes_option
from nnunetv2_mip.wording import counted


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_phantom",
        "Write simulated whole-body FDG PET/CT studies with known lesions, in the autoPET layout "
        "(PETCT_*/<study>/SUV, CTres, SEG.nii.gz) or as inputs of the challenge container "
        "(<case>/input, with the truth <case>/SEG.mha beside it). The same seed gives the same "
        "subjects, whatever their number.",
    )
    parser.add_argument("-o", dest="output", required=True, help="new or empty folder")
    parser.add_argument("-n", dest="number", type=int, required=True, help="number of studies")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cohort")
    parser.add_argument("--spacing", type=float, default=4.0, help="voxel size in mm, 1.5 to 12")
    parser.add_argument(
        "--organs",
        nargs="+",
        metavar="FOLDER",
        help="build the bodies around the real organs of the label maps in this folder (or of "
        "these files) instead of the phantom's own; names.json beside them says which number is "
        'which organ ({"1": "spleen", ...}), else they are taken for autoPET III organ maps',
    )
    parser.add_argument(
        "--variety",
        choices=("standard", "wide"),
        default="standard",
        help="wide: also large masses of low contrast, healthy uptake that resembles disease "
        "(ureters, bowel, muscles, brown fat), cut fields of view, other resolution and noise",
    )
    add_processes_option(parser)
    parser.add_argument(
        "--layout", choices=("autopet", "grand-challenge"), default="autopet", help="of the folder"
    )
    parser.add_argument(
        "--clicks_per_study",
        "--clicks",
        type=int,
        metavar="N",
        help="grand-challenge: also lesion-clicks.json with N tumour and N background clicks",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from tqdm import tqdm

    from nnunetv2_mip.phantom.cohort import write_cohort
    from nnunetv2_mip.phantom.label_maps import find_organ_maps

    organs = find_organ_maps(args.organs) if args.organs else None
    folder = write_cohort(
        args.output,
        args.number,
        args.seed,
        args.spacing,
        partial(tqdm, desc="phantoms", unit="study", disable=None),
        args.np,
        organs,
        args.layout,
        args.clicks_per_study,
        args.variety,
    )
    print(f"{counted(args.number, 'study')} of seed {args.seed} in {folder}")
    if organs:
        bodies = f"bodies built around the organs of {counted(len(organs.files), 'label map')}"
        taken = "; no file names their numbers, which fit autoPET III's" if organs.assumed else ""
        print(bodies + taken)


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
