"""Measurements of the service: speed and agreement with stock nnU-Net, load, memory, fuzz.

python benchmarks/service/serving.py speed --data DMIAI --splits splits_final.json  # against stock
python benchmarks/service/serving.py load --data DMIAI  # 1, 4, 32 callers
python benchmarks/service/serving.py memory --data DMIAI --requests 2000
python benchmarks/service/serving.py fuzz --requests 5000

`--data` has patients/{imgs,labels}. All but `speed` start `nnUNetv2_mip_serve` on 127.0.0.1 and
stop it again (`--serve_options`, last, are passed on). Results are printed as JSON.
"""

import argparse
import base64
import io
import itertools
import json
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from nnunetv2_mip.dmiai.rehearsal import check_reply, find_cases

LARGEST_ROWS = 991


@contextmanager
def service(options: list[str]):
    """The command in a process of its own; gives its address and its process id."""
    code = "from nnunetv2_mip.commands.serve import main; main()"
    command = [sys.executable, "-c", code, "--host", "127.0.0.1", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            found = re.search(r"listening on (\S+)", line)
            if found:
                break
        else:
            raise SystemExit("the service did not start")
        with ThreadPoolExecutor(1) as reader:
            # Read on, so that a full pipe never stops it; keep what tells of defects.
            defects = reader.submit(lambda: [li for li in process.stderr if "defect" in li])
            try:
                yield found.group(1), process.pid
            finally:
                process.terminate()
                process.wait(timeout=60)
                lines = defects.result()
                if lines:
                    print(f"{len(lines)} defects were logged, first: {lines[0]}", file=sys.stderr)
    finally:
        if process.poll() is None:
            process.kill()


def resident_mb(pid: int) -> float:
    """Memory of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024


def percentiles(seconds: list[float]) -> dict:
    values = np.array(seconds)
    p50, p95 = np.percentile(values, (50, 95))
    found = {"best": values.min(), "p50": p50, "p95": p95, "max": values.max()}
    return {name: round(float(value), 3) for name, value in found.items()}


def largest(data: Path) -> np.ndarray:
    """Levels (991, 400) of the tallest patient, its last row repeated up to the largest height."""
    from nnunetv2_mip.io.png import decode_png

    pictures = find_cases(data)
    tallest = max(pictures, key=lambda picture: Image.open(picture.image).height)
    levels = decode_png(tallest.image)
    return np.pad(levels, ((0, max(0, LARGEST_ROWS - len(levels))), (0, 0)), mode="edge")


def speed(args: argparse.Namespace) -> dict:
    """Ours against `nnUNetPredictor.predict_single_npy_array`, in turn, in one process."""
    import torch

    from nnunetv2_mip.evaluation.bootstrap import interval_over_groups
    from nnunetv2_mip.inference.impulse_noise import without_impulses
    from nnunetv2_mip.inference.postprocessing import mask_of_view
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.png import decode_png
    from nnunetv2_mip.io.png_masks import decode_mask_png
    from nnunetv2_mip.nnunet.loading import quiet
    from nnunetv2_mip.nnunet.model_folder import bundled_model

    torch.set_num_threads(args.threads)
    predictor = MIPPredictor.from_model_folder(args.model or bundled_model(), device="cpu")
    config, nnunet = predictor.config, predictor._nnunet
    nnunet.use_mirroring = config.tta

    def stock(levels: np.ndarray) -> np.ndarray:
        if config.prefilter == "impulse":
            levels = without_impulses(levels)
        with quiet():
            _, probabilities = nnunet.predict_single_npy_array(
                levels[None, None].astype(np.float32),
                {"spacing": [1000.0, 2.0, 2.0]},
                None,
                None,
                True,
            )
        return mask_of_view(probabilities[1, 0], config)

    def ours(levels: np.ndarray) -> np.ndarray:
        return predictor.predict_image(levels)[0]

    tall = largest(args.data)
    for way in (stock, ours):
        way(tall)
    times = {"stock": [], "ours": []}
    # Of the processor: what other work on the machine disturbs less.
    cpu = {"stock": [], "ours": []}
    for _ in tqdm(range(args.repeats), desc="largest", disable=None):
        for name, way in (("stock", stock), ("ours", ours)):
            start, start_cpu = time.perf_counter(), time.process_time()
            way(tall)
            times[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    ratios = [a / b for a, b in zip(times["stock"], times["ours"])]
    unseen = json.loads(args.splits.read_text())[0]["val"]
    pictures = [p for p in find_cases(args.data) if p.name in unseen and p.label]
    rows, all_times = [], {"stock": 0.0, "ours": 0.0}
    for picture in tqdm(pictures, desc="unseen", disable=None):
        levels = decode_png(picture.image)
        truth = decode_mask_png(picture.label) != 0
        masks = {}
        for name, way in (("stock", stock), ("ours", ours)):
            start = time.perf_counter()
            masks[name] = way(levels) != 0
            all_times[name] += time.perf_counter() - start
        score = {name: dice(mask, truth) for name, mask in masks.items()}
        rows.append((score["stock"], score["ours"], dice(masks["stock"], masks["ours"])))
    table = np.array(rows)
    differences = table[:, 1] - table[:, 0]
    low, high = interval_over_groups([[value] for value in differences])
    return {
        "engine": predictor.engine,
        "tiling": config.tiling,
        "threads": args.threads,
        "largest_px": list(tall.shape),
        "stock_s": percentiles(times["stock"]),
        "ours_s": percentiles(times["ours"]),
        "stock_cpu_s": percentiles(cpu["stock"]),
        "ours_cpu_s": percentiles(cpu["ours"]),
        "ratio_cpu_median": round(
            statistics.median(a / b for a, b in zip(cpu["stock"], cpu["ours"])), 2
        ),
        "ratio_median_of_pairs": round(statistics.median(ratios), 2),
        "ratio_of_best": round(min(times["stock"]) / min(times["ours"]), 2),
        "unseen": len(rows),
        "unseen_ratio": round(all_times["stock"] / all_times["ours"], 2),
        "dice_stock": round(float(table[:, 0].mean()), 4),
        "dice_ours": round(float(table[:, 1].mean()), 4),
        "dice_difference": round(float(differences.mean()), 5),
        "dice_difference_95": [round(low, 5), round(high, 5)],
        "agreement_dice_mean": round(float(table[:, 2].mean()), 4),
        "agreement_dice_lowest": round(float(table[:, 2].min()), 4),
        "identical_masks": int((table[:, 2] == 1).sum()),
    }


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def body(content: bytes) -> bytes:
    return json.dumps({"img": base64.b64encode(content).decode()}).encode()


def load(args: argparse.Namespace) -> dict:
    """Callers that send one image after another, some at a time."""
    images = [picture.image.read_bytes() for picture in find_cases(args.data)]
    found = {}
    with service(args.serve_options) as (url, _):
        for callers in (1, 4, 32):
            found[str(callers)] = _load(url, images, callers, args.requests)
    return found


def _load(url: str, images: list[bytes], callers: int, requests: int) -> dict:
    seconds, outcomes = [], Counter()
    bodies = [(image, body(image)) for image in images]

    def call(k: int) -> None:
        image, content = bodies[k % len(bodies)]
        start = time.perf_counter()
        try:
            answer = clients[k % callers].post(f"{url}/predict", content=content)
        except httpx.TimeoutException:
            outcomes["timeout"] += 1
            return
        took = time.perf_counter() - start
        if answer.status_code == 503:
            outcomes["503"] += 1
            return
        failure = check_reply(answer, image)[1]
        outcomes["ok" if failure is None else failure] += 1
        outcomes["degraded"] += "x-mip-degraded" in answer.headers
        seconds.append(took)

    clients = [httpx.Client(timeout=30, trust_env=False) for _ in range(callers)]
    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(tqdm(pool.map(call, range(requests)), total=requests, disable=None))
    wall = time.perf_counter() - start
    return {
        **percentiles(seconds),
        "over_10_s": sum(took > 10 for took in seconds),
        "answers_per_s": round(outcomes["ok"] / wall, 2),
        **outcomes,
    }


def memory(args: argparse.Namespace) -> dict:
    """Resident memory of the service over many requests."""
    images = itertools.cycle([body(p.image.read_bytes()) for p in find_cases(args.data)])
    with service(args.serve_options) as (url, pid), ThreadPoolExecutor(2) as pool:
        client = httpx.Client(timeout=60, trust_env=False)
        statuses, trace = Counter(), []
        for done in tqdm(range(0, args.requests, 20), disable=None):
            batch = list(itertools.islice(images, 20))
            for answer in pool.map(
                lambda content: client.post(f"{url}/predict", content=content), batch
            ):
                statuses[answer.status_code] += 1
            if done % 200 == 180:
                trace.append(round(resident_mb(pid), 1))
    return {"requests": args.requests, "statuses": statuses, "mb_every_200": trace}


def fuzz(args: argparse.Namespace) -> dict:
    """Malformed bodies, images and connections: statuses, slowest answer, memory."""
    rng = random.Random(args.seed)
    seed_image = _seed_image()
    statuses, reasons, slowest, broken = Counter(), Counter(), 0.0, Counter()
    trace = []
    with service(args.serve_options) as (url, pid):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        client = httpx.Client(timeout=30, trust_env=False)
        for k in tqdm(range(args.requests), disable=None):
            kind, content = _malformed(rng, seed_image)
            start = time.perf_counter()
            if kind == "connection":
                broken[_raw(address, content)] += 1
            else:
                answer = client.post(f"{url}/predict", content=content)
                statuses[answer.status_code] += 1
                reasons[f"{kind} {answer.status_code}"] += 1
                if answer.status_code == 200:
                    Image.open(io.BytesIO(base64.b64decode(answer.json()["img"]))).load()
                elif answer.status_code >= 500 and answer.status_code != 503:
                    print(kind, content[:200], file=sys.stderr)
            slowest = max(slowest, time.perf_counter() - start)
            if (k + 1) % max(1, args.requests // 10) == 0:
                trace.append(round(resident_mb(pid), 1))
        alive = httpx.get(f"{url}/health").json()["status"]
    return {
        "requests": args.requests,
        "statuses": statuses,
        "by_kind": dict(sorted(reasons.items())),
        "broken_connections": broken,
        "slowest_s": round(slowest, 2),
        "mb_every_tenth": trace,
        "health_after": alive,
    }


def _seed_image() -> bytes:
    grey = np.full((60, 40), 255, np.uint8)
    grey[10:50, 8:32] = np.arange(24, dtype=np.uint8) * 8
    stream = io.BytesIO()
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(stream, "PNG")
    return stream.getvalue()


def _malformed(rng: random.Random, image: bytes) -> tuple[str, bytes]:
    kind = rng.choice(
        ("bytes", "json", "text", "base64", "flipped", "chunks", "header", "cut", "connection")
    )
    if kind == "bytes":
        return kind, rng.randbytes(rng.randrange(2000))
    if kind == "json":
        value = rng.choice(
            [
                None,
                1,
                1e308,
                [],
                {},
                True,
                "",
                [["a"]],
                {"img": "a"},
                "\x00",
                "\ud800",
                "😀",
                [0] * 999,
            ]
        )
        text = json.dumps(rng.choice([value, {"img": value}, {"image": value}, [value]]))
        if rng.random() < 0.5:
            text = text[: rng.randrange(len(text) + 1)]
        return kind, rng.choice(["", "[" * rng.randrange(3000), "\ufeff"]).encode() + text.encode()
    if kind == "text":
        letters = rng.choice(["A", "AB=", "data:,", "\n \t", "-_+/", "é", "%2B"])
        text = "".join(rng.choice(letters) for _ in range(rng.randrange(400)))
        return kind, json.dumps({"img": text}).encode()
    if kind == "base64":
        text = list(base64.b64encode(image).decode())
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.choice("=!*é \nA")
        return kind, json.dumps({"img": "".join(text)}).encode()
    content = bytearray(image)
    if kind == "flipped":
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(8, len(content))] = rng.randrange(256)
    elif kind == "cut":
        content = content[: rng.randrange(len(content))]
    elif kind in ("chunks", "header", "connection"):
        content = bytearray(_chunks(rng, image, header=kind == "header"))
    return kind, body(bytes(content))


def _chunks(rng: random.Random, image: bytes, header: bool) -> bytes:
    """The image with its chunks changed, checksums right again: past the first line of defence."""
    out, at = bytearray(image[:8]), 8
    parts = []
    while at < len(image):
        size = struct.unpack(">I", image[at : at + 4])[0]
        parts.append((image[at + 4 : at + 8], image[at + 8 : at + 8 + size]))
        at += size + 12
    if header:
        fields = [rng.choice([0, 1, 7, 40, 60, 5000, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
        if rng.random() < 0.5:
            fields[rng.randrange(2)] = 40
        small = [rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]) for _ in range(5)]
        parts[0] = (b"IHDR", struct.pack(">IIBBBBB", *fields, *small))
    for _ in range(rng.randrange(3)):
        k = rng.randrange(len(parts))
        name = rng.choice(
            [
                b"tRNS",
                b"PLTE",
                b"gAMA",
                b"iCCP",
                b"zTXt",
                b"iTXt",
                b"acTL",
                b"fcTL",
                b"eXIf",
                b"pHYs",
            ]
        )
        data = rng.choice(
            [b"", rng.randbytes(30), b"a\0\0" + zlib.compress(b"x" * 10**6), b"\0" * 8]
        )
        parts.insert(k, (name, data)) if rng.random() < 0.6 else parts.pop(k)
        if not parts:
            break
    for name, data in parts:
        checked = name + data
        out += struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
    return bytes(out)


def _raw(address: tuple, content: bytes) -> str:
    """A connection that lies about its length or breaks off; gives what came of it."""
    lie = random.Random(len(content)).choice(
        [b"9" * 30, b"-1", b"abc", b"5", str(len(content)).encode()]
    )
    with socket.create_connection(address, timeout=10) as caller:
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: " + lie + b"\r\n\r\n"
        try:
            caller.sendall(head + content[: len(content) // 2])
            caller.shutdown(socket.SHUT_WR)
            answer = caller.recv(200)
        except OSError as error:
            return type(error).__name__
    return answer.split(b"\r\n")[0].decode("latin-1") or "closed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = {"speed": speed, "load": load, "memory": memory, "fuzz": fuzz}
    parser.add_argument("what", choices=ways)
    parser.add_argument("--data", type=Path, help="patients/{imgs,labels}")
    parser.add_argument("--splits", type=Path, help="speed: splits_final.json; fold 0 is judged")
    parser.add_argument("--model", help="speed: model folder (the one that comes along)")
    parser.add_argument("--repeats", type=int, default=15, help="speed: of the largest image")
    parser.add_argument("--threads", type=int, default=2, help="speed: of the CPU")
    parser.add_argument("--requests", type=int, default=100, help="load (a step), memory, fuzz")
    parser.add_argument("--seed", type=int, default=0, help="fuzz")
    parser.add_argument("--serve_options", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    if args.what != "fuzz" and args.data is None:
        parser.error("--data is needed")
    if args.what == "speed" and args.splits is None:
        parser.error("--splits is needed")
    print(json.dumps(ways[args.what](args), indent=1))


if __name__ == "__main__":
    main()
