"""Options of the commands that project: angles, channels, window, pixel size, kind of label."""

import argparse

from nnunetv2_mip.conventions import DEFAULT_ARC_DEG, DEFAULT_VIEWS, DEFAULT_WINDOW_SUV
from nnunetv2_mip.views.settings import CHANNELS, LABEL_MODES, OcclusionSettings, ViewSettings


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Angles, channels, scale, pixel size and kind of label."""
    group = parser.add_argument_group("views")
    angles = group.add_mutually_exclusive_group()
    angles.add_argument("--views", type=int, default=DEFAULT_VIEWS, metavar="N", help="angles")
    angles.add_argument(
        "--angles", type=float, nargs="+", metavar="DEG", help="the angles themselves"
    )
    group.add_argument(
        "--arc", type=float, default=DEFAULT_ARC_DEG, metavar="DEG", help="angles cover this arc"
    )
    group.add_argument("--start", type=float, default=0.0, metavar="DEG", help="first angle")
    group.add_argument(
        "--channels",
        default="suv",
        metavar="LIST",
        help=f"what the views hold, of {','.join(CHANNELS)} (ct and depth: where the SUV ray wins)",
    )
    group.add_argument(
        "--window", type=float, default=DEFAULT_WINDOW_SUV, metavar="SUV", help="brightest SUV"
    )
    group.add_argument(
        "--pixel_mm",
        "--pixel",
        type=float,
        metavar="MM",
        help="resample views to square pixels (2: as the PNGs)",
    )
    defaults = OcclusionSettings()
    labels = parser.add_argument_group("labels (see docs/explanation/views.md)")
    labels.add_argument(
        "--labels",
        choices=LABEL_MODES,
        default="projected",
        help="projected: every pixel whose ray meets a lesion; visible: what can be seen of it; "
        "ignore: as visible, and the rest gets nnU-Net's ignore label",
    )
    labels.add_argument(
        "--visible_share",
        type=float,
        default=defaults.visible_share,
        metavar="SHARE",
        help="a lesion with this share of visible pixels keeps its whole projection",
    )
    labels.add_argument(
        "--fragment_mm",
        type=float,
        default=defaults.fragment_mm,
        metavar="MM",
        help="least size of a visible fragment of any other (pixels times pixel size)",
    )
    labels.add_argument(
        "--gradient",
        type=float,
        default=defaults.gradient,
        metavar="G",
        help="least mean Sobel gradient of a fragment (MIP from 0 to 1)",
    )


def view_settings(args: argparse.Namespace) -> ViewSettings:
    """The settings of these options.

    Raises:
        MipError: a value out of range.
    """
    return ViewSettings(
        views=args.views,
        arc_deg=args.arc,
        start_deg=args.start,
        window_suv=args.window,
        angles_deg=None if args.angles is None else tuple(args.angles),
        pixel_mm=args.pixel_mm,
        channels=tuple(name.strip() for name in args.channels.split(",")),
        labels=args.labels,
        occlusion=OcclusionSettings(args.visible_share, args.fragment_mm, args.gradient),
    )
