"""The generator that comes with the package, from a run: `python -m bench.pretrained RUN`; docs/pretrained.md.

Of the run's checkpoint it keeps E and G, in half precision, and the header that says what they are.
"""

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m bench.pretrained', description=__doc__)
    parser.add_argument('run', type=Path, metavar='RUN', help='folder of a train.py --repaint run')
    write(parser.parse_args().run / 'last.pth.tar', PRETRAINED_FILE)
    print(PRETRAINED_FILE, PRETRAINED_FILE.stat().st_size, 'bytes')


if __name__ == '__main__':
    main()
