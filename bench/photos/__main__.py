"""Train and test the arms of the bench, a few at a time; a second call goes on where the first stopped."""

import argparse
import csv
import io
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bench.photos.arms import ARMS, SETTINGS
from bench.photos.runs import Job, Place, masks_of, run
from bench.photos.table import write_table
from timm_repaint.files import write_text

COLUMNS = ('setting', 'arm', 'seed', 'validation', 'art_painting', 'cartoon', 'seconds')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m bench.photos', description=__doc__)
    add = parser.add_argument
    add('data', type=Path, metavar='DATA', help='folder with pacs/ and clothing/')
    add('--weights', type=Path, required=True, metavar='FILE', help='ImageNet weights of tf_efficientnet_lite0')
    add('--output', type=Path, required=True, metavar='DIR', help='for runs and masks; results.csv and table.md')
    add('--settings', nargs='+', choices=SETTINGS, default=['domain-shift'], metavar='NAME', help=', '.join(SETTINGS))
    add('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM', help=', '.join(ARMS))
    add('--seeds', nargs='+', type=int, default=[0], metavar='N')
    add('--jobs', type=int, default=2, metavar='N', help='runs at a time, a thread each (default: 2)')
    return parser.parse_args()


def write_results(rows: list[dict[str, object]], path: Path) -> None:
    """All rows so far, sorted, in one step."""
    order = {name: number for number, name in enumerate(ARMS)}
    rows = sorted(rows, key=lambda row: (str(row['setting']), order[str(row['arm'])], row['seed']))
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, restval='')
    writer.writeheader()
    writer.writerows({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


def main() -> None:
    args = parse_args()
    place = Place(args.data.resolve(), args.weights.resolve(), args.output.resolve())
    place.output.mkdir(parents=True, exist_ok=True)
    for setting in args.settings:
        masks_of(place, setting)
    jobs = [Job(setting, arm, seed) for seed in args.seeds for setting in args.settings for arm in args.arms]
    rows: list[dict[str, object]] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for future in as_completed([pool.submit(run, place, job) for job in jobs]):
            try:
                rows.append(future.result())
            except RuntimeError as error:
                print(f'failed: {error}', flush=True)
                continue
            print(f'{len(rows)}/{len(jobs)} {rows[-1]}', flush=True)
            write_results(rows, place.output / 'results.csv')
            write_table(place.output / 'results.csv', place.output / 'table.md')


if __name__ == '__main__':
    main()
