"""Shape bias on cue-conflict pictures: of the decisions for a picture's shape or texture, the share for its shape.

Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from torch import Tensor, nn

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.pictures import UNREADABLE, read_picture, reason_of
from timm_repaint.progress import progress
from timm_repaint.report.classifier import make_classifier, read_classifier

_LISTS = yaml.safe_load(Path(__file__).with_name('sixteen_classes.yaml').read_text(encoding='utf-8'))
CATEGORIES: dict[str, list[str]] = {name: text.split() for name, text in _LISTS.items()}
NUM_CLASSES = 1000
BATCH_SIZE = 32
STIMULUS = re.compile(r'([a-z]+)[0-9]+-([a-z]+)[0-9]+')  # <shape><number>-<texture><number>


@dataclass(frozen=True)
class Stimulus:
    """A picture with the shape of one category and the texture of another."""

    path: Path
    shape: str
    texture: str


@dataclass(frozen=True)
class ShapeBias:
    """Decisions on cue-conflict pictures: for the shape, for the texture, and for neither."""

    shape: int
    texture: int
    other: int

    @property
    def percent(self) -> float:
        """Shape decisions among those for shape or texture; nan where there is none."""
        decided = self.shape + self.texture
        return 100 * self.shape / decided if decided else float('nan')


def category_matrix() -> Tensor:
    """[1000, 16]: a category's column has the mean over its classes, in the order of their WordNet ids."""
    info = ImageNetInfo()
    index = {info.index_to_label_name(place): place for place in range(NUM_CLASSES)}
    matrix = torch.zeros(NUM_CLASSES, len(CATEGORIES))
    for column, ids in enumerate(CATEGORIES.values()):
        for wordnet_id in ids:
            matrix[index[wordnet_id], column] = 1 / len(ids)
    return matrix


def decide(logits: Tensor) -> list[str]:
    """The category with the highest mean probability over its classes, for logits [B, 1000]."""
    means = logits.float().softmax(dim=1) @ category_matrix().to(logits.device)  # [B, 16]
    names = list(CATEGORIES)
    return [names[column] for column in means.argmax(dim=1).tolist()]


def count_decisions(stimuli: Sequence[Stimulus], decisions: Sequence[str]) -> ShapeBias:
    """How often the decision is the picture's shape, and how often its texture."""
    pairs = list(zip(stimuli, decisions, strict=True))
    shape = sum(stimulus.shape == decision for stimulus, decision in pairs)
    texture = sum(stimulus.texture == decision for stimulus, decision in pairs)
    return ShapeBias(shape, texture, len(pairs) - shape - texture)


def find_stimuli(folder: Path) -> list[Stimulus]:
    """The pictures below a folder whose shape and texture differ, by the names `<shape><n>-<texture><m>.png`.

    Raises:
        UsageError: if a picture has another name, or none is left.
    """
    stimuli = []
    for path in sorted(folder.rglob('*.png')):
        match = STIMULUS.fullmatch(path.stem)
        if match is None or not {match[1], match[2]} <= CATEGORIES.keys():
            raise UsageError(f'{path} is not named <shape><number>-<texture><number>.png, as cat7-elephant1.png')
        if match[1] != match[2]:
            stimuli.append(Stimulus(path, match[1], match[2]))
    if not stimuli:
        raise UsageError(f'{folder} holds no cue-conflict pictures (<shape><number>-<texture><number>.png)')
    return stimuli


def load_classifier(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier of a checkpoint of train.py or fine_tune.py, and the size and normalisation of its images.

    Raises:
        UsageError: if the file is no such checkpoint, or the classes are not those of ImageNet-1k.
    """
    saved = read_classifier(path)
    classes = saved.args.num_classes
    if classes != NUM_CLASSES:
        raise UsageError(f'{path} has {classes} classes, but shape bias needs the 1000 of ImageNet-1k')
    with as_mistake(f'{path} holds no network of timm', Exception):  # options of any kind may stand there
        model, args = make_classifier(saved, path)
        return model, resolve_data_config(vars(args), model=model)


def read_stimulus(stimulus: Stimulus) -> Image.Image:
    """Its picture.

    Raises:
        UsageError: if Pillow cannot read it.
    """
    try:
        return read_picture(stimulus.path)
    except UNREADABLE as error:
        raise UsageError(f'cannot read {stimulus.path}: {reason_of(error)}; replace or remove it') from error


@torch.inference_mode()
def report_shape_bias(checkpoint: Path, folder: Path, device: torch.device) -> ShapeBias:
    """Print the shape bias of a checkpoint's classifier on a folder of cue-conflict pictures.

    Raises:
        UsageError: if the checkpoint or the folder does not fit.
    """
    stimuli = find_stimuli(folder)
    model, data_config = load_classifier(checkpoint)
    own = {name: data_config[name] for name in ('input_size', 'interpolation', 'mean', 'std')}
    transform: Any = create_transform(**own, is_training=False, crop_pct=1.0)  # the shape needs its outline
    model.to(device)
    decisions: list[str] = []
    for start in progress(range(0, len(stimuli), BATCH_SIZE), 'pictures'):
        batch = stimuli[start : start + BATCH_SIZE]
        images = torch.stack([transform(read_stimulus(stimulus)) for stimulus in batch])
        decisions += decide(model(images.to(device)))
    result = count_decisions(stimuli, decisions)
    print(
        f'shape bias {result.percent:.1f} %: {result.shape} decisions for the shape, {result.texture} for the texture, '
        f'{result.other} for neither, of {len(stimuli)} pictures'
    )
    return result
