"""Commands whose outputs are compared, in their order, and what they are given.

Options are spelled as up to version 0.3.0, so that every commit understands them.
"""

TINY_PRESET = {
    "finest_spacing_mm": [8, 8],
    "max_patch_px": [64, 64],
    "max_batch_size": 2,
    "features_per_stage": [4, 8, 8],
    "convs_per_stage": 1,
    "vram_gb": 8,
}
# nnUNetv2_train sets no seed.
TINY_TRAINER = """
import random

import numpy as np
import torch

from nnunetv2_mip.trainers.nnUNetTrainerMIP{kind} import nnUNetTrainerMIP{kind}


class nnUNetTrainerMIP_tiny{kind}(nnUNetTrainerMIP{kind}):
    epochs = 2
    iterations_per_epoch = 4
    val_iterations_per_epoch = 1

    def initialize(self):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        super().initialize()
"""
MODEL = "nnunet/results/Dataset005_AutoPETMIP/nnUNetTrainerMIP_tiny__nnUNetMIPPlans_tiny__2d"
STS = "../inputs/tree_nifti/PETCT_sts001/study"
DICOM = "../inputs/dicom"
# Name of a step, and its command in OUT/run; "!" before it: it has to fail.
STEPS = """
phantom: phantom -o phantoms/1 -n 6 --seed 1 --spacing 8
phantom: phantom -o phantoms/2 -n 2 --seed 2 --spacing 8 -np 2
phantom: phantom -o phantoms/3 -n 1 --seed 3 --spacing 8 --organs ../inputs/organs.nii.gz
phantom: phantom -o challenge -n 1 --seed 3 --spacing 8 --layout grand-challenge --clicks 3
convert_autopet: convert_autopet -i phantoms/1 -d 1 --views 6
convert_autopet: convert_autopet -i phantoms/1 -d 2 --views 6 --labels visible --pixel 4
convert_autopet: convert_autopet -i phantoms/1 -d 3 --views 6 --labels ignore -np 2
convert_autopet: convert_autopet -i phantoms/2 -d 4 --angles 0 30 75 --channels suv,ct,depth
convert_autopet: convert_autopet -i phantoms/2 -d 5 --views 3
convert_autopet: convert_autopet -i phantoms/3 -d 6 --views 4 --window 8 --arc 360
convert_autopet: convert_autopet -i ../inputs/tree_nifti -d 7 --views 6 --labels visible
convert_autopet: convert_autopet -i ../inputs/tree_dicom -d 8 --views 6 --labels visible
convert_dmiai: convert_dmiai -i ../inputs/dmiai -d 10
convert_stage2: convert_stage2 -i phantoms/2 -d 20 --no-cue --ct
plan_and_preprocess: plan_and_preprocess -d 1 --preset cpu_4mm -np 1
plan_and_preprocess: plan_and_preprocess -d 4 --preset resenc -np 1
plan_and_preprocess: plan_and_preprocess -d 5 --preset ../inputs/tiny.json -np 1
plan_and_preprocess: plan_and_preprocess -d 10 --preset cpu -np 1
plan_and_preprocess: plan_and_preprocess -d 20 --preset cpu_3d -np 1
project: project -i {sts}/SUV.nii.gz --seg {sts}/SEG.nii.gz -o views/nifti --views 6 --png
project: project -i {dicom} -o views/dicom --views 3 --channels suv,depth --png --pixel 3
project: project -i {phantom}/SUV.nii.gz --seg {phantom}/SEG.nii.gz --ct {phantom}/CTres.nii.gz \
    -o views/phantom --views 5 --channels suv,ct,depth --labels ignore
train: nnUNetv2_train 5 2d 0 -p nnUNetMIPPlans_tiny -tr nnUNetTrainerMIP_tiny -device cpu
train: nnUNetv2_train 5 2d 1 -p nnUNetMIPPlans_tiny -tr nnUNetTrainerMIP_tiny -device cpu
train: nnUNetv2_train 5 2d 0 -p nnUNetMIPPlans_tiny -tr nnUNetTrainerMIP_tiny_muon -device cpu
train: nnUNetv2_predict -i nnunet/raw/Dataset005_AutoPETMIP/imagesTr -o stock -d 5 -c 2d -f 0 \
    -p nnUNetMIPPlans_tiny -tr nnUNetTrainerMIP_tiny -device cpu --save_probabilities
export_model: export_model -m {model} -o exported -f 0 1
export_model: marking exported
convert_stage2: convert_stage2 -i phantoms/2 -d 21 --cue-from {model}
predict PNG: predict -i ../inputs/dmiai/patients/imgs -o png --save_probabilities
predict PNG: predict -i ../inputs/few -o png_plain --disable_tta --never-empty
predict NIfTI: predict -i {sts}/SUV.nii.gz -o nifti/mask.nii.gz --views 8 --save_views
predict DICOM: predict -i {dicom} -o dicom --save_views --save_probabilities
predict tree: predict -i phantoms/2 -o tree --views 4 --save_views --save_probabilities
predict tree: predict -i phantoms/2 -o tree_tiny -m exported --save_probabilities
predict tree: predict -i phantoms/2 -o tree_fold -d 5 -tr nnUNetTrainerMIP_tiny \
    -p nnUNetMIPPlans_tiny -f 1 --disable_tta
predict stack: predict -i nnunet/raw/Dataset005_AutoPETMIP/imagesTr -o stacks -m exported
fuse: fuse -i views/nifti -o fused/explain.nii.gz
fuse: fuse -i views/nifti -o fused/mean.nii.gz --suv {sts}/SUV.nii.gz --rule mean \
    --uptake-share 0.4
fuse: fuse -i views/nifti -o fused/visibility.nii.gz --suv {sts}/SUV.nii.gz --rule visibility
fuse: fuse -i stock -d 5 -o fused/stock --rule hull --threshold 0.3
evaluate: evaluate -p tree -g phantoms/2 -o scores/tree.json --against tree_tiny
evaluate: evaluate -p tree_tiny -g phantoms/2 -o scores/tiny.json --min-overlap 0.1
evaluate: evaluate -p png -g ../inputs/dmiai -o scores/png.json --only-predicted
evaluate: evaluate -p stacks -g nnunet/raw/Dataset005_AutoPETMIP -o scores/stacks.json
evaluate: evaluate -p ../inputs/golden/prediction.nii.gz -g ../inputs/golden/ground_truth.nii.gz \
    -o scores/golden.json
evaluate: evaluate -p nifti/mask.nii.gz -g {sts}/SEG.nii.gz -o scores/sts.json
classify: classify predict -i ../inputs/few -o classes/png.csv
classify: classify train -d 10 -o classes/head --network exported
classify: classify train -d 10 -o classes/own --network exported --from-scratch --epochs 2 \
    --no-evaluation
classify: classify predict -i phantoms/2 -m classes/head -o classes/tree.csv
report: report -i png -g ../inputs/dmiai -o reports/png.html --only-predicted
report: report -i tree_tiny -g phantoms/2 -m {model} -d 5 -o reports/tree.html --cases 1 --views 6
report: report -d 10 -o reports/data.html
study: study -i phantoms/1 --models tiny=exported --views 1 2 --reference-views 6 --no-energy \
    -o study
grand_challenge: grand_challenge --input {case} --output answer/4 --budget 100000 --strict
grand_challenge: grand_challenge --input {case} --output answer/3 --budget 100000 --strict \
    --edition 3 --model exported --data-centric
serve: serving served
bad input: !predict -i nowhere -o bad
bad input: !predict -i ../inputs/tiny.json -o bad
bad input: !convert_autopet -i ../inputs/dmiai -d 30
bad input: !convert_dmiai -i phantoms -d 30
bad input: !convert_autopet -i phantoms/1 -d 1 --views 7
bad input: !plan_and_preprocess -d 30
bad input: !evaluate -p png -g phantoms/1 -o bad.json
bad input: !grand_challenge --input nowhere --output bad --budget 0
bad input: !fuse -i png -o bad.nii.gz
bad input: !report -o bad.html
bad input: !serve --port 99999
environment: env
environment: help help
"""


def steps() -> list[tuple[str, str]]:
    lines = STEPS.replace("\\\n", " ").strip().splitlines()
    return [tuple(line.split(": ", 1)) for line in lines]
