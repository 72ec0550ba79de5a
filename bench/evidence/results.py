"""What a finished run leaves: one JSON file, read back when the bench is called again."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.evidence.arms import ARMS
from bench.evidence.plan import Run
from bench.runner import RESULT
from bench.seeds import pd
from timm_repaint.errors import UsageError
from timm_repaint.files import write_text
from timm_repaint.options.run_file import FINE_TUNE
from timm_repaint.report.summary import read_last_row

CUE_CONFLICT = 'cue_conflict.json'
# Options that only say where things lie.
PLACES = ('data', 'data_dir', 'output', 'experiment', 'mask_dir', 'repaint_checkpoint')


@dataclass
class Result:
    """One finished run.

    Attributes:
        data, size, arm, seed: what was run.
        shows, baseline: see Arm.
        epochs: number of epochs after each phase.
        options: of the first phase, without places.
        seconds: of both phases together.
        top1: of the last epoch, %.
        phase_top1: of the first phase's last epoch, %.
        train_loss: of the last epoch.
        measures: other columns of the first phase's last row; 'validation_loss' of the last epoch; shares of shape and
            texture decisions on cue conflicts: 'phase_shape', 'phase_texture', 'shape', 'texture', %.
    """

    data: str
    size: int
    arm: str
    seed: int
    shows: str
    baseline: str
    epochs: list[int]
    options: dict[str, Any]
    seconds: float
    top1: float
    phase_top1: float
    train_loss: float
    measures: dict[str, float] = field(default_factory=dict)


def collect(run: Run, seconds: float) -> Result:
    """The result of a run from the files of its phases.

    Raises:
        UnfinishedError: if a phase stopped early.
    """
    folders = [run.folder, run.folder / FINE_TUNE][: len(run.epochs)]
    rows = [read_last_row(folder, epochs) for folder, epochs in zip(folders, run.epochs, strict=True)]
    known = {'epoch', 'lr', 'train_loss'}
    measures = {
        name.removeprefix('train_'): value
        for name, value in rows[0].items()
        if name not in known and not name.startswith('eval_') and math.isfinite(value)
    }
    measures['validation_loss'] = rows[-1]['eval_loss']
    for prefix, folder in (('phase_', folders[0]), ('', folders[-1])):
        if (folder / CUE_CONFLICT).is_file():
            shares = json.loads((folder / CUE_CONFLICT).read_text())
            measures |= {f'{prefix}{name}': shares[name] for name in ('shape', 'texture')}
    return Result(
        data=run.subset.data,
        size=run.subset.size,
        arm=run.arm.name,
        seed=run.seed,
        shows=run.arm.shows,
        baseline=run.arm.baseline,
        epochs=list(run.epochs),
        options=plain_options(run.options),
        seconds=round(seconds, 1),
        top1=rows[-1]['eval_top1'],
        phase_top1=rows[0]['eval_top1'],
        train_loss=rows[-1]['train_loss'],
        measures=measures,
    )


def plain_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options without places, as JSON gives them back."""
    return json.loads(json.dumps({name: value for name, value in vars(options).items() if name not in PLACES}))


def leave_result(run: Run, seconds: float) -> None:
    """Write a run's result whole: a file that is there is complete."""
    write_text(run.folder / RESULT, json.dumps(asdict(collect(run, seconds)), indent=2) + '\n')


def read_result(path: Path) -> Result:
    """A result from its file.

    Raises:
        UsageError: if the file is no result.
    """
    try:
        return Result(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UsageError(f'{path} is not the result of a run: {error}; remove it to run again') from error


def is_finished(run: Run) -> bool:
    """Whether the run is done, with the options that it has now.

    Raises:
        UsageError: if it was done with other options.
    """
    path = run.folder / RESULT
    if not path.is_file():
        return False
    before, now = read_result(path).options, plain_options(run.options)
    changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    if changed:
        what = ', '.join(f'{name} {before[name]}, now {now[name]}' for name in changed[:3])
        raise UsageError(f'{run.folder} was run with other options ({what}); give another --output or remove it')
    return True


def read_results(output: Path) -> list[Result]:
    """All results below a bench's folder, those of earlier calls too: by data, size, arm and seed."""
    results = [read_result(path) for path in output.glob(f'runs/*/*/*/{RESULT}')]
    order = {name: place for place, name in enumerate(ARMS)}
    return sorted(results, key=lambda r: (r.data, r.size, order.get(r.arm, len(order)), r.arm, r.seed))


def to_frame(results: Sequence[Result]) -> Any:
    """A row a run, a column a figure; columns that only some runs have are empty in the others."""
    own = ['data', 'size', 'arm', 'seed', 'top1', 'phase_top1', 'train_loss', 'seconds']
    return pd.DataFrame([{**{name: getattr(result, name) for name in own}, **result.measures} for result in results])


def write_csv(results: Sequence[Result], path: Path) -> None:
    """The same as a file."""
    to_frame(results).to_csv(path, index=False)
