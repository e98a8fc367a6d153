#!/usr/bin/env bash
# The bundled model, from the data: bash benchmarks/bundled_model.sh DATA OUT
#
# DATA has patients/{imgs,labels} and controls/imgs; OUT is a new folder and gets mip_pet/, the model
# in the form that ships, scores/ and the nnU-Net folders. About three hours on two CPU cores; training
# is random, so the weights are not the same bit for bit.
set -euo pipefail
data=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
mkdir -p "$2"
out=$(realpath "$2")
export nnUNet_raw="$out/raw" nnUNet_preprocessed="$out/preprocessed" nnUNet_results="$out/results"
# One thread: two that wait for each other take longer (docs/results.md, "Threads").
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" nnUNet_n_proc_DA="${nnUNet_n_proc_DA:-1}"
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
eval "$(nnUNetv2_mip_env)"
plans=nnUNetMIPPlans_cpu_3mm
results="$nnUNet_results/Dataset010_DMIAI"
first="$results/nnUNetTrainerMIP_recipe_15epochs__${plans}__2d"
second="$results/nnUNetTrainerMIP_recipe_refine__${plans}__2d"
model="$results/nnUNetTrainerMIP_recipe_refine_again__${plans}__2d"

[ -d "$nnUNet_raw/Dataset010_DMIAI" ] || nnUNetv2_mip_convert_dmiai -i "$data" -d 10 --controls all
nnUNetv2_mip_plan_and_preprocess -d 10 --preset cpu_3mm
nnUNetv2_train 10 2d 0 -p $plans -tr nnUNetTrainerMIP_recipe_15epochs -device cpu --c

# On from the weights of the part before, or from where this one was stopped: nnU-Net takes one of the two.
go_on() { # trainer, its model folder, the folder before
    local start=(-pretrained_weights "$3/fold_0/checkpoint_final.pth")
    [ ! -e "$2/fold_0/checkpoint_latest.pth" ] && [ ! -e "$2/fold_0/checkpoint_final.pth" ] || start=(--c)
    nnUNetv2_train 10 2d 0 -p $plans -tr "$1" -device cpu "${start[@]}"
}
go_on nnUNetTrainerMIP_recipe_refine "$second" "$first"
go_on nnUNetTrainerMIP_recipe_refine_again "$model" "$second"
python "$here/recipes.py" -d 10 -o "$out/scores" --folds 0 --prefilter impulse "bundled=$model"
python "$here/calibrate.py" -d 10 -i "$out/scores/bundled" -m "$model" --prefilter impulse
nnUNetv2_mip_export_model -m "$model" -o "$out/mip_pet" -f 0
# What was chosen for speed, and measured (docs/results.md): 16 views, an image in one piece.
python - "$out/mip_pet" <<'PYTHON'
import sys
from dataclasses import replace

from nnunetv2_mip.inference_config import InferenceConfig

replace(InferenceConfig.load(sys.argv[1]), views=16, tiling="whole").save(sys.argv[1])
PYTHON
