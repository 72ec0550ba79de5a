#!/usr/bin/env bash
# Masks, the repaint phase and the fine-tune phase as three jobs, each after the one before has succeeded.
#   DATA=/data/imagenet MASKS=/data/masks NAME=r50 NODES=1 timm_repaint/recipes/slurm/submit.sh --model resnet50 -b 128
# The arguments are train.py's; the variables are those of the scripts (MASK_ARGS for masks), and those below.
set -euo pipefail

NODES=${NODES:-1}    # of the training and the fine-tuning
SHARDS=${SHARDS:-16} # jobs that make masks
export SHARDS DATA="${DATA:-/data/imagenet}" MASKS="${MASKS:?the folder for the masks, outside of DATA}"

scripts=$(dirname "${BASH_SOURCE[0]}")
if [[ -e $scripts/../../../train.py && -d $scripts/../../../timm_repaint ]]; then
    cd "$scripts/../../.." # a checkout: its jobs run there
    export REPO=$PWD
    scripts=timm_repaint/recipes/slurm
fi

# after JOB ...: submit a job that starts when JOB has succeeded, and is dropped if it failed; prints its number.
after() {
    local job=$1
    shift
    sbatch --parsable --dependency="afterok:$job" --kill-on-invalid-dep=yes "$@" | cut -d ';' -f 1
}

training=$scripts/train.sbatch
((NODES == 1)) || training=$scripts/train_nodes.sbatch
masks=$(sbatch --parsable --array="1-$SHARDS" "$scripts/masks.sbatch" | cut -d ';' -f 1)
train=$(after "$masks" --nodes="$NODES" "$training" "$@")
fine_tune=$(after "$train" --nodes="$NODES" "$scripts/fine_tune.sbatch")
echo "masks: job $masks, repaint phase: job $train, fine-tune phase: job $fine_tune"
