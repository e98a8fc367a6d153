#!/usr/bin/env bash
# Write the two files that are uploaded: the image, and the model on its own (the platform unpacks it
# at /opt/ml/model, in place of the one in the image, so that a new model needs no new image).
#
#     [MODEL=FOLDER] [IMAGE=NAME] container/grand_challenge/export.sh [FOLDER]
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
IMAGE="${IMAGE:-nnunetv2-mip-grand-challenge}"
MODEL="${MODEL:-$ROOT/nnunetv2_mip/models/mip_pet}"
export IMAGE MODEL
OUT="${1:-$PWD}"

"$HERE/build.sh"
mkdir -p "$OUT"
# Written beside, then renamed: a file that is there is whole.
docker save "$IMAGE" | gzip -c > "$OUT/.$IMAGE.partial"
mv "$OUT/.$IMAGE.partial" "$OUT/$IMAGE.tar.gz"
tar --create --gzip --directory "$MODEL" --file "$OUT/.model.partial" .
mv "$OUT/.model.partial" "$OUT/model.tar.gz"
ls -lh "$OUT/$IMAGE.tar.gz" "$OUT/model.tar.gz"
