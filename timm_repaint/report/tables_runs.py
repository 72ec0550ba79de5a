"""The runs of the tables' recipes: which a folder holds, whether it is finished, and the paper's figures.

The figures as printed, and the recipes that reproduce them, are in `paper_tables.csv`. A line there is a figure: its
table; its row, and where a row has several arms, the arm; its metric, a key of `METRICS`; the recipe in
`recipes/tables`, and the one that it is compared with, itself for the baseline; the value in %; the gain over the
baseline in percentage points, with the lowest and highest of five runs. What is not printed is empty.

Known faults of the print: Table 4's averages are the sums of its six rows divided by five, and the lowest average of
Table 5's DeepLab-v2 (1.17) is not that of its rows (1.02); no row of ours stands for averages. The DeepLab-v2 gains of
Tables 4 and 5 are those of Tables 1 and 2, so the masks of these are DeepLab-v2's.
"""

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from timm_repaint.detection.options import build_parser as build_detection_parser
from timm_repaint.errors import UsageError
from timm_repaint.optional import load_optional
from timm_repaint.options.bases import read_files
from timm_repaint.options.option_files import load_config
from timm_repaint.options.parser import build_parser
from timm_repaint.options.roles import REPAINT_OPTIONS, Role
from timm_repaint.options.run_file import ARGS, EARLIER, FINE_TUNE, read_args
from timm_repaint.report.summary import SUMMARY, UnfinishedError, read_last_row, read_rows

FIGURES = Path(__file__).with_name('paper_tables.csv')
# Columns of summary.csv, %.
METRICS = {'top1': 'eval_top1', 'top5': 'eval_top5', 'map': 'eval_map', 'ap50': 'eval_ap50'}
TITLES = {
    1: 'Top-1 accuracy on ImageNet',
    2: 'mAP@0.5:0.95 on COCO',
    3: 'Methods compared, ResNet-50, top-1 accuracy on ImageNet',
    4: 'Gains by source of the masks, top-1 on ImageNet',
    5: 'Gains by source of the masks, mAP@0.5:0.95 on COCO',
    6: 'ResNet-50 by share of the training images',
    7: 'EfficientDet-D0 by share of the training images',
}
RECIPES = Path(__file__).parents[1] / 'recipes' / 'tables'
DETECTION = RECIPES / 'detection'  # the recipes of timm_repaint.detection.train
SEED_ENDING = re.compile(r'-seed[0-9]+$')  # of the names of runs that differ in nothing else
# What a run may choose: where and how fast it computes, what it reads and writes under which name, what it prints.
FREE = Role.MACHINE.names | Role.DATA.names | Role.OUTPUT.names
# What a smaller trial of a recipe may change, with a remark; any other option makes it another run.
SCALE = Role.SCALE.names
# Of the repaint phase alone.
REPAINT_PHASES = REPAINT_OPTIONS | Role.START.names | {'no_resume_opt'}
# Recipes that go on from the checkpoint of another one's run.
FIRST_PHASES = {'resnet50-shape-resnet': 'resnet50-shape-resnet-stylized'}


@dataclass(frozen=True)
class TableRun:
    """A finished run of a recipe.

    Attributes:
        folder: Of the run; with repaints, of its first phase.
        recipe: Name of the recipe.
        seed: Of the run.
        metrics: Those of `METRICS` that it has, on the validation images after the last epoch, %.
        scaled: Options of scale that differ from the recipe, as 'epochs 2 (recipe: 200)'.
    """

    folder: Path
    recipe: str
    seed: int
    metrics: dict[str, float]
    scaled: tuple[str, ...]

    @property
    def scale(self) -> frozenset[str]:
        """The same without the recipe's values and what plain training has not: equal in trials that compare."""
        return frozenset(text.partition(' (')[0] for text in self.scaled if not text.startswith('repaint_'))


def load_pandas() -> Any:
    """pandas, which the tables are made with.

    Raises:
        UsageError: if it is not installed.
    """
    return load_optional('pandas', 'report tables')


@cache
def paper_figures() -> Any:
    """The figures as a data frame, in the order of the tables."""
    return load_pandas().read_csv(FIGURES)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs among and below `folders`; fine-tune phases belong to the run above them.

    Raises:
        UsageError: if a folder holds none.
    """
    found: list[Path] = []
    for folder in folders:
        runs = [path.parent for path in sorted(folder.rglob(ARGS)) if path.parent.name != FINE_TUNE]
        runs = [run for run in runs if not any(part.startswith(EARLIER) for part in run.relative_to(folder).parts)]
        if not runs:
            problem = f'holds no run: there is no {ARGS} in it or below' if folder.exists() else 'does not exist'
            raise UsageError(f'{folder} {problem}')
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
        except UsageError as error:
            remarks.append(f'{folder} is left out: {error}')
            continue
        twin = runs.setdefault((run.recipe, run.seed), run)
        if twin is not run:
            raise UsageError(f'{twin.folder} and {folder} are both seed {run.seed} of {run.recipe}; name one of them')
        if run.scaled:
            remarks.append(f'{folder} is a smaller trial of {run.recipe}: {", ".join(run.scaled)}')
    full = {run.recipe for run in runs.values() if not run.scaled}
    out = [run for run in runs.values() if run.scaled and run.recipe in full]
    remarks += [f'{run.folder} is left out: {run.recipe} has runs of full size' for run in out]
    first: dict[str, TableRun] = {}
    for run in (run for run in runs.values() if run not in out):
        if first.setdefault(run.recipe, run).scale != run.scale:
            out.append(run)
            remarks.append(f'{run.folder} is left out: {first[run.recipe].folder} is a trial of another size')
    return [run for run in runs.values() if run not in out], remarks


def read_run(folder: Path) -> TableRun:
    """A finished run of a recipe.

    Raises:
        UsageError: if it is of another recipe, of none, or not finished.
    """
    options = read_args(folder, 'it is not finished')
    if not {'experiment', 'seed', 'epochs'} <= options.keys():
        raise UsageError(f'{folder / ARGS} is not that of a run of train.py')
    name = SEED_ENDING.sub('', str(options['experiment']))
    recipes = load_recipes()
    if name not in recipes:
        raise UsageError(f'no recipe of the tables has its --experiment {options["experiment"]!r}')
    recipe = recipes[name]
    differ = find_differences(options, recipe, name)
    first_phase = FIRST_PHASES.get(name)
    if first_phase and not ((rows := read_rows(folder)[0]) and rows[0]['epoch'] > 0):
        raise UsageError(f'it began at epoch 0 instead of going on from a run of {first_phase} (--resume)')
    last, epochs = folder, options.get('stop_epoch') or options['epochs']
    if recipe['repaint']:
        last = folder / FINE_TUNE
        own = read_args(last, 'it is not finished')
        goes_on = {key: wanted for key, wanted in recipe.items() if key not in REPAINT_PHASES}
        differ |= find_differences(own, goes_on, f'{name}, fine-tune phase')
        epochs = own.get('epochs')
    return TableRun(folder, name, options['seed'], _read_metrics(last, epochs, name), tuple(differ.values()))


def find_differences(options: dict[str, Any], recipe: dict[str, Any], name: str) -> dict[str, str]:
    """The options of scale that differ from the recipe, each with both values in words.

    Raises:
        UsageError: if others differ.
    """
    differ = {
        key: f'{key} {options.get(key)} (recipe: {wanted})'
        for key, wanted in recipe.items()
        if options.get(key, wanted) != wanted
    }
    other = [text for key, text in differ.items() if key not in SCALE]
    if other:
        raise UsageError(f'it is of another recipe than {name}: {", ".join(other)}')
    return differ


def _read_metrics(folder: Path, epochs: int, recipe: str) -> dict[str, float]:
    """The last row's figures; those that the tables want of the recipe have to be there."""
    try:
        row = read_last_row(folder, epochs)
    except UnfinishedError as error:
        raise UsageError(f'it is not finished: {error}') from None
    metrics = {key: row[column] for key, column in METRICS.items() if column in row}
    figures = paper_figures()
    wanted = set(figures[(figures['recipe'] == recipe) | (figures['baseline'] == recipe)]['metric'])
    lacking = sorted(METRICS[key] for key in wanted - metrics.keys())
    if lacking:
        raise UsageError(f'{folder / SUMMARY} has no {" and no ".join(lacking)}')
    return metrics


@cache
def load_recipes() -> dict[str, dict[str, Any]]:
    """By name: the options that decide what a run learns, with the values that the recipe gives them.

    Raises:
        UsageError: if a recipe names an option that there is not.
    """
    return {**_load_folder(RECIPES), **_load_folder(DETECTION)}


def recipe_parser(path: Path) -> ArgumentParser:
    """The parser of the script that a recipe is for."""
    return build_detection_parser() if path.is_relative_to(DETECTION) else build_parser()


def _load_folder(folder: Path) -> dict[str, dict[str, Any]]:
    parser = recipe_parser(folder)
    defaults = vars(parser.parse_args([]))
    decisive = defaults.keys() - FREE
    read = {path.stem: load_recipe(parser, path) for path in sorted(folder.glob('*.yaml'))}
    return {name: {key: options.get(key, defaults[key]) for key in sorted(decisive)} for name, options in read.items()}


def recipe_path(name: str) -> Path:
    """The file of a recipe."""
    detection = DETECTION / f'{name}.yaml'
    return detection if detection.is_file() else RECIPES / f'{name}.yaml'


def load_recipe(parser: ArgumentParser, path: Path) -> dict[str, Any]:
    """The options that a recipe sets.

    Raises:
        UsageError: if it names an option that there is not.
    """
    names = {str(name) for _, own in read_files(str(path)) for name in own}
    unknown = sorted(names - {action.dest for action in parser._actions})
    if unknown:
        raise UsageError(f'{path} names {", ".join(unknown)}, but no option is called so; correct the name')
    return load_config(parser, str(path))
