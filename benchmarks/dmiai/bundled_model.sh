#!/usr/bin/env bash
# The bundled model, from the data: bash benchmarks/dmiai/bundled_model.sh DATA OUT [FOLD ...]
#
# DATA has patients/{imgs,labels} and controls/imgs; OUT is a new folder and gets mip_pet/, the model
# in the form that ships, and the nnU-Net folders. The network that ships learns from all patients
# (fold "all"): an hour and a half to two hours on one CPU core. Named folds (0 1 2 3 4) are trained
# first, each as long, and judged on the patients they have not seen: with all five the threshold is
# chosen on these and classifier.npz is trained (an hour more), as for the model that ships. Run
# again after a stop, or with more folds, it goes on; mip_pet/ is then replaced.
# Training is random, so that the weights are not the same bit for bit.
set -euo pipefail
data=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
export nnUNet_raw="$out/raw" nnUNet_preprocessed="$out/preprocessed" nnUNet_results="$out/results"
# One thread: two that wait for each other take longer (docs/results/training.md, "Threads on a CPU").
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" nnUNet_n_proc_DA="${nnUNet_n_proc_DA:-1}"
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
eval "$(nnUNetv2_mip_env)"
trainer=nnUNetTrainerMIP_muon
plans=nnUNetMIPPlans_cpu
results="$nnUNet_results/Dataset010_DMIAI"
model="$results/${trainer}_third__${plans}_3mm__2d"

[ -d "$nnUNet_raw/Dataset010_DMIAI" ] || nnUNetv2_mip_convert_dmiai -i "$data" -d 10 --controls all
for preset in cpu_4mm cpu_3mm; do
    [ -f "$nnUNet_preprocessed/Dataset010_DMIAI/nnUNetMIPPlans_$preset.json" ] ||
        nnUNetv2_mip_plan_and_preprocess -d 10 --preset $preset
done
# Each part starts from the network of the one before, or where it was stopped itself.
for fold in "$@" all; do
    for part in coarse:4mm fine:3mm third:3mm; do
        own="${trainer}_${part%:*}" pixels="${plans}_${part#*:}"
        [ -f "$results/${own}__${pixels}__2d/fold_$fold/checkpoint_final.pth" ] ||
            nnUNetv2_train 10 2d "$fold" -p "$pixels" -tr "$own" -device cpu --c
    done
done

# Measured (docs/results/bundled_model.md): an image in one piece, 16 views of a volume, the threshold of the best mean Dice
# of the five folds.
set_up() {
    python - "$model" "$@" <<'PYTHON'
import sys
from dataclasses import replace

from nnunetv2_mip.inference.config import InferenceConfig

folder, *threshold = sys.argv[1:]
config = replace(InferenceConfig.load(folder), views=16, tiling="whole", prefilter="impulse")
if threshold:
    config = replace(config, threshold=float(threshold[0]), min_component_px=int(threshold[1]))
config.save(folder)
PYTHON
}
five=false
[ "$(printf '%s\n' "$@" | sort -u | tr -d '\n')" = 01234 ] && five=true
if [ $# -gt 0 ]; then
    set_up
    python "$here/recipes.py" -d 10 -o "$out/scores" --folds "$@" --copies clean perturbed --prefilter impulse "bundled=$model"
fi
if $five; then
    nnUNetv2_mip_calibrate -m "$model" --write \
        -i "$out/scores/bundled/probabilities/clean" "$out/scores/bundled/probabilities/perturbed"
else
    set_up 0.35 0
fi
# Ours, of an earlier run: with more folds there is another threshold to write.
rm -rf "$out/mip_pet"
nnUNetv2_mip_export_model -m "$model" -o "$out/mip_pet" -f all
if $five; then
    python "$here/classification.py" bundle -d 10 --network "$model" --bundled "$out/mip_pet" \
        --splits "$nnUNet_preprocessed/Dataset010_DMIAI/splits_final.json" -o "$out/classification" --write
fi
