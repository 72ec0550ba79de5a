"""What a run says after each epoch and at its end: how good it is, where its files are, what to run next."""

import os
import shlex
from pathlib import Path

from tqdm import tqdm

from timm_repaint.engine.parts import Run
from timm_repaint.log import logger
from timm_repaint.options.conflicts import resolve_repaint_epochs


def announce_epoch(run: Run, epoch: int, latest: float, epoch_s: float) -> None:
    """Log the epoch's figure, the best one so far and what is left.

    Args:
        run: The run.
        epoch: Counted from 0; just validated.
        latest: The metric that picks the best epoch.
        epoch_s: Seconds, with validation and pictures.
    """
    words = [f'{run.metric} {latest:.2f}']
    if best := best_so_far(run):
        words.append(f'best {best}')
    words.append(f'took {tqdm.format_interval(epoch_s)}')
    if left := run.plan.stop_epoch - epoch - 1:
        words.append(f'{left} more to go, about {tqdm.format_interval(left * epoch_s)}')
    logger.info('Epoch %d: %s.', epoch, ', '.join(words))


def best_so_far(run: Run) -> str:
    """'63.00 (epoch 2)'; '' before there is one."""
    saver = run.output.saver
    return '' if saver is None or saver.best_metric is None else f'{saver.best_metric:.2f} (epoch {saver.best_epoch})'


def announce_end(run: Run, completed: int, fine_tune_command: str) -> None:
    """Log where the files of a repaint or fine-tune phase are and what to run next.

    Args:
        run: The run.
        completed: Epochs of the whole schedule that are done.
        fine_tune_command: What the user types, ahead of the run's folder, for the second phase.
    """
    if run.output.folder is None:
        return
    total, folder = run.plan.num_epochs, Path(run.output.folder)
    of_both_phases = shlex.quote(str(folder if run.repaint is not None else folder.parent))
    of_repaint = resolve_repaint_epochs(run.args) if run.repaint is not None else 0
    checkpoint = 'last.pth.tar' if run.repaint is not None else 'model_best.pth.tar'
    if completed < (of_repaint or total):
        state, following = 'Stopped early', 'the same command with --resume auto'
        if run.args.stop_epoch:
            following += ' and without --stop-epoch'
    elif completed < total:
        state, following = 'Repaint phase done', f'{fine_tune_command} {shlex.quote(str(folder))}'
    else:
        state, following = 'Done', f'timm-repaint paint {of_both_phases} IMAGES REPAINTS'
    best = f' Best {run.metric}: {best}.' if (best := best_so_far(run)) else ''
    logger.info('%s: %d of %d epochs.%s', state, completed, total, best)
    pictures = sorted(folder.glob('gallery-*.png'), key=os.path.getmtime)[-1:]
    for name, what in (
        ('checkpoint', folder / checkpoint),
        *(('pictures', path) for path in pictures),
        ('figures', folder / 'summary.csv'),
        ('page', f'timm-repaint report html {of_both_phases}'),
        ('next', following),
    ):
        logger.info('    %-10s  %s', name, what)
