"""`nnUNetTrainerMIP` with the options that scored best on real MIP-PET, each a class attribute.

An ablation is a subclass that sets one attribute back (`ablations/recipe_ablations.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from nnunetv2_mip.conventions import BODY_LEVEL, LEVEL_MAX
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP
from nnunetv2_mip.training.augmentation import (
    ImpulseNoiseTransform,
    LesionPasteTransform,
    SaturationTransform,
    deform_more,
    lesions_of,
)
from nnunetv2_mip.training.lr_schedules import WarmupCosine
from nnunetv2_mip.training.sampling import (
    part_of_patients,
    repeated_by_source,
    repeated_for_share,
)
from nnunetv2_mip.training.weight_average import WeightAverage


class nnUNetTrainerMIP_recipe(nnUNetTrainerMIP):
    """AdamW on a cosine schedule, averaged weights, impulse noise, a fixed share of controls.

    A checkpoint has the averaged weights as `network_weights`, which every predictor loads, and the
    weights that training continues with as `live_weights`.
    """

    learning_rate = 2e-3
    val_iterations_per_epoch = 10
    # Epochs between two checkpoints; nnU-Net's 50 take half a day on a CPU.
    checkpoint_every = 4
    # Share of the training with rising learning rate; None: nnU-Net's polynomial schedule.
    warmup: float | None = 0.02
    # Largest decay of the weights' moving average; None: no averaging.
    ema_decay: float | None = 0.998
    # Probability that an image gets salt-and-pepper noise, and the share of its pixels.
    impulse_probability = 0.15
    impulse_share = (0.02, 0.12)
    # Probability of another upper end of the window, and the factor it stretches values by.
    saturation_probability = 0.2
    saturation_factor = (0.75, 1.5)
    # Probabilities of rotation, scaling (each axis on its own) and elastic deformation. None:
    # nnU-Net's, lower and without elastic deformation.
    deformation: tuple[float, float, float] | None = None
    # Probability that lesions of another patient of the training fold are pasted.
    paste_probability = 0.0
    # Share of the images drawn that are cases without lesions; None: as in the data set.
    control_share: float | None = 0.2
    # Of a merged data set: source → repetitions of its cases with lesions and of those without, in
    # the list that is drawn from. `control_share` then does not count. None: not by source.
    source_repeats: Mapping[str, tuple[int, int]] | None = None
    # Share of the fold's patients with lesions to learn from, for learning curves.
    patient_share = 1.0

    average: WeightAverage | None = None
    _iterations_done = 0

    def initialize(self):
        super().initialize()
        self.save_every = self.checkpoint_every
        if self.ema_decay is not None:
            self.average = WeightAverage(self._plain_network(), self.ema_decay)

    def configure_optimizers(self):
        optimizer, schedule = super().configure_optimizers()
        if self.warmup is not None:
            schedule = WarmupCosine(optimizer, self.initial_lr, self.num_epochs, self.warmup)
        return optimizer, schedule

    def on_train_start(self):
        super().on_train_start()
        if self.average is not None and self.average.steps == 0:
            # Weights to start from may have been loaded since `initialize`.
            self.average = WeightAverage(self._plain_network(), self.average.decay)

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._iterations_done = 0

    def train_step(self, batch: dict) -> dict:
        if self.warmup is not None:
            # Every iteration: a short training has few epochs.
            done = self._iterations_done / self.num_iterations_per_epoch
            self.lr_scheduler.step(self.current_epoch + done)
        result = super().train_step(batch)
        self._iterations_done += 1
        if self.average is not None:
            self.average.update_parameters(self._plain_network())
        return result

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        if self.average is not None:
            self.average.swap(self._plain_network())

    def on_validation_epoch_end(self, val_outputs: list[dict]):
        if self.average is not None:
            self.average.swap(self._plain_network())
        super().on_validation_epoch_end(val_outputs)

    def perform_actual_validation(self, save_probabilities: bool = False):
        if self.average is None:
            return super().perform_actual_validation(save_probabilities)
        with self.average.in_place(self._plain_network()):
            return super().perform_actual_validation(save_probabilities)

    def save_checkpoint(self, filename: str) -> None:
        if self.average is None:
            return super().save_checkpoint(filename)
        network = self._plain_network()
        with self.average.in_place(network):
            super().save_checkpoint(filename)
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        checkpoint = torch.load(filename, map_location="cpu", weights_only=False)
        checkpoint["live_weights"] = network.state_dict()
        checkpoint["average_steps"] = self.average.steps
        # Beside the target, then renamed: a killed process leaves nnU-Net's file whole.
        partial = Path(f"{filename}.partial")
        torch.save(checkpoint, partial)
        partial.replace(filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint: `network_weights` as the average, `live_weights` as the network."""
        super().load_checkpoint(filename_or_checkpoint)
        if self.average is None:
            return
        network = self._plain_network()
        self.average = WeightAverage(network, self.average.decay)
        checkpoint = torch.load(
            filename_or_checkpoint, map_location=self.device, weights_only=False
        )
        # Another trainer's checkpoint has no live weights: both start from `network_weights`.
        if "live_weights" in checkpoint:
            self.average.steps = checkpoint["average_steps"]
            network.load_state_dict(checkpoint["live_weights"])

    def do_split(self) -> tuple[list[str], list[str]]:
        training, validation = super().do_split()
        if self.patient_share == 1:
            return training, validation
        has_lesion, patients = self._has_lesion(), self._of_dataset("patients")
        with_lesions = [case for case in training if has_lesion.get(case, True)]
        part = part_of_patients(training, patients, with_lesions, self.patient_share)
        self.print_to_log_file(
            f"{len(part)} of the training cases stay: {self.patient_share:g} of the patients with "
            "lesions."
        )
        return part, validation

    def get_tr_and_val_datasets(self):
        training, validation = super().get_tr_and_val_datasets()
        if self.source_repeats is not None:
            training.identifiers = repeated_by_source(
                training.identifiers,
                self._of_dataset("source_of", "merge data sets with nnUNetv2_mip_merge_datasets"),
                self._has_lesion(),
                self.source_repeats,
            )
        elif self.control_share is not None:
            has_lesion = self._has_lesion()
            healthy = [case for case in training.identifiers if not has_lesion.get(case, True)]
            training.identifiers = repeated_for_share(
                training.identifiers, healthy, self.control_share
            )
        return training, validation

    def _has_lesion(self) -> dict[str, bool]:
        return self._of_dataset("has_lesion")

    def _of_dataset(self, what: str, remedy: str = "convert the data set again") -> dict:
        path = Path(self.preprocessed_dataset_folder_base) / "dataset.json"
        found = read_json(path).get("mip", {}).get(what)
        if found is None:
            raise MipError(
                f'{path}: no "mip" → "{what}": {remedy}, or train with nnUNetTrainerMIP, which '
                "does not ask for it"
            )
        return found

    def get_training_transforms(self, patch_size, *args, **kwargs):
        composed = super().get_training_transforms(patch_size, *args, **kwargs)
        constants = self.plans_manager.foreground_intensity_properties_per_channel.values()
        low, high = (
            [(level - float(c["mean"])) / max(float(c["std"]), 1e-8) for c in constants]
            for level in (0, LEVEL_MAX)
        )
        if self.deformation is not None:
            deform_more(composed.transforms, self.deformation)
        late = [
            RandomTransform(
                SaturationTransform(self.saturation_factor, low, high), self.saturation_probability
            ),
            RandomTransform(
                ImpulseNoiseTransform(self.impulse_share, low, high), self.impulse_probability
            ),
        ]
        # After nnU-Net's intensity transforms, before its work on the labels.
        end = next(
            i for i, t in enumerate(composed.transforms) if isinstance(t, RemoveLabelTansform)
        )
        composed.transforms[end:end] = [t for t in late if t.apply_probability > 0]
        if self.paste_probability > 0:
            if len(patch_size) != 2:
                raise MipError("pasting lesions works on single views: train the 2d configuration")
            # Body, in standardised units of the first channel.
            body_above = low[0] + (high[0] - low[0]) * (BODY_LEVEL + 0.5) / LEVEL_MAX
            paste = LesionPasteTransform(self._lesion_bank(body_above), body_above)
            composed.transforms.insert(0, RandomTransform(paste, self.paste_probability))
        return composed

    def _lesion_bank(self, body_above: float) -> list[list]:
        """Lesions of this fold's training cases, a list for each view. No other case is opened."""
        cases, _ = self.do_split()
        has_lesion = self._has_lesion()
        dataset = self._class_of_dataset()(
            self.preprocessed_dataset_folder, [case for case in cases if has_lesion.get(case, True)]
        )
        bank = []
        for case in dataset.identifiers:
            image, mask, *_ = dataset.load_case(case)
            image, mask = image[:], mask[:]
            for view in range(image.shape[1]):
                shown = image[:, view]
                bank.append(lesions_of(shown, mask[0, view], shown[0] > body_above))
        self.print_to_log_file(
            f"Paste bank: {sum(map(len, bank))} lesions of {len(dataset.identifiers)} training "
            "cases."
        )
        return bank


class nnUNetTrainerMIP_recipe_10epochs(nnUNetTrainerMIP_recipe):
    epochs = 10


class nnUNetTrainerMIP_recipe_15epochs(nnUNetTrainerMIP_recipe):
    epochs = 15


class nnUNetTrainerMIP_recipe_100epochs(nnUNetTrainerMIP_recipe):
    epochs = 100
