"""The runs and their command lines, worked out before anything starts."""

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.evidence.arms import ARMS, CHECKPOINT, Arm
from bench.evidence.data import Subset
from bench.runner import REPO
from timm_repaint.errors import UsageError
from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.options.conflicts import parse_schedule, resolve_repaint_epochs
from timm_repaint.options.roles import REPAINT_OPTIONS
from timm_repaint.options.run_file import FINE_TUNE

LAST = 'last.pth.tar'


@dataclass(frozen=True)
class Run:
    """An arm with some images and a seed: two phases in one folder.

    Attributes:
        folder: of the first phase; the second is in fine_tune/ below.
        options: of the first phase, as train.py reads them.
        commands: one for each phase; a single one if the first phase has all epochs.
        needs: folder of the run that comes first, if any.
    """

    subset: Subset
    arm: Arm
    seed: int
    folder: Path
    options: argparse.Namespace
    commands: tuple[tuple[str, ...], ...]
    needs: Path | None

    @property
    def name(self) -> str:
        return f'{self.subset.name} {self.arm.name}, seed {self.seed}'

    @property
    def epochs(self) -> tuple[int, ...]:
        """Number of epochs after each phase."""
        phase = phase_epochs(self.options)
        return (phase,) if len(self.commands) == 1 else (phase, self.options.epochs)

    @property
    def stored_masks(self) -> bool:
        return bool(self.options.repaint and self.options.mask_dir)


@dataclass(frozen=True)
class Place:
    """What the runs of a bench share.

    Attributes:
        output: folder of the bench.
        extra: options of train.py for every run.
    """

    output: Path
    extra: tuple[str, ...] = ()

    def run_folder(self, subset: Subset, arm: str, seed: int) -> Path:
        return self.output / 'runs' / subset.name / arm / f'seed-{seed}'


def plan_runs(subsets: Sequence[Subset], arms: Sequence[Arm], seeds: Sequence[int], place: Place) -> list[Run]:
    """All runs, seed by seed, so that arms can be compared after the first seed already.

    Raises:
        UsageError: if train.py does not know an arm's options.
    """
    return [plan_run(subset, arm, seed, place) for seed in seeds for subset in subsets for arm in arms]


def plan_run(subset: Subset, arm: Arm, seed: int, place: Place) -> Run:
    """One run with its commands.

    Raises:
        UsageError: if train.py does not know its options.
    """
    folder = place.run_folder(subset, arm.name, seed)
    needs = place.run_folder(subset, arm.needs, seed) if arm.needs else None
    checkpoint = str(needs / LAST) if needs else CHECKPOINT
    common = ['-c', str(subset.recipe), *subset.options(place.output)]

    def words(options: str) -> list[str]:
        arm_options = [checkpoint if word == CHECKPOINT else word for word in shlex.split(options)]
        return [*common, *arm_options, *place.extra, '--seed', str(seed), *epochs]

    epochs: list[str] = []
    if arm.samples_of:
        other = ARMS[arm.samples_of]
        epochs = ['--epochs', str(epochs_of_samples(parse_words(words(other.options), other.name)))]
    first = [*words(arm.options), '--output', str(folder.parent), '--experiment', folder.name]
    options = parse_words(first, arm.name)
    if options.repaint and uses_default_masks(options) and not subset.drawn:
        first += ['--mask-dir', str(subset.masks(place.output))]
        options = parse_words(first, arm.name)
    phase = phase_epochs(options)
    train, fine_tune = ((sys.executable, str(REPO / script)) for script in ('train.py', 'fine_tune.py'))
    if not options.repaint:
        first += ['--stop-epoch', str(phase)]
    commands = [(*train, *first)]
    if phase < options.epochs:
        second = ['--resume', str(folder / LAST), '--output', str(folder), '--experiment', FINE_TUNE]
        commands.append((*fine_tune, str(folder)) if options.repaint else (*train, *words(arm.both), *second))
    return Run(subset, arm, seed, folder, options, tuple(commands), needs)


def parse_words(words: Sequence[str], arm: str) -> argparse.Namespace:
    """The options as train.py reads them.

    Raises:
        UsageError: if it refuses one.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_args(build_parser(), build_config_parser(), words)[0]
    except SystemExit:
        reason = said.getvalue().strip().rpartition('\n')[2].partition('error: ')[2]
        raise UsageError(f'arm {arm}: train.py refuses its options: {reason}') from None


def uses_default_masks(options: argparse.Namespace) -> bool:
    """Whether the masks are those that the bench makes beforehand."""
    parser = build_parser()
    mask_options = [name for name in vars(options) if name.startswith(('mask', 'fh_')) and name in REPAINT_OPTIONS]
    return all(getattr(options, name) == parser.get_default(name) for name in mask_options)


def phase_epochs(options: argparse.Namespace) -> int:
    """Number of epochs of the first phase, the same with and without repaints."""
    return min(resolve_repaint_epochs(options), options.epochs)


def epochs_of_samples(options: argparse.Namespace) -> int:
    """Epochs of plain training in which the classifier sees as many samples as in a repaint run.

    In the repaint phase a batch is larger by its share of repaints with `--repaint-mix both`; and it learns from every
    batch but, with `--repaint-separate-batches`, those of the generator: one of three at a schedule of 2:1.
    """
    share = 1.0 + (options.repaint_prob if options.repaint_mix == 'both' else 0)
    if options.repaint_separate_batches:
        task_updates, generator_updates = parse_schedule(options.repaint_schedule)
        share *= task_updates / (task_updates + generator_updates)
    phase = phase_epochs(options)
    return round(phase * share + options.epochs - phase)
