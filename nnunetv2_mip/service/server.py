"""Starting and stopping: load, warm, bind, serve."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import bundled_model
from nnunetv2_mip.service.app import create_app, warm_up
from nnunetv2_mip.service.logs import log, set_up
from nnunetv2_mip.service.settings import Settings


def serve(args: argparse.Namespace, port: int) -> None:
    """What the command does, until it is told to stop.

    The port is taken first, so that a taken one is known at once; connections are accepted when
    the model is loaded and warm.

    Raises:
        MipError: the address cannot be bound, or the model cannot be loaded.
    """
    set_up(verbose=args.debug)
    listener = _bind(args.host, port)
    folder = Path(args.model) if args.model else bundled_model()
    predictor = MIPPredictor.from_model_folder(folder, args.f, args.chk, args.device)
    settings = Settings(
        deadline_s=args.deadline,
        queue=args.queue,
        never_empty=args.never_empty,
        polarity=args.polarity,
        page=not args.no_page,
    )
    # A container keeps every model in the same folder.
    name = Path(os.environ.get("MODEL_NAME") or folder).name
    app = create_app(predictor, settings, name)
    warm_s = warm_up(predictor)
    host, port = listener.getsockname()[:2]
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
    print(f"listening on http://{_shown(host)}:{port}  (Ctrl-C stops)", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(args.deadline) + 1,
        # Malformed HTTP is answered by the parser; h11 is the stricter one.
        http="h11",
        ws="none",
        backlog=512,
    )
    listener.listen(512)
    # uvicorn ends gracefully, and then raises the signal again: told to end, it ended well.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
    log("stopped")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise MipError(
            f"{host}:{port}: cannot be listened on ({error.strerror or error}); choose another "
            "--host or --port"
        ) from None
    return listener
