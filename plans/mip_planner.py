"""nnU-Net planner for stacks of views.

Differences from nnU-Net's: only the `2d` configuration is planned (single views; a case's first
axis counts views, not millimetres), channels are standardised by constants of the data set, and a
preset sets the limits. The result is an ordinary plans file, which every nnU-Net command takes.
"""

import shutil
from pathlib import Path

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from nnunetv2_mip.conventions import STACK_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.plans.architecture import (
    MIN_EDGE_PX,
    architecture_plan,
    feature_map_values,
    stages_within,
)
from nnunetv2_mip.plans.presets import DEFAULT_PRESET, Preset, load_preset

CONFIGURATION = "2d"
# Of a preset with `localization`: nnU-Net's cascade, in two dimensions.
FIRST_STAGE, SECOND_STAGE = "2d_loc", "2d_seg"
# Foreground values drawn for statistics that these plans do not use; nnU-Net draws 10⁸.
FINGERPRINT_SAMPLES = 1e5
MIN_BATCH_SIZE = 2


class MIPFingerprintExtractor(DatasetFingerprintExtractor):
    """nnU-Net's fingerprint with few intensity samples; only shapes and spacings are used."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = FINGERPRINT_SAMPLES


class MIPExperimentPlanner(ExperimentPlanner):
    """Planner of the `2d` configuration of a MIP data set, within a preset's limits.

    The network is nnU-Net's plain 2D U-Net unless the preset lists residual blocks: the plain one
    is faster on a CPU, and the results of this package were measured with it.

    Args:
        dataset_name_or_id: as in nnU-Net; its fingerprint must exist.
        gpu_memory_target_in_gb: overrides the preset's memory target.
        preprocessor_name: as in nnU-Net.
        plans_name: overrides the preset's name for the plans.
        overwrite_target_spacing: (view axis, row, column) mm, overrides the data set's median.
        suppress_transpose: no effect; the view axis stays first.
        preset: the limits; `default` when omitted.

    Raises:
        MipError: dataset.json has no "mip" part, or the cases are not stacks.
    """

    # Axes of what a network sees, and the configuration of a preset without `localization`.
    dimensions = 2
    configuration = CONFIGURATION

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
        preset: Preset | None = None,
    ):
        self.preset = preset or load_preset(DEFAULT_PRESET)
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb or self.preset.vram_gb,
            preprocessor_name,
            plans_name or self.preset.plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.dataset_file = Path(self.raw_dataset_folder) / "dataset.json"
        if "mip" not in self.dataset_json:
            raise MipError(
                f'{self.dataset_file}: no "mip" part: plan this data set with nnUNetv2_'
                "plan_and_preprocess, or convert it with a converter of this package"
            )
        limit = self.preset.max_patch_px
        if limit is not None and len(limit) != self.dimensions:
            raise MipError(
                f"preset {self.preset.name}: its patch has {len(limit)} axes, "
                f"the images of {self.raw_dataset_folder} have {self.dimensions}: choose another"
            )
        self._check_cases(np.atleast_2d(self.dataset_fingerprint["spacings"]))

    def _check_cases(self, spacings: np.ndarray) -> None:
        if (spacings[:, 0] < STACK_SPACING_MM).any():
            raise MipError(
                f"{self.raw_dataset_folder}: images with {spacings[:, 0].min():g} mm along the "
                "first axis are volumes, not stacks of views: convert the data set again"
            )

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """(view axis, row, column) mm: the median, in the plane no finer than the preset says."""
        if self.overwrite_target_spacing is not None:
            return np.array(self.overwrite_target_spacing)
        spacing = np.median(np.vstack(self.dataset_fingerprint["spacings"]), 0)
        if self.preset.finest_spacing_mm is not None:
            spacing[1:] = np.maximum(spacing[1:], self.preset.finest_spacing_mm)
        return spacing

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        return [0, 1, 2], [0, 1, 2]

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(
        self,
    ) -> tuple[list[str], list[bool]]:
        """nnU-Net's CT scheme (clip, then standardise by constants) for every channel.

        No mask: constants do not change when an image is cropped, and air is a level as well.
        """
        channels = len(self.dataset_json["channel_names"])
        return ["CTNormalization"] * channels, [False] * channels

    def intensity_properties(self) -> dict[str, dict[str, float]]:
        """Constants of dataset.json["mip"]["intensity"], in the form that nnU-Net's schemes read.

        The lower end of the window is subtracted, not the mean: nnU-Net fills a patch beyond the
        image with 0, which is then air, where the mean is as bright as a liver.

        Raises:
            MipError: a channel has no constants.
        """
        intensity = self.dataset_json["mip"].get("intensity", {})
        properties = {}
        for index, name in self.dataset_json["channel_names"].items():
            constants = intensity.get(name, {})
            missing = sorted({"mean", "std", "low", "high"} - set(constants))
            if missing:
                raise MipError(
                    f'{self.dataset_file}: "mip" → "intensity" → "{name}" has no '
                    f"{', '.join(missing)}: convert the data set again"
                )
            properties[index] = {
                "mean": float(constants["low"]),
                "std": float(constants["std"]),
                "percentile_00_5": float(constants["low"]),
                "percentile_99_5": float(constants["high"]),
            }
        return properties

    def plan_experiment(self) -> dict:
        """The plans; also written as a file, with a copy of dataset.json beside it."""
        if self.preset.localization is None:
            configurations = {self.configuration: self._configuration(self.configuration)}
        else:
            coarse = type(self)(
                self.dataset_name,
                preprocessor_name=self.preprocessor_name,
                plans_name=self.plans_identifier,
                preset=self.preset.localization,
            )
            first, second = coarse._configuration(FIRST_STAGE), self._configuration(SECOND_STAGE)
            first["next_stage"], second["previous_stage"] = SECOND_STAGE, FIRST_STAGE
            configurations = {FIRST_STAGE: first, SECOND_STAGE: second}
        transpose_forward, transpose_backward = self.determine_transpose()
        median_shape = np.median(np.vstack(self.dataset_fingerprint["shapes_after_crop"]), 0)
        self.plans = {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_identifier,
            "original_median_spacing_after_transp": np.median(
                np.vstack(self.dataset_fingerprint["spacings"]), 0
            ).tolist(),
            "original_median_shape_after_transp": [round(float(size)) for size in median_shape],
            "image_reader_writer": self.determine_reader_writer().__name__,
            "transpose_forward": transpose_forward,
            "transpose_backward": transpose_backward,
            "configurations": configurations,
            "experiment_planner_used": self.__class__.__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": self.intensity_properties(),
            "mip_preset": self.preset.to_dict(),
        }
        shutil.copy(
            self.dataset_file, Path(nnUNet_preprocessed) / self.dataset_name / "dataset.json"
        )
        self.save_plans(self.plans)
        return self.plans

    def _configuration(self, name: str) -> dict:
        """Plan of one configuration within the preset's limits."""
        spacing = self.determine_fullres_target_spacing()
        seen = slice(3 - self.dimensions, 3)
        shapes = [
            compute_new_shape(shape, own, [*own[: seen.start], *spacing[seen]])
            for own, shape in zip(
                self.dataset_fingerprint["spacings"], self.dataset_fingerprint["shapes_after_crop"]
            )
        ]
        configuration = self.get_plans_for_configuration(
            spacing[seen],
            np.median(shapes, 0)[seen],
            self.generate_data_identifier(name),
            float(np.prod(shapes, axis=1).sum()),
            {},
        )
        configuration["batch_dice"] = True
        return configuration

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray,
        median_shape: np.ndarray,
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """Plan of a configuration with given spacing and median shape.

        The patch is the median view within the preset's limit, rounded up to what the network can
        halve, and shrinks only where two images do not fit into memory. The batch is what fits, up
        to the preset's limit; nnU-Net's rule that a batch covers at most 5 % of the data set does
        not apply, since it would make batches of 2 or 3 for small data sets.

        Args:
            spacing: of an image's axes, mm.
            median_shape: of the median image at this spacing.
            data_identifier: name of the folder with the preprocessed data.
            approximate_n_voxels_dataset: not used.
            _cache: not used.
        """
        limit = self.preset.max_patch_px or tuple(median_shape)
        patch = [int(min(size, most)) for size, most in zip(median_shape, limit)]
        channels = len(self.dataset_json["channel_names"]), len(self.dataset_json["labels"])
        # nnU-Net's estimate of what fits, for images of as many axes.
        kind = f"{self.dimensions}d"
        memory = (
            getattr(self, f"UNet_reference_val_{kind}")
            * getattr(self, f"UNet_reference_val_corresp_bs_{kind}")
            * self.UNet_vram_target_GB
            / self.UNet_reference_val_corresp_GB
        )
        while True:
            strides, kernels, padded, divisor = stages_within(self.preset, spacing, patch)
            architecture = architecture_plan(self.preset, strides, kernels)
            fitting = int(memory / feature_map_values(architecture, padded, *channels))
            if fitting >= MIN_BATCH_SIZE or max(padded) <= 2 * MIN_EDGE_PX:
                break
            largest = int(np.argmax(np.array(padded) / np.array(median_shape)))
            patch = [int(size) for size in padded]
            patch[largest] -= int(divisor[largest])

        data, data_kwargs, seg, seg_kwargs = self.determine_resampling()
        softmax, softmax_kwargs = self.determine_segmentation_softmax_export_fn()
        schemes, use_mask = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return {
            "data_identifier": data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": max(MIN_BATCH_SIZE, min(fitting, self.preset.max_batch_size)),
            "patch_size": [int(size) for size in padded],
            "median_image_size_in_voxels": [float(size) for size in median_shape],
            "spacing": [float(step) for step in spacing],
            "normalization_schemes": schemes,
            "use_mask_for_norm": use_mask,
            "resampling_fn_data": data.__name__,
            "resampling_fn_seg": seg.__name__,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
            "resampling_fn_probabilities": softmax.__name__,
            "resampling_fn_probabilities_kwargs": softmax_kwargs,
            "architecture": architecture,
        }
