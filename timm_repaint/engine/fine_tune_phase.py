"""The options of the fine-tune phase: those of a `--repaint` run, set up to go on from its last checkpoint."""

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import yaml
from timm.utils import load_checkpoint_metadata

from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.masks.manifest import sha256
from timm_repaint.options import build_config_parser
from timm_repaint.options import parse_args as parse_options
from timm_repaint.options.conflicts import resolve_repaint_epochs
from timm_repaint.options.option_files import convert_values
from timm_repaint.options.roles import REPAINT_OPTIONS, Role
from timm_repaint.options.run_file import ARGS, FINE_TUNE, STARTED_FROM, is_detection, read_args, read_repaint_args
from timm_repaint.weights import unreadable

CHECKPOINT = 'last.pth.tar'
CLASSIFICATION_COMMAND = 'timm-repaint fine-tune'
DETECTION_COMMAND = 'timm-repaint detect fine-tune'


def parse_args(
    parser: ArgumentParser, train_command: Sequence[str], argv: Sequence[str] | None = None
) -> tuple[Namespace, str]:
    """The run's options with those of the command line on top, set up for the fine-tune phase.

    Stops with the parser's error if the folder has no checkpoint, is no repaint run, or its repaint phase is not done.

    Args:
        parser: The script's, with RUN_DIR; gets the run's options as defaults.
        train_command: What starts the script of the repaint phase, for advice.
        argv: The command line; None: that of the process.
    """
    run_dir = parser.parse_args(argv).run_dir
    own = REPAINT_OPTIONS | Role.START.names  # T goes on with its optimizer's state and its place in the schedule
    try:
        run_options = read_options(run_dir, parser)
        kept = {name: value for name, value in run_options.items() if name not in own}
        kept = convert_values(parser, kept, os.path.join(run_dir, ARGS))
    except UsageError as error:  # also of a file that was edited by hand
        parser.error(str(error))
    parser.set_defaults(**{**kept, 'output': run_dir, 'experiment': FINE_TUNE})
    args, _ = parse_options(parser, build_config_parser(), argv)
    if args.repaint:
        parser.error(
            'fine-tuning is on originals, but --repaint is set; leave it out, and -c of a file that sets it: the other '
            'options of the run are taken over'
        )
    start = os.path.join(run_dir, CHECKPOINT)
    args.started_from = sha256(start) if os.path.isfile(start) else None
    folder = os.path.join(args.output, args.experiment)
    if not args.resume or (args.resume == 'auto' and not goes_on(run_dir, folder, args.started_from)):
        args.resume = start
        check_phase(args, Namespace(**run_options), parser, train_command)
        args.no_resume_opt |= optimizer_differs(args, run_options)
    del args.run_dir
    return args, yaml.safe_dump(vars(args), default_flow_style=False)


def goes_on(run_dir: str, folder: str, digest: str | None) -> bool:
    """Whether a run has a fine-tuning to go on with: one that started from the checkpoint that the run has now.

    Args:
        run_dir: The run's folder.
        folder: The fine-tuning's.
        digest: Of its last checkpoint; None without one.
    """
    if not os.path.isfile(os.path.join(folder, CHECKPOINT)):
        return False
    theirs = read_args(folder).get(STARTED_FROM)  # earlier versions did not note it
    if digest is None or theirs in (None, digest):
        return True
    logger.warning('%s was trained again since its fine-tuning in %s began: it starts anew.', run_dir, folder)
    return False


def epochs_done(checkpoint: str) -> int:
    """How many epochs a training had done when it wrote a checkpoint.

    Raises:
        UsageError: if the file is no checkpoint of a training.
    """
    try:
        content = load_checkpoint_metadata(checkpoint)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise unreadable(checkpoint, error.__cause__ if isinstance(error.__cause__, Exception) else error) from error
    epoch = content.get('epoch') if isinstance(content, dict) else None
    if not isinstance(epoch, int) or epoch < 0:
        raise UsageError(f'{checkpoint} is no checkpoint of a training: it has no epoch')
    return epoch + 1


def optimizer_differs(args: Namespace, run_options: dict[str, Any]) -> bool:
    """Whether an option of the optimizer is another one than in the run; then the optimizer starts afresh."""
    changed = [name for name in sorted(Role.OPTIMIZER.names) if getattr(args, name) != run_options.get(name)]
    if changed:
        logger.info('The optimizer starts afresh, with another %s than the repaint phase.', ', '.join(changed))
    return bool(changed)


def read_options(run_dir: str, parser: ArgumentParser) -> dict[str, Any]:
    """The options of a repaint run from its `args.yaml`.

    Raises:
        UsageError: if it is none.
    """
    options = read_repaint_args(run_dir, 'RUN_DIR is the output folder of a run with --repaint')
    detection = is_detection(options)
    if detection != is_detection(vars(parser.parse_args([run_dir]))):
        other = DETECTION_COMMAND if detection else CLASSIFICATION_COMMAND
        parser.error(
            f'{run_dir} is a run of the other training script; fine-tune it with: {other} {shlex.quote(run_dir)}'
        )
    return options


def check_phase(args: Namespace, run_args: Namespace, parser: ArgumentParser, train_command: Sequence[str]) -> None:
    """Stop if the run has no checkpoint, its repaint phase is not complete, or nothing is left to do after it."""
    checkpoint = args.resume
    if not os.path.isfile(checkpoint):
        parser.error(f'{checkpoint} does not exist: the run has no checkpoint yet')
    done = epochs_done(checkpoint)
    wanted = resolve_repaint_epochs(run_args)
    warmup = args.warmup_epochs if args.warmup_prefix else 0
    if done >= args.epochs + args.cooldown_epochs + warmup:
        parser.error(f'nothing is left to fine-tune: all {done} epochs were repaint epochs; give more --epochs')
    if done < wanted:
        output, experiment = os.path.split(os.path.dirname(os.path.abspath(checkpoint)))
        options = os.path.join(output, experiment, ARGS)
        command = [*train_command, '-c', options, '--output', output, '--experiment', experiment]
        command += ['--resume', 'auto', *(['--stop-epoch', str(wanted)] if run_args.stop_epoch else [])]
        parser.error(
            f'{checkpoint} is at epoch {done} of the {wanted} of its repaint phase; finish it first: '
            f'{shlex.join(command)}'
        )
