"""`nnUNetv2_mip_serve`: HTTP interface of DM i AI and a web page, over one model."""

import argparse
import os
from collections.abc import Sequence
from importlib import import_module

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_checkpoint_option, add_device_option
from nnunetv2_mip.errors import MipError

DEFAULT_PORT = 9051


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_serve",
        "Serve a model over HTTP: POST /predict and /tumor/predict as the DM-i-AI and Norwegian AI "
        "championships call them, /page for people, /health, /metrics. For research use only.",
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="FOLDER",
        help="model folder (without it the one that comes along); /health and reports call it by "
        "the folder's name, or by the environment's MODEL_NAME",
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average (all there are)")
    add_checkpoint_option(parser)
    parser.add_argument(
        "--host",
        default=os.environ.get("HOST_IP") or "127.0.0.1",
        help="address to listen on (or the environment's HOST_IP); 127.0.0.1 serves this machine "
        "alone, 0.0.0.0 all who reach it",
    )
    parser.add_argument(
        "--port",
        default=os.environ.get("CONTAINER_PORT") or str(DEFAULT_PORT),
        help="port to listen on (or the environment's CONTAINER_PORT)",
    )
    add_device_option(parser)
    parser.add_argument(
        "--never_empty",
        action="store_true",
        help="mark the most likely region where nothing reaches the threshold (for competitions "
        "whose images all have tumours)",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=8.0,
        metavar="SECONDS",
        help="answer within; drops mirrored copies, then networks, rather than be late",
    )
    parser.add_argument(
        "--queue", type=int, default=32, metavar="N", help="requests that may wait; more get 503"
    )
    parser.add_argument(
        "--polarity",
        choices=("dark", "bright", "auto"),
        default="dark",
        help="what uptake is in PNGs; auto looks at the border of each image",
    )
    parser.add_argument("--no_page", action="store_true", help="the interface alone")
    return parser


def check_arguments(args: argparse.Namespace) -> int:
    """Port to bind.

    Raises:
        MipError: port, deadline or queue is out of range.
    """
    try:
        port = int(args.port)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise MipError(f"--port {args.port}: a port lies between 0 and 65535")
    if not 0.1 <= args.deadline <= 600:
        raise MipError(f"--deadline {args.deadline}: give seconds between 0.1 and 600")
    if not 1 <= args.queue <= 10_000:
        raise MipError(f"--queue {args.queue}: give a number between 1 and 10000")
    return port


def require_extra(*names: str) -> None:
    """Check that the packages of the extra `serve` are installed.

    Args:
        names: modules to import.

    Raises:
        MipError: a module is missing.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise MipError(
                f'this command needs {error.name}: pip install "nnunetv2-mip[serve]"'
            ) from None


def run(args: argparse.Namespace) -> None:
    port = check_arguments(args)
    require_extra("fastapi", "prometheus_client", "uvicorn")
    from nnunetv2_mip.service.server import serve

    serve(args, port)


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
