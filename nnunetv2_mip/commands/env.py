"""`nnUNetv2_mip_env`: shell lines that set nnU-Net's folders and the folder of our trainers."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import check_output
from nnunetv2_mip.nnunet.paths import VARIABLES, trainers_folder

TRAINERS = "nnUNet_extTrainer"
# File by which a trainers' folder of this package is recognised.
OWN_TRAINER = "nnUNetTrainerMIP.py"


def _posix(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{quoted}'"


def _powershell(name: str, value: str) -> str:
    # PowerShell takes the typographic quotes for apostrophes, too; doubled they are plain text.
    quoted = "".join(sign * 2 if sign in "'‘’‚‛" else sign for sign in value)
    return f"$env:{name} = '{quoted}'"


def _cmd(name: str, value: str) -> str:
    # In a batch file %% is a percent sign. A quotation mark cannot be part of a Windows path.
    return f'set "{name}={value.replace("%", "%%")}"'


SHELLS: dict[str, Callable[[str, str], str]] = {
    "bash": _posix,
    "zsh": _posix,
    "fish": _fish,
    "powershell": _powershell,
    "cmd": _cmd,
}


def variables(base: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Values for nnU-Net's environment variables.

    Args:
        base: folder below which nnU-Net's folders lie (named like their variables), for those
            that are not set yet.
        environment: the variables that are set; an empty value counts as unset.

    Returns:
        Variable → value. Folders that are set stay. Our trainers' folder comes first among those of
        `nnUNet_extTrainer`, as nnU-Net takes the first class of a name; that of another
        installation of this package is dropped.
    """
    base = base.expanduser().resolve()
    values = {name: environment.get(name) or str(base / name) for name in VARIABLES}
    ours = str(trainers_folder().resolve())
    others = [part for part in environment.get(TRAINERS, "").split(os.pathsep) if part.strip()]
    others = [part for part in others if not (Path(part) / OWN_TRAINER).is_file()]
    values[TRAINERS] = os.pathsep.join([ours, *others])
    return values


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_env",
        "Print the lines that set nnU-Net's variables in a shell.",
        'bash: eval "$(nnUNetv2_mip_env)"; '
        "fish: nnUNetv2_mip_env --shell fish | source; "
        "PowerShell: nnUNetv2_mip_env --shell powershell | Out-String | Invoke-Expression; "
        "cmd: nnUNetv2_mip_env --shell cmd > env.bat & call env.bat",
    )
    parser.add_argument(
        "--base",
        type=Path,
        default=Path("nnunet_data"),
        help="folder for raw data, preprocessed data and results, where no variable is set yet",
    )
    parser.add_argument(
        "--shell",
        choices=sorted(SHELLS),
        default="powershell" if os.name == "nt" else "bash",
        help="whose language to write",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    check_output(args.base / VARIABLES[0])
    line = SHELLS[args.shell]
    values = variables(args.base, os.environ)
    for name, value in values.items():
        if "\n" in value or "\r" in value or (args.shell == "cmd" and '"' in value):
            raise MipError(f"{name}: {value!r} cannot be quoted for {args.shell}: rename it")
    for name, value in values.items():
        print(line(name, value))


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
