"""The runs of the tables' recipes: which a folder holds, whether it is finished, and its accuracy."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from timm_repaint.errors import UsageError
from timm_repaint.options.config import check_config, load_config
from timm_repaint.options.parser import build_parser
from timm_repaint.report.mini.plan import FINE_TUNE
from timm_repaint.report.mini.results import UnfinishedError, read_last_row

RECIPES = Path(__file__).parents[1] / 'recipes' / 'tables'
ARGS = 'args.yaml'
SEED_ENDING = re.compile(r'-seed[0-9]+$')  # of the names of runs that differ in nothing else
# What a smaller trial of a recipe may change, with a remark; any other option makes it another run.
SCALE = ('epochs', 'repaint_epochs', 'stop_epoch', 'warmup_epochs', 'batch_size', 'img_size')
# Recipes that go on from the checkpoint of another one's run.
FIRST_PHASES = {'resnet50-shape-resnet': 'resnet50-shape-resnet-stylized'}


@dataclass(frozen=True)
class TableRun:
    """A finished run of a recipe.

    Attributes:
        folder: Of the run; with repaints, of its first phase.
        recipe: Name of the recipe.
        seed: Of the run.
        metrics: 'top1' and 'top5' on the validation images after the last epoch, %.
        scaled: Options of scale that differ from the recipe, as 'epochs 2 (recipe: 200)'.
    """

    folder: Path
    recipe: str
    seed: int
    metrics: dict[str, float]
    scaled: tuple[str, ...]


class UnfitRunError(Exception):
    """A folder that gives the tables no figure, with the reason."""


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs among and below `folders`; fine-tune phases belong to the run above them.

    Raises:
        UsageError: if a folder holds none.
    """
    found: list[Path] = []
    for folder in folders:
        runs = [path.parent for path in sorted(folder.rglob(ARGS)) if path.parent.name != FINE_TUNE]
        if not runs:
            raise UsageError(f'{folder} holds no run: there is no {ARGS} in it or below')
        found += runs
    return list(dict.fromkeys(path.resolve() for path in found))


def read_runs(folders: Sequence[Path]) -> tuple[list[TableRun], list[str]]:
    """The finished runs of recipes in the folders, and a remark on each folder that is none.

    Raises:
        UsageError: if two runs have the same recipe and seed.
    """
    runs: dict[tuple[str, int], TableRun] = {}
    remarks = []
    for folder in find_runs(folders):
        try:
            run = read_run(folder)
        except UnfitRunError as error:
            remarks.append(f'{folder} is left out: {error}')
            continue
        twin = runs.setdefault((run.recipe, run.seed), run)
        if twin is not run:
            raise UsageError(
                f'{twin.folder} and {folder} are both seed {run.seed} of {run.recipe}; name only one of them'
            )
        if run.scaled:
            remarks.append(f'{folder} is a smaller trial of {run.recipe}: {", ".join(run.scaled)}')
    return list(runs.values()), remarks


def read_run(folder: Path) -> TableRun:
    """A finished run of a recipe.

    Raises:
        UnfitRunError: if it is of another recipe, of none, or not finished.
    """
    options = _read_options(folder)
    name = SEED_ENDING.sub('', str(options.get('experiment')))
    recipes = load_recipes()
    if name not in recipes:
        raise UnfitRunError(f'no recipe of the tables has its --experiment {options.get("experiment")!r}')
    recipe = recipes[name]
    differ = {
        key: f'{key} {options.get(key)} (recipe: {wanted})'
        for key, wanted in recipe.items()
        if options.get(key) != wanted
    }
    other = [text for key, text in differ.items() if key not in SCALE]
    if other:
        raise UnfitRunError(f'it is of another recipe than {name}: {", ".join(other)}')
    first_phase = FIRST_PHASES.get(name)
    if first_phase and first_phase not in str(options['resume']):
        raise UnfitRunError(f'it did not go on from a run of {first_phase} (--resume)')
    last, epochs = folder, options['stop_epoch'] or options['epochs']
    if recipe['repaint']:
        last = folder / FINE_TUNE
        epochs = _read_options(last)['epochs']
    try:
        row = read_last_row(last, epochs)
    except UnfinishedError as error:
        raise UnfitRunError(f'it is not finished: {error}') from None
    metrics = {'top1': row['eval_top1'], 'top5': row['eval_top5']}
    return TableRun(folder, name, options['seed'], metrics, tuple(differ.values()))


def _read_options(folder: Path) -> dict[str, Any]:
    path = folder / ARGS
    try:
        options = yaml.safe_load(path.read_text())
    except OSError:
        raise UnfitRunError(f'it is not finished: there is no {path}') from None
    except yaml.YAMLError as error:
        raise UnfitRunError(f'{path} is not YAML: {error}') from None
    if not isinstance(options, dict):
        raise UnfitRunError(f'{path} does not hold the options of a run')
    return options


@cache
def load_recipes(folder: Path = RECIPES) -> dict[str, dict[str, Any]]:
    """By name: each option that any of the recipes sets, with the value that this one gives it.

    Raises:
        UsageError: if a recipe names an option that there is not.
    """
    parser = build_parser()
    read = {path.stem: load_recipe(parser, path) for path in sorted(folder.glob('*.yaml'))}
    keys = {key: parser.get_default(key) for options in read.values() for key in options}
    del keys['experiment']
    return {name: {key: options.get(key, default) for key, default in keys.items()} for name, options in read.items()}


def load_recipe(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """The options that a recipe sets.

    Raises:
        UsageError: if it names an option that there is not.
    """
    config = load_config(parser, str(path))
    unknown = sorted(map(str, config.keys() - {action.dest for action in parser._actions}))
    if unknown:
        raise UsageError(f'{path} names {", ".join(unknown)}, but no option is called so; correct the name')
    return check_config(parser, config, str(path))
