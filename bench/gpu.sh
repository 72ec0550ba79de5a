#!/bin/bash
# What Repaint costs on a GPU, in ten minutes: bench/gpu.sh OUT [PART ...]
#
# Each part takes four minutes at most and leaves OUT/PART/*.json and OUT/PART.log; one that fails does not stop the
# others, and all parts can be run one by one. DEVICE, MODEL, MODELS, PX, BATCHES, STEPS, ROUNDS and LIMIT_S (of a part)
# set another machine or smaller sizes, IMAGES other photographs for masks than scikit-image's own. To try it:
# DEVICE=cpu MODEL=test_resnet MODELS=test_resnet PX=32 BATCHES='2 2 2' STEPS=3 ROUNDS=1 bench/gpu.sh OUT
set -u
parts=(machine count32 count128 kernels b32 b128 b256 models compile masks)
[ $# -ge 1 ] || { echo "usage: $0 OUT [PART ...]; parts: ${parts[*]}" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) && shift || exit 1
cd "$(dirname "$0")/.." || exit 1
[ $# -ge 1 ] && parts=("$@")
limit=${LIMIT_S:-240} device=${DEVICE:-cuda} model=${MODEL:-resnet50} px=${PX:-224} rounds=${ROUNDS:-3}
read -ra models <<< "${MODELS:-mobilenetv2_100 efficientnet_b0}"
read -r small middle large <<< "${BATCHES:-32 128 256}"
half=(--amp --amp-dtype bfloat16 --channels-last)

# 30 steps a timing, so that a log line in it does not count.
bench() {
  timeout "$limit" python -m bench.cost --img-size "$px" --rounds "$rounds" --output "$dir" "$@"
}
count() {
  timeout "$limit" python -m bench.count_ops --device "$device" --model "$model" --img-size "$px" \
    --output "$dir/count.json" "$@"
}
run() {
  case $1 in
    machine) python -c 'import json, platform, torch
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
print(json.dumps({"gpu": str(gpu), "torch": torch.__version__, "host": platform.platform()}))' \
      > "$dir/machine.json" ;;
    count32) count --batch "$small" --where ;;
    count128) count --batch "$middle" --where --options="${half[*]}" ;;
    kernels) count --batch "$middle" --options="${half[*]}" --last-step ;;
    b32) bench --models "$model" --batch-size "$small" --steps "${STEPS:-30}" -- --device "$device" ;;
    b128) bench --models "$model" --batch-size "$middle" --steps "${STEPS:-30}" -- --device "$device" "${half[@]}" ;;
    b256) bench --models "$model" --batch-size "$large" --steps "${STEPS:-15}" -- --device "$device" "${half[@]}" ;;
    models) bench --models "${models[@]}" --batch-size "$middle" --steps "${STEPS:-30}" -- \
      --device "$device" "${half[@]}" ;;
    compile) bench --models "$model" --batch-size "$middle" --steps "${STEPS:-15}" --variants compile -- \
      --device "$device" "${half[@]}" ;;
    masks) timeout "$limit" python -m bench.masks --cutting-only --device "$device" --rounds "$rounds" \
      --output "$dir/masks.json" "${IMAGES:-$(python -c 'import skimage.data; print(skimage.data.__path__[0])')}" ;;
    *) echo "unknown part $1" >&2; return 2 ;;
  esac
}
failed=0
for part in "${parts[@]}"; do
  dir=$out/$part start=$SECONDS
  mkdir -p "$dir"
  if run "$part" > "$dir.log" 2>&1; then told='done'; else told="failed, see $dir.log" failed=1; fi
  echo "$part: $told, $((SECONDS - start)) s"
done
exit $failed
