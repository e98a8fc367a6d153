#!/usr/bin/env bash
# Build the image. MODEL is the folder of the model that goes into it.
#
#     [MODEL=FOLDER] [IMAGE=NAME] container/grand_challenge/build.sh
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
IMAGE="${IMAGE:-nnunetv2-mip-grand-challenge}"
MODEL="${MODEL:-$ROOT/nnunetv2_mip/models/mip_pet}"

if [ ! -f "$MODEL/plans.json" ]; then
    echo "$MODEL: is not a model folder (no plans.json); name one by MODEL=FOLDER" >&2
    exit 2
fi
# BuildKit knows --build-context and Dockerfile.dockerignore.
DOCKER_BUILDKIT=1 docker build \
    --platform linux/amd64 \
    --build-context "model=$MODEL" \
    --file "$HERE/Dockerfile" \
    --tag "$IMAGE" \
    "$ROOT"
