#!/usr/bin/env bash
# A model for volumes and images, from images and simulated patients:
#     [IMAGES=FOLDER] bash benchmarks/dmiai/mixed_model.sh DATA MAPS OUT [FOLD ...]
#
# IMAGES is a model for images that goes into the folder as it is, as that of bundled_model.sh does in
# the model that ships; without it the last part of the training makes one.
# DATA has patients/{imgs,labels} and controls/imgs of the DM-i-AI MIP-PET images. MAPS holds label
# maps of organs (see `nnUNetv2_mip_phantom --organs`): simulated patients around the first three
# quarters of them take part in the training, those around the others judge the model. OUT is a new
# folder and gets mip_pet/, the model in the form that ships, and the nnU-Net folders.
#
# Both networks learn from all patients (fold "all"): an hour and a quarter on one CPU core. Named
# folds (0 1 2 3 4) are trained first, each as long, and judged on the images they have not seen:
# with all five, threshold and the rule for healthy images are chosen on these, and classifier.npz
# is trained (an hour more). Run again after a stop, or with more folds, it goes
# on; mip_pet/ is then replaced. Training is random: the weights are not the same bit for bit.
set -euo pipefail
data=$(realpath "$1")
maps=$(realpath "$2")
here=$(realpath "$(dirname "$0")")
mkdir -p "$3"
out=$(realpath "$3")
shift 3
export nnUNet_raw="$out/raw" nnUNet_preprocessed="$out/preprocessed" nnUNet_results="$out/results"
# One thread: two that wait for each other take longer.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" nnUNet_n_proc_DA="${nnUNet_n_proc_DA:-1}"
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results" "$out/simulated"
eval "$(nnUNetv2_mip_env)"
trainer=nnUNetTrainerMIP_mixed
plans=nnUNetMIPPlans_cpu
name=Dataset030_Mixed
results="$nnUNet_results/$name"
model="$results/${trainer}_third__${plans}_3mm__2d"
images="$results/${trainer}_images__${plans}_3mm__2d"
parts=(coarse:4mm fine:3mm third:3mm)
if [ -n "${IMAGES:-}" ]; then
    images=$(realpath "$IMAGES")
else
    parts+=(images:3mm)
fi

# Organ maps for training and for judging, as folders of links.
if [ ! -d "$out/maps_test" ]; then
    rm -rf "$out/maps_train" "$out/maps_test.partial"
    mkdir "$out/maps_train" "$out/maps_test.partial"
    mapfile -t files < <(find "$maps" -maxdepth 1 -name '*.nii.gz' | sort)
    for number in "${!files[@]}"; do
        folder=maps_test.partial
        [ $((4 * number)) -ge $((3 * ${#files[@]})) ] || folder=maps_train
        ln -s "${files[$number]}" "$out/$folder/"
    done
    mv "$out/maps_test.partial" "$out/maps_test"
fi

simulate() { # NAME PATIENTS SEED SPACING [OPTIONS ...]
    local cohort="$out/simulated/$1"
    [ -d "$cohort" ] ||
        nnUNetv2_mip_phantom -o "$cohort" -n "$2" --seed "$3" --spacing "$4" -np "${PROCESSES:-2}" "${@:5}"
}
organs=(--organs "$out/maps_train")
wide=(--variety wide)
# Training.
simulate a 60 5001 4 "${wide[@]}" "${organs[@]}"
simulate b 36 5002 3.2 "${wide[@]}" "${organs[@]}"
simulate c 40 5003 5 "${wide[@]}"
simulate d 20 5004 4 "${organs[@]}"
# The classifier of regions.
simulate j1 48 7001 4 "${wide[@]}" "${organs[@]}"
simulate j2 16 7002 4 "${organs[@]}"
simulate j3 90 7003 4 "${wide[@]}" "${organs[@]}"
simulate j4 60 7004 5 "${wide[@]}"
simulate j5 40 7005 4 "${organs[@]}"
# Judging: other seeds, other organs.
simulate t1 30 6001 4 "${wide[@]}" --organs "$out/maps_test"
simulate t2 15 6002 4 --organs "$out/maps_test"
simulate t3 40 6003 4 "${wide[@]}" --organs "$out/maps_test"

convert() { # ID NAME START WINDOW
    [ -d "$nnUNet_raw/Dataset0$1_$2" ] ||
        nnUNetv2_mip_convert_autopet -i "$out/simulated/$2" -d "$1" --name "$2" --views 12 \
            --start "$3" --window "$4" --pixel_mm 2 -np "${PROCESSES:-2}"
}
[ -d "$nnUNet_raw/Dataset010_DMIAI" ] || nnUNetv2_mip_convert_dmiai -i "$data" -d 10 --controls all
convert 21 a 0 10
convert 22 b 8 7
convert 23 c 4 14
convert 24 d 5 10
[ -d "$nnUNet_raw/$name" ] ||
    nnUNetv2_mip_merge_datasets -d 10 21 22 23 24 -o 30 --name Mixed \
        --sources dmiai phantom phantom phantom phantom
for preset in cpu_4mm cpu_3mm; do
    [ -f "$nnUNet_preprocessed/$name/nnUNetMIPPlans_$preset.json" ] ||
        nnUNetv2_mip_plan_and_preprocess -d 30 --preset $preset
done
# Each part starts from the network of the one before, or where it was stopped itself.
for fold in "$@" all; do
    for part in "${parts[@]}"; do
        own="${trainer}_${part%:*}" pixels="${plans}_${part#*:}"
        [ -f "$results/${own}__${pixels}__2d/fold_$fold/checkpoint_final.pth" ] ||
            nnUNetv2_train 30 2d "$fold" -p "$pixels" -tr "$own" -device cpu --c
    done
done

# An image in one piece, 16 views of a volume (docs/results).
set_up() { # FOLDER [THRESHOLD]
    python - "$@" <<'PYTHON'
import sys
from dataclasses import replace

from nnunetv2_mip.inference.config import InferenceConfig

folder, *threshold = sys.argv[1:]
config = InferenceConfig.load(folder)
config = replace(config, views=16, tiling="whole", prefilter="impulse")
config = replace(config, fusion=replace(config.fusion, outline_share=0.4))
if threshold:
    config = replace(config, threshold=float(threshold[0]))
config.save(folder)
PYTHON
}
five=false
[ "$(printf '%s\n' "$@" | sort -u | tr -d '\n')" = 01234 ] && five=true
set_up "$model" 0.4
if [ -n "${IMAGES:-}" ]; then
    five=false
elif [ $# -gt 0 ]; then
    set_up "$images"
    python "$here/recipes.py" -d 30 -o "$out/scores" --folds "$@" --copies clean perturbed --prefilter impulse "mixed=$images"
fi
if [ -n "${IMAGES:-}" ]; then
    : # As it is.
elif $five; then
    nnUNetv2_mip_calibrate -m "$images" --write --healthy \
        -i "$out/scores/mixed/probabilities/clean" "$out/scores/mixed/probabilities/perturbed"
else
    set_up "$images" 0.4
fi
nnUNetv2_mip_calibrate_regions -m "$model" -f all -o "$out/regions" --write -device cpu \
    -i "$out"/simulated/j[1-5]
# Ours, of an earlier run: with more folds there is another threshold to write.
rm -rf "$out/mip_pet"
nnUNetv2_mip_export_model -m "$model" --images "$images" -o "$out/mip_pet" -f all
if [ -f "$images/classifier.npz" ]; then
    cp "$images/classifier.npz" "$out/mip_pet/images/"
elif $five; then
    python "$here/classification.py" bundle -d 10 --network "$images" --bundled "$out/mip_pet/images" \
        --splits "$nnUNet_raw/Dataset010_DMIAI/splits_final.json" -o "$out/classification" --write
fi
python "$here/../autopet/simulated_patients.py" -o "$out/judged" "$out"/simulated/t[1-3] \
    "plain=$out/mip_pet"' {"regions": null, "fusion": {"view_threshold": 0.5, "outline_share": 0}}' \
    "outlines=$out/mip_pet"' {"regions": null, "fusion": {"view_threshold": 0.5}}' "model=$out/mip_pet"
