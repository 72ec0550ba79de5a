"""Options that choose the classifier and how and where it runs."""

import argparse

from timm.utils import ParseKwargs


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that create the classifier and load its weights."""
    add = parser.add_argument_group('Model').add_argument
    add('--model', type=str, default='resnet50', metavar='NAME', help='any timm classifier')
    add('--pretrained', action='store_true', help='start from the published weights of --model')
    add('--pretrained-path', type=str, metavar='FILE', help='read the pretrained weights from this file')
    add('--initial-checkpoint', type=str, default='', metavar='FILE', help='start from these weights, at epoch 0')
    add(
        '--resume',
        type=str,
        default='',
        metavar='FILE',
        help="go on from a checkpoint with its optimizer and epoch; 'auto': from the last one of --experiment, if any",
    )
    add('--no-resume-opt', action='store_true', help='leave the optimizer out of --resume')
    add('--num-classes', type=int, metavar='N', help='number of classes; unset: what the model was made for')
    add('--gp', type=str, metavar='POOL', help='global pooling: fast, avg, max, avgmax or avgmaxc')
    add('--model-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='K=V', help='more arguments for the model')
    add('--head-init-scale', type=float, metavar='X', help="factor on the last layer's first weights")
    add('--head-init-bias', type=float, metavar='X', help="first value of the last layer's bias")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script about the size and scale of input images and batches."""
    add = parser.add_argument_group('Input').add_argument
    add('--img-size', type=int, metavar='PX', help="height and width; unset: the model's own")
    add('--in-chans', type=int, metavar='N', help='image channels; unset: 3')
    add('--input-size', type=int, nargs=3, metavar=('C', 'H', 'W'), help='channels, height and width, if not square')
    add('--crop-pct', type=float, metavar='X', help='share of the side that the validation crop keeps')
    add('--mean', type=float, nargs='+', metavar='X', help='mean of each channel, in [0, 1], taken off the image')
    add('--std', type=float, nargs='+', metavar='X', help='standard deviation of each channel, divided out')
    add('--interpolation', type=str, default='', metavar='NAME', help='how validation images are resized')
    add('-b', '--batch-size', type=int, default=128, metavar='N', help='images in a batch, for each process')
    add('-vb', '--validation-batch-size', type=int, metavar='N', help='the same in validation; unset: --batch-size')


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script about device, precision, compilation and processes."""
    add = parser.add_argument_group('Device and precision').add_argument
    add('--device', type=str, default='cuda', metavar='NAME', help='device to train on, as in cuda:1 or cpu')
    add('--device-modules', type=str, nargs='+', metavar='NAME', help='modules to import that bring a new device')
    add('--amp', action='store_true', help='automatic mixed precision')
    add('--amp-dtype', type=str, default='float16', metavar='TYPE', help='its lower precision: float16 or bfloat16')
    add('--model-dtype', type=str, metavar='TYPE', help='precision of the weights themselves; not with --amp')
    add('--channels-last', action='store_true', help='keep channels last in memory')
    add('--grad-accum-steps', type=int, default=1, metavar='N', help='batches whose gradients make one update')
    add('--grad-checkpointing', action='store_true', help='recompute activations in the backward pass to save memory')
    add('--fast-norm', action='store_true', help='allow layer norms in lower precision under --amp')
    add('--fuser', type=str, default='', metavar='NAME', help="TorchScript's fuser: te, old or nvfuser")
    add('--torchscript', action='store_true', help='run the model as TorchScript')
    add(
        '--torchcompile',
        type=str,
        nargs='?',
        const='inductor',
        metavar='BACKEND',
        help='run the model through torch.compile; without a value: inductor',
    )
    add('--torchcompile-mode', type=str, metavar='MODE', help="torch.compile's mode, as in reduce-overhead")
    add('--synchronize-step', action='store_true', help='wait for the device after every update')
    add('--no-ddp-bb', action='store_true', help='do not broadcast buffers between processes on every forward pass')
    add('--local_rank', type=int, default=0, metavar='N', help='index of the process on its machine, set by launchers')
