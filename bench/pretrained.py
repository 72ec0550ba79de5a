"""The generator that comes with the package, from a run: `python -m bench.pretrained RUN`; docs/pretrained.md.

Of the run's checkpoint it keeps E and G, in half precision, and the header that says what they are.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from timm_repaint.packed import pack
from timm_repaint.saved import PRETRAINED_FILE, STATE_KEY, load_repainter


def write(checkpoint: Path, output: Path) -> None:
    """E and G of a checkpoint as the file `output`, which `load_repainter` reads."""
    repainter = load_repainter(str(checkpoint))
    tensors = {f'repainter.{name}': tensor.half().contiguous() for name, tensor in repainter.state_dict().items()}
    header = pack({'networks': repainter.config}, [], torch.device('cpu'))
    save_file({**tensors, STATE_KEY: header}, output)


if __name__ == '__main__':
    write(Path(sys.argv[1]) / 'last.pth.tar', PRETRAINED_FILE)
    print(PRETRAINED_FILE, PRETRAINED_FILE.stat().st_size, 'bytes')
