#!/usr/bin/env bash
# Build the image and run it as the platform does: no network, no capabilities, no new privileges,
# few processes, little shared memory, an empty /tmp, a read-only root and input, once for each
# kind of edition.
#
#     [INPUT=FOLDER] [GPU=1] [MOUNT_MODEL=FOLDER] container/grand_challenge/test.sh
#
# INPUT is an input folder (images/pet, images/ct and, for edition 4, lesion-clicks.json); without
# one a simulated patient is made. MOUNT_MODEL is mounted at /opt/ml/model instead of what is in the
# image, as the platform does with a model that was uploaded on its own.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
IMAGE="${IMAGE:-nnunetv2-mip-grand-challenge}"
export IMAGE
"$HERE/build.sh"

WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT
if [ -z "${INPUT:-}" ]; then
    # By the caller's own id, so that the caller can remove it.
    docker run --rm --network none --user "$(id -u):$(id -g)" --env HOME=/tmp \
        --volume "$WORK:/made" --entrypoint nnUNetv2_mip_phantom "$IMAGE" \
        -o /made/phantom -n 1 --spacing 4 --layout grand-challenge --clicks_per_study 3
    INPUT="$(echo "$WORK"/phantom/*/input)"
fi

options=(
    --rm
    --platform linux/amd64
    --network none
    --cap-drop ALL
    --security-opt no-new-privileges
    --pids-limit 256
    --shm-size 128m
    --memory "${MEMORY:-30g}"
    --read-only
    --tmpfs /tmp
)
if [ -n "${GPU:-}" ]; then options+=(--gpus all); fi
if [ -n "${MOUNT_MODEL:-}" ]; then options+=(--volume "$MOUNT_MODEL:/opt/ml/model:ro"); fi

editions=(1 3)
if [ -f "$INPUT/lesion-clicks.json" ]; then editions+=(4); fi
for edition in "${editions[@]}"; do
    output="$WORK/output_$edition"
    mkdir "$output"
    # The user of the image is another one than the caller.
    chmod 777 "$output"
    docker run "${options[@]}" --volume "$INPUT:/input:ro" --volume "$output:/output" \
        "$IMAGE" --edition "$edition" --strict
    # What the image wrote belongs to its user: let it be removed.
    docker run --rm --network none --user 0 --volume "$output:/output" --entrypoint chmod \
        "$IMAGE" -R a+rwX /output
    folder=automated-petct-lesion-segmentation
    if [ "$edition" = 4 ]; then folder=tumor-lesion-segmentation; fi
    found=("$output/images/$folder"/*.mha)
    if [ ! -s "${found[0]}" ]; then
        echo "edition $edition: no mask in images/$folder" >&2
        exit 1
    fi
    if [ "$edition" = 3 ] && [ ! -f "$output/data-centric-model.json" ]; then
        echo "edition 3: no data-centric-model.json" >&2
        exit 1
    fi
    echo "edition $edition: ${found[0]##*/}"
done
echo "all editions answered"
