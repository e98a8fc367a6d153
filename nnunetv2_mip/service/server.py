"""Server process of the service: bind the port, load and warm up the model, serve, stop."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import bundled_model
from nnunetv2_mip.service.app import create_app, warm_up
from nnunetv2_mip.service.logs import log, set_up_logging
from nnunetv2_mip.service.settings import Settings

# Connections that the system accepts for the process before the process takes them.
BACKLOG = 512


def serve(args: argparse.Namespace, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    The port is bound first, so that a port in use is reported at once. Connections are accepted
    when the model is loaded and warm.

    Args:
        args: options of `nnUNetv2_mip_serve`.
        port: port to bind; 0 takes a free one.

    Raises:
        MipError: the address cannot be bound, or the model cannot be loaded.
    """
    set_up_logging(verbose=args.debug)
    with _bind(args.host, port) as listener:
        folder = Path(args.model) if args.model else bundled_model()
        predictor = MIPPredictor.from_model_folder(folder, args.f, args.chk, args.device)
        # In a container every model may lie in the same folder.
        name = Path(os.environ.get("MODEL_NAME") or folder).name
        app = create_app(predictor, _settings(args), name)
        warm_s = warm_up(predictor)
        _announce(predictor, name, warm_s, *listener.getsockname()[:2])
        listener.listen(BACKLOG)
        # uvicorn ends gracefully and then raises SIGTERM again, which would end with an error.
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvicorn.Server(_uvicorn_config(app, args.deadline)).run(sockets=[listener])
    log("stopped")


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        deadline_s=args.deadline,
        queue=args.queue,
        never_empty=args.never_empty,
        polarity=args.polarity,
        page=not args.no_page,
    )


def _announce(predictor: MIPPredictor, name: str, warm_s: float, host: str, port: int) -> None:
    log(
        "ready",
        model=name,
        networks=predictor.folds,
        engine=predictor.engine,
        warm_s=round(warm_s, 2),
        host=host,
        port=port,
        pid=os.getpid(),
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}  (Ctrl-C stops)", file=sys.stderr, flush=True)


def _uvicorn_config(app: FastAPI, deadline_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(deadline_s) + 1,
        # Malformed HTTP is answered by the parser; h11 is the stricter one.
        http="h11",
        ws="none",
        backlog=BACKLOG,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Socket bound to an address, not yet listening."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise MipError(
            f"{host}:{port}: cannot be listened on ({error.strerror or error}); choose another "
            "--host or --port"
        ) from None
    return listener
