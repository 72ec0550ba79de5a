"""Segmentation, plain against repaint, on a few photographs: `python -m bench.segmentation COCO --weights FILE …`.

COCO holds `train2017`, `val2017` and COCO-Stuff's label maps in `stuffthingmaps`. The 182 classes become six, and all
images are cut into three parts: each is held out once, so a seed's mIoU is over all of them. The network is timm's
EfficientNet-Lite0 with weights of ImageNet and a small head. A second call goes on where the first stopped.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from bench.seeds import paired_difference, pd
from timm_repaint import Repaint
from timm_repaint.errors import run_command
from timm_repaint.files import write_text

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE_PX, STORED_PX, FOLDS, UNKNOWN = 96, 128, 3, 255
CLASSES = ('person', 'thing', 'sky', 'ground and water', 'plant', 'rest')
SKY = (105, 119, 156)
FLAT = (110, 124, 125, 135, 139, 143, 144, 146, 147, 148, 153, 154, 158, 177)
PLANT = (93, 96, 118, 123, 128, 133, 141, 162, 168)
ARMS: dict[str, dict | None] = {
    'plain': None,
    'repaint': {'num_labels': len(CLASSES)},
    'pretrained': {'checkpoint': 'pretrained'},  # the maps are its segments
    'shift': {'generator': 'shift', 'num_labels': len(CLASSES)},
}
TESTS = {
    'clean': v2.Identity(),
    'blur': v2.GaussianBlur(9, 1.5),
    'noise': v2.GaussianNoise(sigma=0.15),
    'hue': v2.ColorJitter(hue=(0.35, 0.35)),
    'grey': v2.Grayscale(3),
}


def coarse(labels: Tensor) -> Tensor:
    """COCO-Stuff's ids, [H, W] uint8, as those of `CLASSES`; 255 stays."""
    table = torch.full((256,), CLASSES.index('rest'))
    table[:91], table[0], table[UNKNOWN] = CLASSES.index('thing'), CLASSES.index('person'), UNKNOWN
    for ids, name in ((SKY, 'sky'), (FLAT, 'ground and water'), (PLANT, 'plant')):
        table[list(ids)] = CLASSES.index(name)
    return table[labels.long()]


def read(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Images [3, H, W] in [0, 1] and label maps [H, W], the shorter side at `STORED_PX`."""
    pairs = []
    resize = v2.Resize(STORED_PX)
    for path in sorted(folder.glob('stuffthingmaps/*/*.png')):
        image = Image.open(folder / path.parent.name / f'{path.stem}.jpg').convert('RGB')
        pixels = v2.functional.to_image(image).float() / 255
        labels = tv_tensors.Mask(v2.functional.pil_to_tensor(Image.open(path)))
        pairs.append((resize(pixels), coarse(resize(labels)[0].as_subclass(Tensor))))
    return pairs


class Segmenter(nn.Module):
    """Features of four strides, added up at the finest one: [B, 3, H, W] -> [B, classes, H, W]."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        overlay = {'file': weights}
        self.body = timm.create_model(
            'tf_efficientnet_lite0', features_only=True, out_indices=(1, 2, 3, 4), pretrained=True,
            pretrained_cfg_overlay=overlay,
        )  # fmt: skip
        self.sides = nn.ModuleList(nn.Conv2d(channels, 64, 1) for channels in self.body.feature_info.channels())
        self.last = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, len(CLASSES), 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        maps = [side(features) for side, features in zip(self.sides, self.body(images), strict=True)]
        summed = sum((enlarge(one, maps[0].shape[2:]) for one in maps[1:]), maps[0])
        return enlarge(self.last(summed), images.shape[2:])


def enlarge(features: Tensor, size_hw: torch.Size) -> Tensor:
    return F.interpolate(features, size_hw, mode='bilinear', align_corners=False)


def train(pairs: list[tuple[Tensor, Tensor]], options: dict | None, args: argparse.Namespace) -> nn.Module:
    """The network after `--epochs` epochs, a batch of all images each; options of Repaint, None: without."""
    model = Segmenter(str(args.weights)).train().to(memory_format=torch.channels_last)
    repaint = None if options is None else Repaint(MEAN, STD, masks=None, img_size=SIZE_PX, **options)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.epochs, pct_start=0.1)
    move = v2.Compose([v2.RandomResizedCrop(SIZE_PX, (0.3, 1)), v2.RandomHorizontalFlip()])
    normalize = v2.Normalize(MEAN, STD)
    for epoch in range(args.epochs):
        moved = [move(tv_tensors.Image(image), tv_tensors.Mask(labels)) for image, labels in pairs]
        order = torch.randperm(len(moved)).tolist()
        images = normalize(torch.stack([moved[index][0].as_subclass(Tensor) for index in order]))
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.stack([moved[index][1].as_subclass(Tensor) for index in order])
        if repaint is not None:
            if epoch >= 0.75 * args.epochs:
                repaint.stop()
            images = repaint(images, labels=labels)
        loss = F.cross_entropy(model(images), labels, ignore_index=UNKNOWN)
        loss.backward()
        if repaint is not None:
            repaint.step()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def count(model: nn.Module, pairs: list[tuple[Tensor, Tensor]], test: nn.Module) -> Tensor:
    """Pixels by class and guess, [classes, classes]; the images whole, their sides cut to multiples of 32."""
    torch.manual_seed(0)
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long)
    for image, labels in pairs:
        height, width = (side // 32 * 32 for side in labels.shape)
        seen = v2.functional.normalize(test(image[:, :height, :width]).clamp(0, 1), MEAN, STD)
        guess, true = model(seen[None]).argmax(1).flatten(), labels[:height, :width].flatten()
        known = true != UNKNOWN
        pairs_of_ids = true[known] * len(CLASSES) + guess[known]
        counts += pairs_of_ids.bincount(minlength=counts.numel()).view_as(counts)
    return counts


def mean_iou(counts: Tensor) -> float:
    """Intersection over union in %, the mean over the classes that have pixels."""
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    return 100 * (right / union)[counts.sum(1) > 0].mean().item()


def run(pairs: list[tuple[Tensor, Tensor]], arm: str, seed: int, fold: int, args: argparse.Namespace) -> dict:
    """Train without the images of a fold, and count those of each test."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out, start = set(order[fold::FOLDS]), time.process_time()
    torch.manual_seed(FOLDS * seed + fold)
    model = train([pair for index, pair in enumerate(pairs) if index not in held_out], ARMS[arm], args)
    tested = [pairs[index] for index in sorted(held_out)]
    counts = {name: count(model, tested, test).tolist() for name, test in TESTS.items()}
    seconds = round(time.process_time() - start)
    return {'arm': arm, 'seed': seed, 'fold': fold, 'cpu_seconds': seconds, 'counts': counts}


def add_folds(runs: list[dict]) -> list[dict]:
    """A row an arm and seed that has all folds: mIoU of each test over all images, each by a network new to it."""
    rows = []
    for arm, seed in sorted({(run['arm'], run['seed']) for run in runs}, key=lambda key: (key[1], key[0])):
        folds = [run for run in runs if (run['arm'], run['seed']) == (arm, seed)]
        if len(folds) == FOLDS:
            sums = {name: torch.tensor([fold['counts'][name] for fold in folds]).sum(0) for name in TESTS}
            scores = {name: round(mean_iou(counts), 2) for name, counts in sums.items()}
            rows.append({'arm': arm, 'seed': seed, **scores, 'cpu_seconds': sum(fold['cpu_seconds'] for fold in folds)})
    return rows


def table(rows: list[dict]) -> str:
    """Means over the seeds and, in brackets, the difference from plain with its 95 % interval."""
    frame = pd.DataFrame(rows)
    frame['corrupted'] = frame[[name for name in TESTS if name != 'clean']].mean(axis=1)
    names = [*TESTS, 'corrupted']
    lines = ['| arm | seeds | ' + ' | '.join(names) + ' |', '| --- | ---: |' + ' ---: |' * len(names)]
    by_arm = {arm: frame[frame.arm == arm].set_index('seed') for arm in ARMS if (frame.arm == arm).any()}
    for arm, values in by_arm.items():
        cells = []
        for name in names:
            cell = f'{values[name].mean():.1f}'
            if arm != 'plain' and (gain := paired_difference(values[name], by_arm['plain'][name])):
                cell += f' ({gain.mean:+.1f}' + (f' ± {gain.half_width:.1f})' if gain.half_width else ')')
            cells.append(cell)
        lines.append(f'| {arm} | {len(values)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m bench.segmentation', description=__doc__)
    add = parser.add_argument
    add('data', type=Path, metavar='COCO', help='folder with train2017/, val2017/ and stuffthingmaps/')
    add('--weights', type=Path, required=True, metavar='FILE', help='ImageNet weights of tf_efficientnet_lite0')
    add('--output', type=Path, required=True, metavar='DIR', help='for the runs; results.csv')
    add('--arms', nargs='+', choices=ARMS, default=['plain', 'repaint'], metavar='ARM', help=', '.join(ARMS))
    add('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N')
    add('--epochs', type=int, default=50, metavar='N')
    add('--lr', type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    pairs = read(args.data)
    for seed, arm, fold in product(args.seeds, args.arms, range(FOLDS)):
        path = args.output / f'{arm}-{seed}-{fold}.json'
        if not path.is_file():
            write_text(path, json.dumps(run(pairs, arm, seed, fold, args)))
            print(path, flush=True)
    rows = add_folds([json.loads(path.read_text()) for path in args.output.glob('*.json')])
    pd.DataFrame(rows).to_csv(args.output / 'results.csv', index=False)
    print(table(rows))


if __name__ == '__main__':
    run_command(main)
