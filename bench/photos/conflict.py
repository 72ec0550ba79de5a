"""Pictures with the shapes of one class and the colours and textures of another, made once of validation photographs.

A Fourier transform's phases say where edges are, its amplitudes how much there is of each colour and frequency. The
phases are one picture's, the amplitudes the geometric mean of both: with the other's alone networks are near chance.
Source: Oppenheim and Lim, "The importance of phase in signals", Proceedings of the IEEE 1981.
"""

from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image

from bench.photos.corruptions import square_u8
from bench.photos.data import photographs_of
from timm_repaint.errors import UsageError, first_of
from timm_repaint.progress import progress

PER_PAIR = 10
BY = ('shape', 'texture')


def make_conflicts(photographs: Path, output: Path, per_pair: int = PER_PAIR) -> None:
    """Write each picture twice, as `output/shape/CLASS/` and `output/texture/CLASS/`; a finished folder stays.

    Args:
        photographs: A folder a class.
        output: Where the folders go.
        per_pair: Pictures of each two classes in this order; of the first photographs of one and the next of the other.

    Raises:
        UsageError: If a class has too few.
    """
    done = output / 'done'
    if done.is_file():
        return
    classes = {name: paths[: 2 * per_pair] for name, paths in photographs_of(photographs).items()}
    if few := [name for name, paths in classes.items() if len(paths) <= per_pair]:
        raise UsageError(
            f'--conflicts needs more than {per_pair} photographs a class in {photographs}: {first_of(few)}'
        )
    for shape, texture in progress(list(permutations(classes, 2)), 'conflicts'):
        pairs = zip(classes[shape][:per_pair], classes[texture][per_pair:], strict=False)
        for number, (shaped, textured) in enumerate(pairs):
            picture = Image.fromarray(mix_amplitudes(square_u8(shaped), square_u8(textured)))
            for folder, name in zip(BY, (shape, texture), strict=True):
                target = output / folder / name / f'{shape}-{texture}-{number}.png'
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target)
    done.touch()


def mix_amplitudes(shape_u8: np.ndarray, texture_u8: np.ndarray) -> np.ndarray:
    """The phases of one picture with the amplitudes of both, [H, W, 3] uint8 each and out."""
    shape, texture = (np.fft.fft2(image, axes=(0, 1)) for image in (shape_u8, texture_u8))
    mixed = np.fft.ifft2(np.sqrt(np.abs(shape * texture)) * np.exp(1j * np.angle(shape)), axes=(0, 1))
    return mixed.real.clip(0, 255).round().astype(np.uint8)
