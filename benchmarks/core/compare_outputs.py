"""Files that two installations write for the same commands on the same inputs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from compare_files import ALLOWED, DIFFERENT, Allowed, Verdict, compare_files, names_of
from compare_sides import Side, body_of, service
from compare_steps import DICOM, MODEL, STS, TINY_PRESET, TINY_TRAINER, steps

PATIENTS, CONTROLS = 10, 6
SERVED = "/ /api /health /openapi.json /page/ /page/page.js /page/page.css /page/turntable.js"
# Of the moment, and of the times at which static files were written.
DROPPED_HEADERS = ("date", "last-modified", "etag")
REFUSED = (b"{}", b'{"img": "AAAA"}')
TIMES = ("seconds", "cpu_seconds", "peak_mb", "epoch_seconds", "epoch_cpu_seconds")


def allowed_differences(sides: tuple[Side, Side]) -> list[Allowed]:
    """All that may differ, and where; a rule counts as used only where it was needed."""
    versions = "|".join(re.escape(version) for version in {side.version for side in sides})
    roots = "|".join(re.escape(side.root) for side in sides)
    called = rf'(nnunetv2-mip |"version": ?")(?:{versions})\b'
    return [
        Allowed("version of the package", "*", called, r"\1VERSION"),
        Allowed("folder of the installation", "logs/*", rf"(?:{roots})(?=[/\s:])", "ROOT"),
        Allowed("folder of other packages", "logs/*.err", r"\S*/site-packages/", ""),
        Allowed("progress bars", "logs/*.err", r"[^\r\n]*\d+%\|[^\r\n]*[\r\n]*", ""),
        Allowed("time of a line", "logs/*.out", r"(?m)^[\d-]{10} [\d:]{8}\.\d+", "TIME"),
        Allowed("time of a line", "*training_log_TIME.txt", r"[\d-]{10} [\d:]{8}\.\d+", "TIME"),
        Allowed("seconds of an epoch", "*/training_log_TIME.txt", r"(time: )[\d.]+ s", r"\1S s"),
        Allowed("seconds of an epoch", "logs/*.out", r"(Epoch time: )[\d.]+ s", r"\1S s"),
        Allowed("seconds of a run", "logs/*.out", r"(written after )[\d.]+ s", r"\1S s"),
        Allowed("addresses in memory", "*/debug.json", r"(?<= at )0x[0-9a-f]+", "ADDRESS"),
        Allowed("name of a log", "*/debug.json", r"training_log_[\d_]+\.txt", "LOG"),
        # nnU-Net lists the attributes of a trainer that are no torch modules; this one became one.
        Allowed("object of the weights' average", "*/debug.json", r' *"average": "[^"]*",\n', ""),
        Allowed("plot of the seconds of epochs", "*/progress.png"),
        Allowed("date", "reports/*.html", r"\d{4}-\d\d-\d\d(?=<)", "DATE"),
        Allowed("seconds, memory", "study/*.csv", columns=TIMES),
        Allowed("seconds, memory", "study/*.json", rf'("(?:{"|".join(TIMES)})": )[^,\n]+', r"\1N"),
        Allowed("seconds, memory", "study/tables.md", r"(?<=\| 0\.\d{4} \| )[\d.,| ]+", "N"),
        Allowed("seconds, memory", "logs/*_study.out", r"(?<=\| 0\.\d{4} \| )[\d.,| ]+", "N"),
        Allowed("seconds", "served/rehearsal.json", r'("\w+_s"|"seconds"): [\d.]+', r"\1: S"),
        Allowed("seconds", "served/rehearsal.out", r"(?m)^seconds .*$", "seconds S"),
        Allowed("date", "served/page_*_report.txt", r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE"),
        Allowed("time since the start", "served/*api.txt", r"\d+:\d\d:\d\d", "TIME"),
    ]


def write_inputs(data: Path, folder: Path) -> None:
    """The fixed inputs of all commands: some PNGs, a study as NIfTI and as DICOM, a tiny preset."""
    if folder.exists():
        shutil.rmtree(folder)
    parts = {"patients/imgs": PATIENTS, "patients/labels": PATIENTS, "controls/imgs": CONTROLS}
    for part, count in parts.items():
        (folder / "dmiai" / part).mkdir(parents=True)
        for path in sorted((data / "dmiai" / part).glob("*.png"))[:count]:
            shutil.copy(path, folder / "dmiai" / part)
    (folder / "few").mkdir()
    for part in ("patients", "controls"):
        for path in sorted((folder / "dmiai" / part / "imgs").iterdir())[:2]:
            shutil.copy(path, folder / "few")
    study = data / "petct" / "STS_001"
    for kind in ("nifti", "dicom"):
        tree = folder / f"tree_{kind}" / "PETCT_sts001" / "study"
        if kind == "nifti":
            tree.mkdir(parents=True)
            shutil.copy(study / "SUV.nii.gz", tree)
        else:
            shutil.copytree(study / "dicom", tree)
        shutil.copy(study / "SEG.nii.gz", tree)
    shutil.copytree(study / "dicom", folder / "dicom")
    shutil.copy(sorted((data / "organ_maps").glob("*.nii.gz"))[0], folder / "organs.nii.gz")
    shutil.copytree(data / "golden_metrics", folder / "golden")
    (folder / "tiny.json").write_text(json.dumps(TINY_PRESET))
    (folder / "trainers").mkdir()
    for kind in ("", "_muon"):
        path = folder / "trainers" / f"nnUNetTrainerMIP_tiny{kind}.py"
        path.write_text(TINY_TRAINER.replace("{kind}", kind))


def run_all(side: Side, out: Path, work: Path) -> list[dict]:
    """Run all steps in `work`; returns for each its files and whether it did as expected."""
    (work / "logs").mkdir(parents=True)
    for part in ("raw", "preprocessed", "results"):
        (work / "nnunet" / part).mkdir(parents=True)
    own = {"nnUNet_extTrainer": str(out / "inputs" / "trainers"), "OMP_NUM_THREADS": "1"}
    one_process = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0"}
    environment = side.environment(work, **own, **one_process)
    found, known = [], set()
    for number, (name, words) in enumerate(steps(), 1):
        fails, words = words.startswith("!"), _filled(words.lstrip("!"), work)
        started = time.perf_counter()
        code = _run_step(side, words, work, environment, f"{number:02d}_{words.split()[0]}")
        seconds = time.perf_counter() - started
        files = {p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file()}
        row = {"step": name, "command": words, "code": code, "seconds": round(seconds, 1)}
        found.append({**row, "as_expected": (code != 0) == fails, "files": sorted(files - known)})
        known |= files
        print(f"{side.name} {number}: {words[:70]}: code {code}, {seconds:.0f} s", flush=True)
    return found


def _filled(words: str, work: Path) -> str:
    """The command with the paths of what earlier steps made, those with spaces quoted."""
    phantom = min(work.glob("phantoms/1/PETCT_*/*"), default=work)
    case = min(work.glob("challenge/*/input"), default=work)
    phantom, case = (shlex.quote(os.path.relpath(path, work)) for path in (phantom, case))
    return words.format(sts=STS, dicom=DICOM, model=MODEL, phantom=phantom, case=case)


def _run_step(side: Side, words: str, work: Path, environment: dict, log: str) -> int:
    own = {"help": write_help, "marking": make_marking, "serving": write_served}
    kind, *rest = words.split()
    if kind in own:
        try:
            own[kind](side, work / rest[0], environment)
        except Exception as error:
            (work / "logs" / f"{log}.err").write_text(f"{type(error).__name__}: {error}\n")
            return 1
        return 0
    with (
        (work / "logs" / f"{log}.out").open("w") as output,
        (work / "logs" / f"{log}.err").open("w") as errors,
    ):
        streams = {"stdout": output, "stderr": errors}
        return subprocess.call(side.command(words), cwd=work, env=environment, **streams)


def write_help(side: Side, folder: Path, environment: dict) -> None:
    """The help of all commands, one file each."""
    folder.mkdir()
    commands = sorted(path.name for path in side.bin.glob("nnUNetv2_mip_*"))
    for words in [*commands, "classify train", "classify predict"]:
        text = subprocess.check_output(
            side.command(f"{words} --help"), text=True, cwd=folder, env=environment
        )
        (folder / f"{words}.txt").write_text(text)


def make_marking(side: Side, model: Path, environment: dict) -> None:
    """Let a model that has hardly learned mark something: low thresholds."""
    path = model / "inference.json"
    config = json.loads(path.read_text())
    config |= {"threshold": 0.5, "fusion": {"rule": "max", "threshold": 0.5}, "views": 4}
    path.write_text(json.dumps(config))


def write_served(side: Side, folder: Path, environment: dict) -> None:
    """What the service answers, one file an answer: status, headers and body."""
    import httpx

    folder.mkdir()
    inputs = folder.parent.parent / "inputs"
    bodies = [*REFUSED, *(body_of(path) for path in sorted((inputs / "few").iterdir()))]
    asked = [("GET", path, None) for path in SERVED.split()]
    asked += [("POST", "/predict", body) for body in bodies]
    log = folder.parent.parent / f"serve_{side.name}.log"
    with service(side, environment, log) as url, httpx.Client(base_url=url, timeout=300) as client:
        for number, (method, path, body) in enumerate(asked):
            _keep(folder, f"{number:02d}{path}", client.request(method, path, content=body))
        for path in (sorted((inputs / "few").iterdir())[0], folder.parent / STS / "SUV.nii.gz"):
            _ask_page(client, folder, path)
        names = [n for n in client.get("/metrics").text.splitlines() if n.startswith("#")]
        (folder / "metrics.txt").write_text("\n".join(names))
        words = f"rehearse --url {url}/predict --data {inputs / 'dmiai'} -n 4 --limit 600 -o "
        command = side.command(words + str(folder / "rehearsal.json"))
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        (folder / "rehearsal.out").write_text(f"{done.stdout}{done.stderr}code {done.returncode}\n")


def _keep(folder: Path, name: str, answer) -> None:
    headers = [f"{k}: {v}" for k, v in answer.headers.items() if k not in DROPPED_HEADERS]
    head = "\n".join([str(answer.status_code), *headers, "", ""]).encode()
    (folder / f"{name.replace('/', '_')}.txt").write_bytes(head + answer.content)


def _ask_page(client, folder: Path, path: Path) -> None:
    """What the page gets for an uploaded file."""
    added = client.post("/page/cases", params={"name": path.name}, content=path.read_bytes())
    url = f"/page/cases/{added.json()['key']}"
    while (state := client.get(url)).json()["state"] not in ("done", "failed"):
        time.sleep(0.5)
    _keep(folder, f"page_{path.name}_state", state)
    for part in ("views.png", "overlay.png", "table", "mask", "report"):
        _keep(folder, f"page_{path.name}_{part}", client.get(f"{url}/{part}"))


def compare_outputs(sides: tuple[Side, Side], out: Path, keep: list[str]) -> list[dict]:
    """Run all steps on both sides and compare their files; returns a row a command."""
    rows = {}
    for side in sides:
        folder, kept = out / side.name, out / f"{side.name}.json"
        if side.name in keep:
            rows[side.name] = json.loads(kept.read_text())
            continue
        for path in (folder, out / "run"):
            if path.exists():
                shutil.rmtree(path)
        rows[side.name] = run_all(side, out, out / "run")
        (out / "run").rename(folder)
        kept.write_text(json.dumps(rows[side.name], indent=1))
    if [r["command"] for r in rows["before"]] != [r["command"] for r in rows["after"]]:
        raise SystemExit("the commands of both sides differ: run without --keep")
    allowed, folders = allowed_differences(sides), [out / side.name for side in sides]
    found = []
    for one, two in zip(rows["before"], rows["after"]):
        paths = [names_of(row["files"]) for row in (one, two)]
        verdicts = [
            compare_files(*folders, name, tuple(side.get(name) for side in paths), allowed)
            for name in sorted(paths[0].keys() | paths[1].keys())
        ]
        found.append(_row(one, two, verdicts))
    return found


def _row(before: dict, after: dict, verdicts: list[Verdict]) -> dict:
    kinds = [verdict.state for verdict in verdicts]
    codes = (before["code"], after["code"])
    return {
        **{key: before[key] for key in ("step", "command")},
        "files": len(verdicts),
        "allowed": kinds.count(ALLOWED),
        "different": kinds.count(DIFFERENT),
        "codes": codes,
        "as_expected": before["as_expected"] and codes[0] == codes[1],
        "seconds": (before["seconds"], after["seconds"]),
        "verdicts": [asdict(verdict) for verdict in verdicts if verdict.notes],
    }
