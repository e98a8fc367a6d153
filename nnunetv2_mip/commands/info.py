"""`nnUNetv2_mip_info`: versions, devices, engines, models, extras and environment variables."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_info",
        "Show what is installed: versions, devices, inference engines, models with their licences "
        "and SHA-256 sums, optional parts, environment variables. Add it to a report of a fault; "
        "it names folders of this machine.",
    )
    parser.add_argument(
        "-m", type=Path, metavar="FOLDER", help="model folder to list beside the bundled models"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands._installation import installation

    found = installation(args.m)
    print(json.dumps(found, indent=1) if args.json else describe(found))


def describe(found: dict) -> str:
    """Text of an `installation`, a block for each of its parts."""
    devices, cpu = found["devices"], found["cpu"]
    present = [name for name, there in cpu["features"].items() if there]
    machine = {
        "system": found["platform"],
        "-device": ", ".join(devices["usable"]),
        "graphics cards": ", ".join(devices["graphics_cards"]) or "none found",
        "CUDA of PyTorch": devices["torch_cuda"] or "none (CPU build)",
        "CPU": f"{cpu['cores']} cores; {', '.join(present) or 'no vector instructions found'}",
    }
    blocks = [
        _block("versions", found["versions"], "not installed"),
        _block("machine", machine),
        _block("inference engines", found["engines"], "not installed"),
    ]
    for model in found["models"]:
        licence = model["licence"] or "none stated in its folder"
        sums = {name: f"sha256 {digest}" for name, digest in model["sha256"].items()}
        blocks.append(_block(f"model {model['folder']}", {"licence": licence, **sums}))
    states = {
        name: f"lacks {', '.join(extra['missing'])}: {extra['install']}"
        if extra["missing"]
        else "installed"
        for name, extra in found["extras"].items()
    }
    blocks.append(_block("extras", states))
    trainers = found["trainers"]
    remedy = 'no; run  eval "$(nnUNetv2_mip_env)"'
    blocks.append(
        _block(
            "trainers",
            {
                "folder": trainers["folder"],
                "found by nnU-Net": "yes" if trainers["found_by_nnunet"] else remedy,
            },
        )
    )
    blocks.append(_block("environment", found["environment"], "not set"))
    return "\n\n".join(blocks)


def _block(title: str, lines: Mapping[str, str | None], missing: str = "") -> str:
    width = max(map(len, lines), default=0)
    return "\n".join([title, *(f"  {k.ljust(width)}  {v or missing}" for k, v in lines.items())])


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
