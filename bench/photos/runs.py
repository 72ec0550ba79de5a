"""The runs of the bench: the phases of each by train.py and fine_tune.py, then the tests of its last checkpoint."""

import json
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.photos.arms import ARMS, COMMON, DETECTOR, EPOCHS, NETWORK, NETWORKS, SETTINGS
from bench.photos.conflict import BY
from bench.photos.data import photographs_of, tests_of
from bench.runner import REPO, RESULT, make_masks
from timm_repaint.claim import MANIFEST_NAME, claim
from timm_repaint.files import write_text
from timm_repaint.options.conflicts import resolve_repaint_epochs

TESTS = 'tests.json'


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Attributes:
        data: The folder of data sets.
        weights: Of the network on ImageNet.
        output: For runs, masks and subsets.
        corruptions: Whether checkpoints are tested on corrupted validation photographs too.
        conflicts: Whether classifiers are tested on pictures of one class's shapes and another's textures too.
        network: What trains as a classifier.
        epochs: In place of the bench's number.
    """

    data: Path
    weights: Path
    output: Path
    corruptions: bool = False
    conflicts: bool = False
    network: str = NETWORK
    epochs: int | None = None

    def label(self, setting: str) -> str:
        """A setting's name in results: other networks and numbers of epochs have results of their own."""
        words = [setting] if self.network == NETWORK else [setting, self.network]
        return '-'.join(words if self.epochs is None else [*words, f'{self.epochs}-epochs'])


@dataclass(frozen=True)
class Run:
    """An arm in a setting with a seed; see `bench.runner.BenchRun`."""

    setting: str
    arm: str
    seed: int
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    needs: Path | None = None

    @property
    def name(self) -> str:
        return self.folder.name


def images_of(place: Place, name: str) -> Path:
    """The training photographs of a setting as a folder with `train/`: links to the first ones of each class."""
    setting = SETTINGS[name]
    source = (place.data / setting.folder).resolve()
    if setting.per_class is None:
        return source
    target = place.output / 'images' / name
    for images in photographs_of(source / 'train').values():
        for image in images[: setting.per_class]:
            link = target / image.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink() and link.readlink() != image:  # the photographs were moved
                link.unlink()
            if not link.is_symlink():
                link.symlink_to(image)
    return target


def masks_of(place: Place, name: str) -> None:
    """Masks of a setting's training photographs, made once."""
    make_masks(images_of(place, name) / SETTINGS[name].training, place.output / 'masks' / name, workers=1)


def corrupted_of(place: Place, name: str) -> Path:
    """Where a setting's corrupted validation photographs are; settings of one folder share them."""
    return place.output / 'corrupted' / SETTINGS[name].folder


def conflicts_of(place: Place, name: str) -> Path:
    """Where the pictures of a setting are whose shapes and textures are those of different classes."""
    return place.output / 'conflicts' / SETTINGS[name].folder


def plan_run(place: Place, setting: str, arm: str, seed: int) -> Run:
    """A run with its commands; each goes on from what an earlier try left."""
    folder = place.output / 'runs' / f'{place.label(setting)}-{arm}-seed{seed}'
    *phases, last = plan_phases(place, setting, arm, seed, folder)
    tests = plan_tests(place, setting, folder / 'fine_tune' if ARMS[arm].first else folder, folder / TESTS)
    commands = [(sys.executable, *command) for command in (*phases, last, tests)]
    return Run(place.label(setting), arm, seed, folder, tuple(commands))


def claim_run(place: Place, setting: str, arm: str, folder: Path) -> None:
    """Note in a run's folder with which options its arm trains; a folder of before they were noted is left alone.

    Raises:
        UsageError: If it was begun with others, as an arm may have had in another version.
    """
    first, both, shared = ARMS[arm].first, ARMS[arm].both, f'{COMMON} {NETWORKS[place.network].options}'
    if SETTINGS[setting].detects:
        both, shared = ARMS[arm].detector or '', DETECTOR
    if not folder.exists() or (folder / MANIFEST_NAME).is_file():
        claim(folder, {'first phase': first, 'both phases': both, 'all arms': shared})


def plan_tests(place: Place, name: str, last_phase: Path, out: Path) -> list[str]:
    """The command that tests the last checkpoint of a run and writes `out`."""
    setting = SETTINGS[name]
    source = (place.data / setting.folder).resolve()
    corrupted = ['--corrupted', str(corrupted_of(place, name))] if place.corruptions else []
    if setting.detects:
        return ['-m', 'bench.photos.evaluate_detector', str(last_phase), str(out), str(source), *corrupted]
    splits = [str(folder) for folder in tests_of(source)]
    splits += [str(conflicts_of(place, name) / by) for by in BY if place.conflicts]
    train = str(images_of(place, name) / setting.training)
    words = ['-m', 'bench.photos.evaluate', str(last_phase / 'last.pth.tar'), place.network, train, str(out)]
    return [*words, *splits, *corrupted, *NETWORKS[place.network].options.split()]


def plan_phases(place: Place, setting: str, name: str, seed: int, folder: Path) -> list[list[str]]:
    """The commands that train; the last one leaves the checkpoint that counts."""
    arm, detects = ARMS[name], SETTINGS[setting].detects
    base = [*(train_detector if detects else train_classifier)(place, setting, name), '--val-split', '']
    base += ['--seed', str(seed), *([] if place.epochs is None else ['--epochs', str(place.epochs)])]
    if arm.reads_masks:
        base += ['--mask-dir', str(place.output / 'masks' / setting)]
    place_of_run = ('--output', str(folder.parent), '--experiment', folder.name, '--resume', 'auto')
    first = [*base, *place_of_run, *shlex.split(arm.first)]
    if not arm.first:
        return [first]
    if arm.repaints:
        script = ['-m', 'timm_repaint.detection.fine_tune'] if detects else [str(REPO / 'fine_tune.py')]
        return [first, [*script, str(folder), '--resume', 'auto']]
    epochs = Namespace(epochs=place.epochs or EPOCHS, repaint_epochs=None)
    last = [*base, '--output', str(folder), '--experiment', 'fine_tune', '--resume', str(folder / 'last.pth.tar')]
    return [[*first, '--stop-epoch', str(resolve_repaint_epochs(epochs))], last]


def train_classifier(place: Place, setting: str, arm: str) -> list[str]:
    """train.py with the options that both phases of an arm have in a setting."""
    images = images_of(place, setting)
    classes = len(photographs_of(images / 'train'))
    network = NETWORKS[place.network]
    weights = ('--pretrained', '--pretrained-path', str(place.weights), '--lr', network.lr, *network.options.split())
    command = [str(REPO / 'train.py'), str(images), '--num-classes', str(classes), '--model', place.network]
    return [*command, *COMMON.split(), *weights, *shlex.split(ARMS[arm].both.format(epochs=place.epochs or EPOCHS))]


def train_detector(place: Place, setting: str, arm: str) -> list[str]:
    """The same for a detector, whose classes are those of its annotations."""
    weights = ('--pretrained-backbone-path', str(place.weights))
    command = ['-m', 'timm_repaint.detection.train', str(images_of(place, setting))]
    return [*command, *DETECTOR.split(), *weights, *shlex.split(ARMS[arm].detector or '')]


def leave_result(run: Run, seconds: float) -> None:
    """Write a run's result, and remove what takes tens of MB."""
    row = {'setting': run.setting, 'arm': run.arm, 'seed': run.seed, **json.loads((run.folder / TESTS).read_text())}
    write_text(run.folder / RESULT, json.dumps({**row, 'seconds': round(seconds)}))
    for checkpoint in run.folder.rglob('*.pth.tar'):
        checkpoint.unlink()
    shutil.rmtree(run.folder / 'tensorboard', ignore_errors=True)


def without(place: Place, done: Sequence[Run]) -> list[str]:
    """The names of finished runs that were not tested on what is asked for now, and whose checkpoints are gone."""
    wanted = [{'corrupted', 'corrupted mAP'}] * place.corruptions + [{*BY, 'mAP'}] * place.conflicts
    found = {run.name: json.loads((run.folder / RESULT).read_text()).keys() for run in done}
    return [name for name, keys in found.items() if any(keys.isdisjoint(tests) for tests in wanted)]


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The results of all runs so far, those of earlier calls too."""
    return [json.loads(path.read_text()) for path in sorted(output.glob(f'runs/*/{RESULT}'))]
