"""First stages of a run: process group, device, number formats, random seeds and the classifier."""

import importlib
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm import utils
from timm.data import resolve_data_config
from timm.layers import convert_splitbn_model, convert_sync_batchnorm, set_fast_norm
from timm.models import safe_model_name
from torch import nn

from timm_repaint.data import folders
from timm_repaint.data.shapes import CLASSES as SHAPE_CLASSES
from timm_repaint.devices import find_device
from timm_repaint.errors import UsageError, first_of, one_line
from timm_repaint.log import logger
from timm_repaint.weights import unreadable

SHAPES_IMG_SIZE = 64
MAX_TOLD = 300  # characters of another program's message


@dataclass(frozen=True)
class Precision:
    """Number formats of a run.

    Attributes:
        model_dtype: Parameters and images of the task network (`--model-dtype`); None is float32.
        autocast: Makes the context for forward passes: `torch.autocast` under `--amp`, else one that does nothing.
        loss_scaler: Scales the task's gradients under float16 AMP on CUDA, else None.
    """

    model_dtype: torch.dtype | None
    autocast: Callable[[], AbstractContextManager]
    loss_scaler: utils.NativeScaler | None


@dataclass(frozen=True)
class Network:
    """T on its device, before any data."""

    args: Namespace  # with the device's part, classes and learning rate worked out
    device: torch.device
    precision: Precision
    model: nn.Module
    data_config: dict[str, Any]


def options_as(args: Namespace, names: str) -> dict[str, Any]:
    """Options as arguments of timm's: 'hflip re_mode=remode' are `hflip`, and `remode` under timm's name for it."""
    pairs = (one.partition('=') for one in names.split())
    return {name: getattr(args, own or name) for name, _, own in pairs}


def setup_device(args: Namespace) -> torch.device:
    """Join the process group if there is one, choose the device and seed the random generators.

    timm's `init_distributed_device` writes `device`, `rank`, `world_size`, `local_rank` and `distributed` into `args`.
    Without a GPU a process by itself takes the CPU.

    Raises:
        UsageError: if several processes, as on a cluster, were to have GPUs that are not there, or for a device that
            torch cannot use.
    """
    for module in args.device_modules or ():
        importlib.import_module(module)
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        if utils.is_distributed_env():
            raise UsageError(f'torch finds no GPU, --device is {args.device}; for the CPU give --device cpu')
        logger.warning('torch finds no GPU: training on the CPU, as with --device cpu.')
        args.device = 'cpu'
    if not utils.is_distributed_env():  # else each process has a device of its own
        find_device(args.device)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    device = utils.init_distributed_device(args)
    logger.info('Process %d of %d, device %s.', args.rank, args.world_size, args.device)
    if not utils.is_primary(args):
        logger.setLevel('WARNING')  # one process tells how the run goes
    utils.random_seed(args.seed, args.rank)
    if args.fuser:
        utils.set_jit_fuser(args.fuser)
    if args.fast_norm:
        set_fast_norm()
    return device


def resolve_precision(args: Namespace, device: torch.device) -> Precision:
    """Read `--amp`, `--amp-dtype` and `--model-dtype`.

    Raises:
        UsageError: for another type than float32, float16 or bfloat16, or a half-precision model under AMP.
    """
    model_dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    if model_dtype == torch.float16:
        logger.warning('float16 weights lose small updates; bfloat16 is the better half precision for training.')
    if not args.amp:
        return Precision(model_dtype, nullcontext, None)
    if model_dtype not in (None, torch.float32):
        raise UsageError(f'--amp needs a float32 model, --model-dtype is {args.model_dtype}; give one of the two')
    amp_dtype = getattr(torch, args.amp_dtype)
    autocast = partial(torch.autocast, device_type=device.type, dtype=amp_dtype)
    scaled = device.type == 'cuda' and amp_dtype == torch.float16
    return Precision(model_dtype, autocast, utils.NativeScaler(device=device.type) if scaled else None)


def check_source(args: Namespace) -> None:
    """Refuse a data folder that is not there, or splits of it that are not there or share images."""
    root = args.data_dir or args.data
    if args.dataset == 'shapes':
        return
    if folders.reads_folders(args.dataset):
        folders.check_image_folder(root)
    folders.check_splits(args.dataset, root, args.train_split, args.val_split)


def build_model(args: Namespace, create_model: Callable[..., Any]) -> nn.Module:
    """The classifier of a training; ahead of it, and of its weights' download, stands the look at the data."""
    check_source(args)
    return build_classifier(args, create_model)


def build_classifier(args: Namespace, create_model: Callable[..., Any]) -> nn.Module:
    """Create the classifier with timm's factory, on the CPU; it needs no data.

    Raises:
        UsageError: if the factory cannot make it.
    """
    in_chans = args.in_chans or (args.input_size[0] if args.input_size else 3)
    num_classes = args.num_classes
    if num_classes is None and args.dataset == 'shapes':
        num_classes = len(SHAPE_CLASSES)
    given = {
        'in_chans': in_chans,
        'num_classes': num_classes,
        'drop_path_rate': args.drop_connect if args.drop_connect is not None else args.drop_path,
        **options_as(args, 'pretrained drop_rate=drop drop_block_rate=drop_block global_pool=gp bn_momentum bn_eps'),
        **options_as(args, 'scriptable=torchscript checkpoint_path=initial_checkpoint'),
    }
    if args.pretrained_path:
        # num_classes=-1 makes timm adapt the head to ours.
        given['pretrained_cfg_overlay'] = {'file': args.pretrained_path, 'num_classes': -1}
    model = create_from_files(create_model, args, **given)
    _init_head(model, args.head_init_scale, args.head_init_bias)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    num_params = sum(p.numel() for p in model.parameters())
    logger.info('Model %s created, %d parameters.', safe_model_name(args.model), num_params)
    return model


def create_from_files(create_model: Callable[..., Any], args: Namespace, **given: Any) -> Any:
    """Call timm's or effdet's factory, with `--model-kwargs` too; what it cannot use is the user's mistake.

    Raises:
        UsageError: for every error of the factory.
    """
    if twice := first_of([name for name in args.model_kwargs if name in given]):
        raise UsageError(f'--model-kwargs {twice}: there is an option of its own for it; see --help')
    weights = [('--initial-checkpoint', args.initial_checkpoint)]
    if args.pretrained:
        weights.append(('--pretrained-path', args.pretrained_path))
    for flag, path in weights:
        if path and not os.path.isfile(path):
            raise UsageError(f'{flag} {path}: there is no such file')
    path = next((path for _, path in weights if path), None)
    try:
        return create_model(args.model, **given, **args.model_kwargs)
    except UsageError:
        raise
    except Exception as error:  # timm, its models and the readers of weights have no error in common
        cause = error.__cause__ if isinstance(error.__cause__, pickle.UnpicklingError) else error
        if path and isinstance(cause, (pickle.UnpicklingError, EOFError)):
            raise unreadable(path, cause) from error
        if isinstance(error, OSError) and not path and (which := _downloaded(args)):
            flag, instead = which
            raise UsageError(
                f'the pretrained weights of {args.model} cannot be downloaded ({type(error).__name__}); '
                f'give {instead} FILE, or leave out {flag}'
            ) from error
        told = one_line(str(error))[:MAX_TOLD] or type(error).__name__
        if 'loading state_dict' in told:
            raise UsageError(
                f'{path} does not fit --model {args.model} with these classes and options: {told}; --pretrained '
                f'--pretrained-path {path} takes all but a head of other classes'
            ) from error
        raise UsageError(f'cannot make --model {args.model}{f" from {path}" if path else ""}: {told}') from error


def _downloaded(args: Namespace) -> tuple[str, str] | None:
    """The option that downloads weights, if one is set, and the one that takes a file in its place."""
    detects = 'pretrained_backbone' in args
    if detects and args.pretrained_backbone:
        return '--pretrained-backbone', '--pretrained-backbone-path'
    return ('--pretrained', '--initial-checkpoint' if detects else '--pretrained-path') if args.pretrained else None


def check_input(model: nn.Module, args: Namespace, data_config: dict[str, Any]) -> None:
    """Show the classifier, on the CPU, one black image of each training size but its own, before anything is written.

    Raises:
        UsageError: if it does not take them.
    """
    if args.naflex_loader or args.torchscript:
        return
    channels, *size = data_config['input_size']
    sizes = [(side, side) for side in args.train_img_sizes or []] or [tuple(size)]
    if not args.model_kwargs and args.in_chans in (None, channels):  # else it may have been made for other images
        own = (getattr(model, 'pretrained_cfg', None) or {}).get('input_size')
        sizes = [size for size in sizes if (channels, *size) != own]
    training = model.training
    model.eval()
    try:
        for height, width in sizes:
            with torch.no_grad():  # a model may keep what it makes here
                model(torch.zeros(1, channels, height, width))
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        advice = f'; --model-kwargs img_size={height} may make it for them' if height == width else ''
        told = one_line(str(error))[:MAX_TOLD]
        raise UsageError(
            f'--model {args.model} takes no images of {channels}x{height}x{width}: {told}{advice}'
        ) from error
    finally:
        model.train(training)


def _init_head(model: Any, scale: float | None, bias: float | None) -> None:
    if scale is None and bias is None:
        return
    head = model.get_classifier()
    with torch.no_grad():
        if scale is not None:
            head.weight.mul_(scale)
            head.bias.mul_(scale)
        if bias is not None:
            nn.init.constant_(head.bias, bias)


def resolve_data(args: Namespace, model: nn.Module) -> dict[str, Any]:
    """Input size, mean, std, interpolation and crop from the options and the model's defaults (timm's function)."""
    options = dict(vars(args))
    if args.dataset == 'shapes' and not args.img_size and not args.input_size:
        options['img_size'] = SHAPES_IMG_SIZE
    data_config = resolve_data_config(options, model=model, verbose=utils.is_primary(args))
    check_input(model, args, data_config)
    return data_config


def place_model(model: nn.Module, args: Namespace, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Move the classifier to its device and format, and convert its batch norms where the options ask for it."""
    if args.split_bn:
        if args.aug_splits <= 1 and not args.resplit:
            raise UsageError('--split-bn needs --aug-splits 2 or more, or --resplit')
        model = convert_splitbn_model(model, max(args.aug_splits, 2))
    model.to(device=device, dtype=dtype)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if args.distributed and args.sync_bn:
        if args.split_bn:
            raise UsageError('--sync-bn does not work with --split-bn')
        if device.type == 'cpu':
            raise UsageError('--sync-bn needs GPUs, torch has no such batch norm for CPUs; use --dist-bn reduce')
        model = convert_sync_batchnorm(model)
    if args.torchscript:
        if args.torchcompile or args.sync_bn:
            raise UsageError('--torchscript works neither with --torchcompile nor with --sync-bn')
        model = torch.jit.script(model)
    return model
