"""Time of a training iteration on a CPU, part by part, with one thread and with more.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/core/training_step.py -d 10 -p nnUNetMIPPlans_cpu_4mm

Numbers of threads are timed in turn, round by round, in one process, so that other work on the
machine meets all of them. Medians over the rounds. A batch is drawn in this process here; in a
training the workers of `nnUNet_n_proc_DA` do it beside the network.
"""

import argparse
import os
import tempfile
import time
from statistics import median

os.environ["nnUNet_n_proc_DA"] = "0"
# Nothing of this is kept.
os.environ["nnUNet_results"] = tempfile.mkdtemp()

import torch

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.paths import nnunet_folder, raw_dataset
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-p", required=True, help="plans")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    name = raw_dataset(args.d).name
    folder = nnunet_folder("nnUNet_preprocessed") / name
    trainer = nnUNetTrainerMIP_recipe(
        read_json(folder / f"{args.p}.json") | {"continue_training": False},
        "2d",
        0,
        read_json(folder / "dataset.json"),
        torch.device("cpu"),
    )
    trainer.initialize()
    batches, _ = trainer.get_dataloaders()
    trainer.network.train()
    parts = ("batch", "network, loss, optimiser", "average")
    times = {(threads, part): [] for threads in args.threads for part in parts}
    for number in range(args.rounds + 1):
        for threads in args.threads:
            torch.set_num_threads(threads)
            moments = [_now()]
            batch = next(batches)
            moments.append(_now())
            super(nnUNetTrainerMIP_recipe, trainer).train_step(batch)
            moments.append(_now())
            trainer.average.update(trainer.network)
            moments.append(_now())
            if number:
                for part, begin, end in zip(parts, moments, moments[1:]):
                    times[threads, part].append((end[0] - begin[0], end[1] - begin[1]))
    print("| threads | " + " | ".join(f"{part}: s (CPU s)" for part in parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for threads in args.threads:
        cells = []
        for part in parts:
            wall, cpu = (median(values) for values in zip(*times[threads, part]))
            cells.append(f"{wall:.3f} ({cpu:.3f})")
        print(f"| {threads} | " + " | ".join(cells) + " |")


def _now() -> tuple[float, float]:
    """Seconds on the clock and of the CPU."""
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"training_step.py: {error}") from None
