# shellcheck shell=bash
# What the job scripts share.
#
# One srun task a GPU, without torchrun: that would end at SIGUSR1, and turn the exit code of a stopped run into 1.
# --signal=USR1@120 without "B:" reaches the tasks themselves, as does the SIGTERM of a preemption with a grace time.
# No trap: a job that is cancelled has to end, not to go back into the queue; and srun answers SIGTERM by killing its
# tasks, so passing it on would save nothing.

# launch CODE COMMAND...: run the command, then leave the job.
launch() {
    phase "$@"
    exit 0
}

# phase CODE COMMAND...: run the command, and leave the job if it fails. CODE is what it ends with if a signal stopped it
# with its work saved: then the job goes back into the queue. Any other code is the job's own.
phase() {
    local stopped=$1 status=0
    shift
    unset RANK LOCAL_RANK WORLD_SIZE # left over in the caller's shell, they would come before SLURM's
    read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # jobs that share a node differ; below Linux's ephemeral ports
    export MASTER_ADDR MASTER_PORT
    # A task that fails ends the others after five minutes, not at once: the first one may be saving. Since 22.05 srun
    # takes --cpus-per-task from its own command line only.
    srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=300 "$@" || status=$?
    if ((status == stopped)); then
        requeue
    fi
    ((status == 0)) || exit "$status"
}

# An array's own number stands for all its tasks, and is also SLURM_JOB_ID in the last of them.
requeue() {
    local job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    scontrol requeue "$job" || echo "error: job $job was stopped and cannot be requeued; submit it again to go on" >&2
}

# script NAME: the array `script` is what python starts: NAME.py of a checkout, the installed program where there is none,
# or the detector's with DETECTION=1.
# shellcheck disable=SC2329 # some scripts have no use for it
script() {
    if [[ -n ${DETECTION:-} ]]; then
        script=(-m "timm_repaint.detection.$1")
    elif [[ -d timm_repaint && -e $1.py ]]; then
        script=("$1.py")
    else
        script=(-m timm_repaint.cli "${1//_/-}")
    fi
}

# train ARGUMENT...: the training with the job script's variables, from the last checkpoint if there is one.
# shellcheck disable=SC2329 # some scripts have no use for it
train() {
    local words options=(--output "$OUTPUT" --experiment "$NAME" --seed "$SEED" --resume auto)
    [[ -z $RECIPE ]] || options+=(-c "$RECIPE")
    [[ -z $MASKS ]] || options+=(--mask-dir "$MASKS")
    IFS=$' \t\n' read -r -d '' -a words <<<"$ARGS" || true # ends at the end of the text, with 1
    script train
    launch 75 "$PYTHON" "${script[@]}" ${DATA:+"$DATA"} "${options[@]}" "${words[@]}" "$@"
}
