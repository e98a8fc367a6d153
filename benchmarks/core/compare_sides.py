"""One of two installations of the package: its commands, its environment, its service."""

import base64
import json
import os
import re
import shlex
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Side:
    """One of the two installations.

    Attributes:
        name: "before" or "after".
        bin: folder of its commands.
        root: where its package lies, and `version` what it calls itself.
    """

    name: str
    bin: Path
    root: str
    version: str

    @classmethod
    def of(cls, name: str, folder: Path) -> "Side":
        code = "import nnunetv2_mip as p; print(p.__file__); print(p.__version__)"
        # Not in the working folder: a package that lies there would be taken.
        found = subprocess.check_output([folder / "python", "-c", code], text=True, cwd="/")
        file, version = found.splitlines()
        return cls(name, folder, str(Path(file).parent.parent), version)

    def command(self, words: str) -> list[str]:
        first, *rest = shlex.split(words)
        name = first if first.startswith("nnUNetv2_") else f"nnUNetv2_mip_{first}"
        return [str(self.bin / name), *rest]

    def environment(self, work: Path, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_", "PYTHON"))}
        folders = {f"nnUNet_{part}": part for part in ("raw", "preprocessed", "results")}
        return {
            **kept,
            **{name: str(work / "nnunet" / part) for name, part in folders.items()},
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "COLUMNS": "100",
            **more,
        }


@contextmanager
def service(side: Side, environment: dict, log: Path):
    """The running service of an installation; gives its address."""
    with log.open("w+") as errors:
        command = side.command("serve --host 127.0.0.1 --port 0 -device cpu --deadline 600")
        process = subprocess.Popen(command, env=environment, stderr=errors, cwd=log.parent)
        try:
            for _ in range(3000):
                found = re.search(r"listening on (\S+)", log.read_text())
                if found or process.poll() is not None:
                    break
                time.sleep(0.1)
            if not found:
                raise RuntimeError(f"the service did not start: {log.read_text()[-300:]}")
            yield found.group(1)
        finally:
            process.terminate()
            process.wait(timeout=60)


def body_of(image: Path) -> bytes:
    """What a caller sends for a PNG."""
    return json.dumps({"img": base64.b64encode(image.read_bytes()).decode()}).encode()
