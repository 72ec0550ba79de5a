"""Folders as runs leave them, made without training, for the pages that show runs."""

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from timm_repaint.monitor.gallery import save_gallery
from timm_repaint.options import build_parser

COLUMNS = 8
DISTINCT = 7  # galleries, which then repeat


def make_run(folder: Path, epochs: int, galleries: int = 0, size_px: int = 32, **options: Any) -> Path:
    """A run with rows for `epochs` epochs; the last `galleries` of them, which need `repaint=True`, have pictures."""
    folder.mkdir(parents=True)
    chosen = {**vars(build_parser().parse_args([])), 'epochs': epochs, 'experiment': folder.name, **options}
    (folder / 'args.yaml').write_text(yaml.safe_dump(chosen))
    write_rows(folder, [row(epoch, chosen) for epoch in range(epochs)])
    for epoch in range(epochs - galleries, epochs):
        like = folder / f'gallery-{epoch - DISTINCT}.png'
        if like.exists():
            shutil.copy(like, folder / f'gallery-{epoch}.png')
        else:
            draw_gallery(folder, epoch, size_px)
    return folder


def row(epoch: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of an epoch; a seed is worth a tenth of a point, and repaints two points."""
    top1 = 50 + epoch + options['seed'] / 10 + 2 * bool(options['repaint'])
    values = {'epoch': epoch, 'train_loss': 2 / (epoch + 1), 'eval_loss': 2.5 / (epoch + 1), 'eval_top1': top1}
    if options['repaint']:
        measured = epoch % 3 == 2
        leaks = {'original': 50.0, 'repaint': 40.0, 'swapped': 35.0, 'chance': 2.0}
        values |= {'train_d_loss': 1.5, 'train_g_gan': 0.3, 'train_diversity': 0.3, 'train_skipped_updates': 0.0}
        values |= {f'train_leak_{name}': value if measured else math.nan for name, value in leaks.items()}
    return values


def write_rows(folder: Path, rows: list[dict[str, float]]) -> None:
    with open(folder / 'summary.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_gallery(folder: Path, epoch: int, size_px: int) -> None:
    """Eight images of soft noise, as hard to pack as photographs, their masks (halves) and three repaints."""
    draws = np.random.default_rng(epoch)
    labels = np.zeros((size_px, size_px), np.uint16)
    labels[:, size_px // 2 :] = 1

    def images() -> np.ndarray:
        coarse = draws.integers(0, 256, (COLUMNS, size_px // 8, size_px // 8, 3)).repeat(8, 1).repeat(8, 2)
        return np.clip(coarse + draws.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)

    save_gallery(folder / f'gallery-{epoch}.png', images(), [labels] * COLUMNS, [images() for _ in range(3)])
