"""MIP trainer: DiceFocal loss, mirroring in the image plane, splits grouped by patient.

nnU-Net imports the files of this folder as top-level modules and drops them again: imports are
absolute, and nothing that is pickled or looked up by its dotted path is defined here.
"""

import math
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_splits, without_patients
from nnunetv2_mip.training.cpu import apply_thread_limit, has_bfloat16_arithmetic
from nnunetv2_mip.training.losses import DiceFocalLoss
from nnunetv2_mip.training.muon import MuonAdamW
from nnunetv2_mip.wording import counted, part_of

# The range nnU-Net allows for when it sizes the patch that augmentation starts from.
SCALE_RANGE = (0.85, 1.25)


class nnUNetTrainerMIP(nnUNetTrainer):
    """nnU-Net trainer for data sets of this package.

    A variant is a subclass with other class attributes. The settings for prediction are written
    into the model folder when training starts (`inference.json`). Model folder and checkpoints do
    not name patients.
    """

    weight_dice = 1.0
    weight_focal = 10.0
    gamma = 2.0
    # One Dice for the batch, or one for each image and their mean; None: as the plans say (one).
    batch_dice: bool | None = None
    epochs = 1000
    iterations_per_epoch = 250
    val_iterations_per_epoch = 50
    learning_rate = 1e-3
    weight_decay = 1e-2
    # Learning rate of Muon for the kernels, as a multiple of `learning_rate`; None: AdamW for all.
    muon_factor: float | None = None
    # Trainer and plans whose network of this data set, configuration and fold the training starts
    # from, output layers included; None: random weights, or nnU-Net's -pretrained_weights, which
    # leaves the output layers random, so that the first iterations undo what was learned.
    starts_from: tuple[str, str] | None = None
    # Share of each batch that is centred on a lesion. With nnU-Net's 0.33, a small batch and many
    # cases without lesions, whole batches hold no lesion.
    foreground_share = 0.5
    # In-plane axes to mirror, 0 rows and 1 columns, in training and as test-time augmentation.
    mirrored_axes: tuple[int, ...] = (0, 1)
    # Largest in-plane rotation in training, degrees: patients lie straight in a view. None keeps
    # nnU-Net's (up to half a turn).
    rotation_deg: float | None = 15.0
    # Set by nnU-Net.
    dataset_class: type[nnUNetBaseDataset] | None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        # The base class writes this into dataset.json, debug.json and every checkpoint.
        super().__init__(plans, configuration, fold, without_patients(dataset_json), device)
        self.num_epochs = self.epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.val_iterations_per_epoch
        self.initial_lr = self.learning_rate
        self.weight_decay = type(self).weight_decay
        self.oversample_foreground_percent = self.foreground_share
        if device.type == "cpu":
            apply_thread_limit()

    def train_step(self, batch: dict) -> dict:
        with self._autocast_on_cpu():
            return super().train_step(batch)

    def validation_step(self, batch: dict) -> dict:
        with self._autocast_on_cpu():
            return super().validation_step(batch)

    def _autocast_on_cpu(self) -> AbstractContextManager:
        """Autocast to bfloat16 on CPUs with bfloat16 arithmetic (1.6 times as fast).

        nnU-Net autocasts on GPUs only. The loss computes in float32.
        """
        enabled = self.device.type == "cpu" and has_bfloat16_arithmetic()
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

    def configure_optimizers(self):
        """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on nnU-Net's polynomial schedule.

        With few and small lesions, nnU-Net's SGD predicts background everywhere for hundreds to
        thousands of iterations. With `muon_factor`, Muon for the kernels
        (`nnunetv2_mip.training.muon`) on the same schedule.
        """
        if self.muon_factor is None:
            optimizer = torch.optim.AdamW(
                self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
            )
        else:
            optimizer = MuonAdamW(
                self.network, self.initial_lr, self.muon_factor, self.weight_decay
            )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self):
        if self.label_manager.has_regions:
            raise MipError("dataset.json: regions are not supported: give the labels as numbers")
        loss = self._dice_focal()
        # nnU-Net's weights of the supervision scales, with our loss inside
        base = super()._build_loss()
        if not isinstance(base, DeepSupervisionWrapper):
            return loss
        base.loss = loss
        if not np.isfinite(base.weight_factors).all():
            # A network of two stages has one output, whose weight nnU-Net computes as 0 / 0.
            base.weight_factors = (1.0,)
        return base

    def _dice_focal(self, **more) -> DiceFocalLoss:
        return DiceFocalLoss(
            weight_dice=self.weight_dice,
            weight_focal=self.weight_focal,
            gamma=self.gamma,
            batch_dice=(
                self.configuration_manager.batch_dice
                if self.batch_dice is None
                else self.batch_dice
            ),
            ignore_label=self.label_manager.ignore_label,
            ddp=self.is_ddp,
            **more,
        )

    def save_checkpoint(self, filename: str) -> None:
        if self.local_rank != 0:
            # nnU-Net writes on the first process only; another would rename a half-written file.
            return
        # Beside the target, then renamed: a killed training resumes from the checkpoint before.
        partial = Path(f"{filename}.partial")
        super().save_checkpoint(str(partial))
        if partial.exists():
            partial.replace(filename)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy_2d, initial_patch, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        dimensions = len(self.configuration_manager.patch_size)
        if self.rotation_deg is not None and dimensions == 2:
            largest = math.radians(self.rotation_deg)
            rotation = (-largest, largest)
            initial_patch = get_patch_size(
                self.configuration_manager.patch_size, rotation, rotation, rotation, SCALE_RANGE
            )
        # The last two axes: views are not mirrored along the view axis of a 3D configuration.
        axes = tuple(dimensions - 2 + axis for axis in self.mirrored_axes)
        # nnU-Net's predictor knows "no mirroring" as None only.
        self.inference_allowed_mirroring_axes = axes or None
        return rotation, dummy_2d, initial_patch, axes or None

    def do_split(self) -> tuple[list[str], list[str]]:
        """Training and validation cases of this fold.

        Raises:
            MipError: splits are missing, are stale, mix patients, or do not have this fold (where
                nnU-Net would draw a random 80:20 split of cases); or predictions of a cascade's
                first stage are missing.
        """
        training, validation = self._cases_of_fold()
        if self.is_cascaded:
            self._check_first_stage({*training, *validation})
        return training, validation

    def _check_first_stage(self, cases: set[str]) -> None:
        """Check that the first stage has predicted every case (by the fold that validates it)."""
        folder = Path(self.folder_with_segs_from_previous_stage)
        missing = sorted(cases - {path.stem for path in folder.glob("*.*")})
        if missing:
            first = self.configuration_manager.previous_stage_name
            raise MipError(
                f"{folder}: {part_of(len(missing), len(cases), 'case', 'has')} no answer of the "
                "first stage "
                f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}): train {first} "
                f"first, every fold to its end, with the same -tr and -p"
            )

    def _cases_of_fold(self) -> tuple[list[str], list[str]]:
        base = Path(self.preprocessed_dataset_folder_base)
        if not Path(self.preprocessed_dataset_folder).is_dir():
            raise MipError(
                f"{self.preprocessed_dataset_folder}: no preprocessed data: run "
                "nnUNetv2_mip_plan_and_preprocess"
            )
        cases = list(self._class_of_dataset().get_identifiers(self.preprocessed_dataset_folder))
        if self.fold == "all":
            return cases, cases

        path = base / SPLITS_FILE
        if not path.exists():
            raise MipError(
                f"{path}: no such file: convert the data set again and run "
                "nnUNetv2_mip_plan_and_preprocess --clean, or train fold 'all'"
            )
        splits = read_json(path)
        patients = read_json(base / "dataset.json").get("mip", {}).get("patients")
        if patients is None:
            raise MipError(
                f'{base / "dataset.json"}: no "mip" → "patients": train data sets of other '
                "converters with nnUNetTrainer"
            )
        check_splits(splits, patients, cases, source=str(path))
        if not 0 <= self.fold < len(splits):
            raise MipError(
                f"{path}: no fold {self.fold}: the file has {len(splits)} (counted from 0); choose "
                "one of them or 'all'"
            )
        fold = splits[self.fold]
        self.print_to_log_file(
            f"Fold {self.fold} of {path}: {counted(len(fold['train']), 'training case')}, "
            f"{counted(len(fold['val']), 'validation case')}, no patient in both."
        )
        return fold["train"], fold["val"]

    def _class_of_dataset(self) -> type[nnUNetBaseDataset]:
        """nnU-Net's class for the files of the preprocessed data set."""
        found = self.dataset_class
        if found is None:
            found = infer_dataset_class(self.preprocessed_dataset_folder)
            self.dataset_class = found
        return found

    def on_train_start(self):
        checkpoint = None
        if self.starts_from is not None and self.current_epoch == 0:
            checkpoint = self._checkpoint_before(*self.starts_from)
        super().on_train_start()
        if checkpoint is not None:
            self._take_weights(checkpoint)
        if self.local_rank == 0:
            self._write_inference_config()

    def _checkpoint_before(self, trainer: str, plans: str) -> Path:
        """Final checkpoint of the training that this one starts from.

        Raises:
            MipError: there is none.
        """
        path = (
            Path(self.output_folder_base).parent
            / f"{trainer}__{plans}__{self.configuration_name}"
            / f"fold_{self.fold}"
            / CHECKPOINT
        )
        if not path.is_file():
            number = self.plans_manager.dataset_name[len("Dataset") :][:3].lstrip("0")
            raise MipError(
                f"{path}: no such file; {type(self).__name__} goes on from it: first run "
                f"nnUNetv2_train {number} {self.configuration_name} {self.fold} -p {plans} "
                f"-tr {trainer}"
            )
        return path

    def _take_weights(self, checkpoint: Path) -> None:
        """Load the network weights of a checkpoint.

        Raises:
            MipError: it is of another architecture.
        """
        weights = torch.load(checkpoint, map_location=self.device, weights_only=False)
        try:
            self._plain_network().load_state_dict(weights["network_weights"])
        except RuntimeError as error:
            raise MipError(
                f"{checkpoint}: its network is another one than that of the plans "
                f"{self.plans_manager.plans_name}: {str(error).splitlines()[-1].strip()}"
            ) from None
        self.print_to_log_file(f"Starts from {checkpoint}.")

    def _plain_network(self) -> torch.nn.Module:
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def _write_inference_config(self) -> None:
        folder = Path(self.output_folder_base)
        config = InferenceConfig.from_dataset_json(self.dataset_json)
        if (folder / INFERENCE_FILE).exists():
            # Another fold came first: settings tuned since then (threshold, TTA, …) stay.
            config = InferenceConfig.load(folder).with_data_of(config)
        config.save(folder)
