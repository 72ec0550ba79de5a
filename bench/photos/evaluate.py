"""Top-1 of a checkpoint on folders: `python -m bench.photos.evaluate CHECKPOINT MODEL TRAIN OUT FOLDER…`."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import timm
import torch
from timm.data import create_loader, resolve_data_config
from timm.models import create_model
from timm.utils import ParseKwargs

from bench.photos.data import read_split
from timm_repaint.errors import run_command


@torch.inference_mode()
def top1(
    model: torch.nn.Module, folder: Path, numbers: Mapping[str, int], img_size: int
) -> tuple[float, dict[str, float]]:
    """Percent of the images of a folder of class folders that the model is right about: of all, and of each class.

    Args:
        numbers: By class, those of the training photographs.
    """
    config = resolve_data_config({'img_size': img_size}, model=model)
    dataset = read_split(folder, numbers)
    keys = ('mean', 'std', 'interpolation', 'crop_pct')
    loader = create_loader(
        dataset,
        input_size=config['input_size'],
        batch_size=64,
        num_workers=0,
        device=torch.device('cpu'),
        **{key: config[key] for key in keys},
    )
    answers, targets = zip(*((model(images).argmax(1), target) for images, target in loader), strict=True)
    target = torch.cat(targets)
    right = 100 * (torch.cat(answers) == target).float()
    indices = dataset.reader.class_to_idx.items()
    return right.mean().item(), {name: right[target == index].mean().item() for name, index in indices}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint')
    parser.add_argument('model', choices=timm.list_models(), metavar='MODEL')
    parser.add_argument('train', type=Path, help='the folder of the training photographs')
    parser.add_argument('out', type=Path, help='the file that is written')
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--img-size', type=int, default=128)
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='K=V')
    parser.add_argument('--corrupted', type=Path, metavar='DIR', help='folders of corrupted images, for their mean')
    args = parser.parse_args()
    corrupted = [] if args.corrupted is None else sorted(path for path in args.corrupted.iterdir() if path.is_dir())
    numbers = read_split(args.train).reader.class_to_idx
    options = {'num_classes': len(numbers), 'checkpoint_path': args.checkpoint, **args.model_kwargs}
    model = create_model(args.model, **options).eval().to(memory_format=torch.channels_last)
    of_all, of_classes = {}, {}
    for folder in args.folders:
        of_all[folder.name], of_classes[folder.name] = top1(model, folder, numbers, args.img_size)
    if corrupted:
        of_all['corrupted'] = mean(top1(model, folder, numbers, args.img_size)[0] for folder in corrupted)
    args.out.write_text(json.dumps({**of_all, 'classes': of_classes}))


if __name__ == '__main__':
    run_command(main)
