"""Average precision of a detector's last checkpoint: `python -m bench.photos.evaluate_detector RUN_DIR OUT COCO`."""

import argparse
import json
from pathlib import Path

from timm_repaint.detection import validate
from timm_repaint.errors import run_command


def precision(run_dir: Path, coco: Path, test: str = '') -> dict[str, float]:
    """mAP@0.5:0.95 and AP@0.5 in percent on `val2017` of a folder in COCO's layout, under the name of the test."""
    options = ('--data-dir', str(coco), '--train-split', 'validation', '--val-split', 'validation')
    found = validate.measure(validate.parse_args([str(run_dir), *options]))
    return {f'{test}mAP': found['map'], f'{test}AP50': found['ap50']}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run_dir', type=Path)
    parser.add_argument('out', type=Path, help='the file that is written')
    parser.add_argument('coco', type=Path)
    parser.add_argument('--corrupted', type=Path, metavar='DIR', help='a folder like COCO of corrupted photographs')
    args = parser.parse_args()
    found = precision(args.run_dir, args.coco)
    if args.corrupted is not None:
        found |= precision(args.run_dir, args.corrupted, 'corrupted ')
    args.out.write_text(json.dumps(found))


if __name__ == '__main__':
    run_command(main)
