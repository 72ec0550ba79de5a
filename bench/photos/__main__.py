"""Train and test the arms of the bench, a few at a time; a second call goes on where the first stopped."""

import argparse
from functools import partial
from pathlib import Path

from bench.photos.arms import ARMS, NETWORK, NETWORKS, SETTINGS
from bench.photos.conflict import make_conflicts
from bench.photos.corruptions import make_corrupted, make_corrupted_boxes
from bench.photos.data import check_setting, claim_for
from bench.photos.runs import (
    Place,
    claim_run,
    conflicts_of,
    corrupted_of,
    leave_result,
    masks_of,
    plan_run,
    read_rows,
    without,
)
from bench.photos.table import write_results
from bench.runner import RESULT, run_all, tell_failed
from timm_repaint.commandline import at_least, goes_on
from timm_repaint.errors import UsageError, as_mistake, first_of, run_command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m bench.photos', description=__doc__)
    add = parser.add_argument
    layout = 'folder with pacs/, clothing/ (train/, validation/ and a folder of each other domain) and animals/ (COCO)'
    add('data', type=Path, metavar='DATA', help=layout)
    add('--weights', type=Path, required=True, metavar='FILE', help='pretrained weights of the network')
    add('--model', choices=NETWORKS, default=NETWORK, metavar='NAME', help=f'the classifier: {", ".join(NETWORKS)}')
    add('--output', type=Path, required=True, metavar='DIR', help='for runs and masks; results.csv and table.md')
    add('--settings', nargs='+', choices=SETTINGS, default=['domain-shift'], metavar='NAME', help=', '.join(SETTINGS))
    add('--arms', nargs='+', choices=ARMS, metavar='ARM', help=f'(default: all) {", ".join(ARMS)}')
    add('--seeds', nargs='+', type=int, default=[0], metavar='N')
    add('--epochs', type=at_least(4), metavar='N', help='in place of 16, or of 20 of a detector')
    add('--jobs', type=at_least(1), default=2, metavar='N', help='runs at a time, a thread each (default: 2)')
    add('--corruptions', action='store_true', help="test on ImageNet-C's corruptions of the validation photographs too")
    add('--conflicts', action='store_true', help="test classifiers on one class's shapes with another's textures too")
    args = parser.parse_args()
    for name in ('settings', 'arms', 'seeds'):
        setattr(args, name, list(dict.fromkeys(getattr(args, name) or ())))
    for name in args.settings:
        if SETTINGS[name].detects and args.model != NETWORK:
            parser.error(f'{name} has a detector of its own; leave out --model')
        for arm in sorted({*args.arms} - {*SETTINGS[name].arms}):
            parser.error(f'{arm} is not for the detector of {name}; it takes {", ".join(SETTINGS[name].arms)}')
    return args


def corrupt_validation(place: Place, setting: str) -> None:
    """Corrupted copies of a setting's validation photographs, made once."""
    source, output = place.data / SETTINGS[setting].folder, corrupted_of(place, setting)
    if SETTINGS[setting].detects:
        make_corrupted_boxes(source, output)
    else:
        make_corrupted(source / 'validation', output)


@goes_on
def main() -> int:
    args = parse_args()
    folders = (args.data.resolve(), args.weights.resolve(), args.output.resolve())
    place = Place(*folders, args.corruptions, args.conflicts, args.model, args.epochs)
    with as_mistake(f'--output {place.output}'):
        place.output.mkdir(parents=True, exist_ok=True)
    if not place.weights.is_file():
        raise UsageError(f'--weights {place.weights} does not exist')
    claim_for(place.weights, place.output / 'weights' / place.network)
    for setting in args.settings:
        check_setting(setting, place.data, place.output)
        if any(ARMS[arm].reads_masks for arm in args.arms or SETTINGS[setting].arms):
            masks_of(place, setting)
        if place.corruptions:
            corrupt_validation(place, setting)
        if place.conflicts and not SETTINGS[setting].detects:
            source = place.data / SETTINGS[setting].folder / 'validation'
            make_conflicts(source, conflicts_of(place, setting))
    names = [
        (setting, arm, seed)
        for seed in args.seeds
        for setting in args.settings
        for arm in args.arms or SETTINGS[setting].arms
    ]
    planned = [plan_run(place, *name) for name in names]
    for (setting, arm, _), run in zip(names, planned, strict=True):
        claim_run(place, setting, arm, run.folder)
    runs = [run for run in planned if not (run.folder / RESULT).is_file()]
    print(f'{len(names)} runs, {len(names) - len(runs)} of them done before; results in {place.output}')
    if short := without(place, [run for run in planned if run not in runs]):
        print(f'{len(short)} of these were not tested for all that is asked; give another --output: {first_of(short)}')
    tell = partial(tell_results, place.output)
    failed = run_all(runs, args.jobs, leave_result, tell, False)
    tell()
    return tell_failed(failed)


def tell_results(output: Path) -> None:
    """Tables of the results so far, if there are some."""
    if rows := read_rows(output):
        write_results(rows, output)


if __name__ == '__main__':
    run_command(main)
