"""What E, G and D need to live in somebody else's training: state, moves, copies, several processes.

Outside their own calls their parameters require no gradient and have none, so wrappers, optimizers, clipping and weight
averages of the network behind them leave them alone.
"""

import json
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from timm_repaint.config import RepaintConfig
from timm_repaint.errors import UsageError
from timm_repaint.gan_optimizer import GanOptimizer
from timm_repaint.gather import is_distributed
from timm_repaint.guard import Guard
from timm_repaint.log import logger
from timm_repaint.networks.discriminator import Discriminator
from timm_repaint.packed import pack, read_header, unpack
from timm_repaint.painters import AnyRepainter

# Of the machine, the start or the networks (which have their own entry), not of the training.
NO_SETTINGS = ('masks', 'checkpoint', 'freeze', 'generator', 'width', 'latent', 'latent_dim', 'detail', 'temperature')
HALF = (torch.float16, torch.bfloat16)
SCALE_UNITS = 2**24
LARGEST_SCALE = 2.0**38
WITHOUT_GRAPHS: dict[str | None, str] = {'reduce-overhead': 'default', 'max-autotune': 'max-autotune-no-cudagraphs'}


class GanModule(nn.Module):
    """E and G, D, their optimizers and counters.

    Args:
        config: All settings.
        repainter: E and G, or a painter without a network.
        discriminator: D; None where nothing learns.

    Attributes:
        optimizers: 'generator' (E+G) and 'discriminator'; empty where nothing learns.
        updates: Number of updates so far.
        stopped: Whether the repaint phase is over.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: RepaintConfig, repainter: AnyRepainter, discriminator: Discriminator | None) -> None:
        super().__init__()
        self.config = config
        self.repainter = repainter
        self.discriminator = discriminator
        self.optimizers: dict[str, GanOptimizer] = {}
        if discriminator is not None:
            most = config.max_nonfinite
            self.optimizers['generator'] = GanOptimizer('generator', repainter, config.g_lr, most)
            self.optimizers['discriminator'] = GanOptimizer('discriminator', discriminator, config.d_lr, most)
        advice = "it is not the generator's fault: go on from its last good checkpoint with a lower learning rate"
        self.task_guard = Guard('task', "task's gradient", advice, config.max_nonfinite)
        self.updates = 0
        self.stopped = False
        for name in ('mean', 'std'):
            values = torch.tensor(getattr(config, name), dtype=torch.float32)  # they may be whole numbers
            self.register_buffer(name, values.view(1, 3, 1, 1), persistent=False)
        self._relate_ranges()
        self.requires_grad_(False)
        self.register_state_dict_post_hook(_make_contiguous)

    @property
    def _learns_here(self) -> bool:
        """Whether T learns from the coming batch."""
        return not (self.config.separate_batches and self._paints_next and not self.stopped)

    @property
    def _paints_next(self) -> bool:
        """Whether E and G learn in the coming update."""
        first, last = self.config.schedule
        return self.discriminator is not None and self.updates % (first + last) >= first

    def to_pm1(self, image_norm: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """T's normalised image [B, 3, H, W] -> in [-1, 1], of this type (None: E and G's)."""
        image_pm1 = torch.empty_like(image_norm, dtype=dtype or self.mean.dtype)
        image_norm = image_norm.to(self.mean.dtype)
        return torch.addcmul(self.grey_pm1, image_norm, self.pm1_per_norm, out=image_pm1)

    def to_norm(self, image_pm1: Tensor, dtype: torch.dtype) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> T's normalised image in T's number format."""
        return torch.addcmul(self.grey_norm, image_pm1, self.norm_per_pm1).to(dtype)

    def _relate_ranges(self) -> None:
        """What lies between T's normalised images and [-1, 1]; all [1, 3, 1, 1]."""
        self.pm1_per_norm, self.norm_per_pm1 = 2 * self.std, 0.5 / self.std
        self.grey_pm1, self.grey_norm = 2 * self.mean - 1, (0.5 - self.mean) / self.std

    @property
    def skipped(self) -> dict[str, int]:
        """Updates that were skipped since a loss was not finite, by whose it was; reading it waits for the device."""
        return {guard.name: guard.skipped for guard in self._guards}

    def get_extra_state(self) -> Tensor:
        """Adam's moments, counters, scalers and settings as one uint8 tensor of a length that does not change.

        They are no buffers: those a wrapper for several processes would send at every forward pass.
        """
        return pack(self._header, [self._numbers, *self._tensors], self.mean.device)

    def set_extra_state(self, state: Any) -> None:
        """Take `get_extra_state` of another one; settings that differ are named in a warning.

        Raises:
            UsageError: if it is none, or of other networks.
        """
        self._check_networks(state)
        header, numbers = read_header(state), self._numbers
        for name, (ours, theirs) in _differences(self._header['settings'], header['settings']).items():
            logger.warning('The state was saved with %s %s; it goes on with %s.', name, theirs, ours)
        learned = self._tensors if header['learns'] and self.optimizers else []  # a frozen one takes the weights alone
        unpack(state, [numbers, *learned], getattr(torch, header['moments']))
        updates, stopped, *scalers = numbers.tolist()
        self.updates, self.stopped = updates, bool(stopped)
        if stopped:
            logger.warning('The state was saved after stop(): from here on images pass unchanged.')
        for optimizer, scale, growth in zip(self.optimizers.values(), scalers[::2], scalers[1::2], strict=False):
            optimizer.set_scaler(scale / SCALE_UNITS, growth)
        for optimizer in self.optimizers.values():
            optimizer.drop()
        for guard in self._guards:
            guard.restored()

    @torch.no_grad()
    def send_from_first(self) -> None:
        """Give all processes the first one's weights and state."""
        if not is_distributed():
            return
        state = self.get_extra_state()
        tensors = [*self.parameters(), *self.buffers()]
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # a set's order differs between processes
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.flatten() for tensor in own])
            torch.distributed.broadcast(flat, 0)
            for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(part.view(tensor.shape))
        torch.distributed.broadcast(state, 0)
        self.set_extra_state(state)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile E and G, and D, in place; a `torch.compile` around the whole leaves this module out.

        Without CUDA graphs, whichever `mode` it is: their outputs have to outlive the next call of another network.
        """
        import torch._functorch.config

        mode = kwargs.get('mode')
        kwargs['mode'] = WITHOUT_GRAPHS.get(mode, mode)

        torch._functorch.config.donated_buffer = False  # D's graph is used twice, for E+G and for D
        self.repainter.compile(*args, **kwargs)
        if self.discriminator is not None:
            self.discriminator.compile(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> 'GanModule':
        """Follow `.to(…)`, moments included; half precision is for T, E, G and D stay in float32."""

        def keep_precision(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in HALF else moved

        super()._apply(keep_precision, recurse)
        self._relate_ranges()
        for optimizer in self.optimizers.values():
            optimizer.follow_parameters()
        self.task_guard.to(self.mean.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if args and args[0].get('assign_to_params_buffers'):
            raise UsageError('assign=True would part the weights from their optimizers; load without it')
        if f'{prefix}_extra_state' in state_dict:
            self._check_networks(state_dict[f'{prefix}_extra_state'])
        if self.discriminator is None:  # frozen now, and not when it was saved
            for key in [key for key in state_dict if key.startswith(f'{prefix}discriminator.')]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_networks(self, state: Any) -> None:
        """Stop at a state of other networks, before anything is loaded."""
        theirs = read_header(state)
        differ = _differences(self.repainter.config, theirs['networks'])
        if self.optimizers and theirs['learns'] and theirs['layers'] != self._header['layers']:
            differ['layers of D (by img_size)'] = (self._header['layers'], theirs['layers'])
        if differ:
            told = '; '.join(f'{name} is {there}, here {here}' for name, (here, there) in differ.items())
            raise UsageError(f'the generator in the checkpoint is another one: {told}; use its settings')

    @property
    def _header(self) -> dict[str, Any]:
        names = [field.name for field in fields(RepaintConfig) if field.name not in NO_SETTINGS]
        moments = next(iter(self.repainter.parameters()), self.mean).dtype
        return {
            'networks': self.repainter.config,
            'settings': json.loads(json.dumps({name: getattr(self.config, name) for name in names})),
            'moments': str(moments).removeprefix('torch.'),
            'learns': bool(self.optimizers),
            'layers': 0 if self.discriminator is None else self.discriminator.num_layers,
        }

    @property
    def _numbers(self) -> Tensor:
        """Updates, whether stopped, then scale and growth of each gradient scaler (0: there is none yet), [6] int64.

        Scales are powers of two, 2^-24 to 2^38: they are kept in units of the least.
        """
        scalers = [*(optimizer.scaler_numbers for optimizer in self.optimizers.values()), (0.0, 0), (0.0, 0)][:2]
        values = [self.updates, int(self.stopped)]
        for scale, growth in scalers:
            values += [round(min(scale, LARGEST_SCALE) * SCALE_UNITS), growth]
        return torch.tensor(values)

    @property
    def _guards(self) -> list[Guard]:
        return [*(optimizer.guard for optimizer in self.optimizers.values()), self.task_guard]

    @property
    def _tensors(self) -> list[Tensor]:
        """Counts of skipped updates and Adam's tensors, on the networks' device."""
        moments = [tensor for optimizer in self.optimizers.values() for tensor in optimizer.tensors]
        return [*(guard.counts for guard in self._guards), *moments]


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (ours[name], theirs.get(name)) for name in ours if theirs.get(name) != ours[name]}


def _make_contiguous(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights that lie in memory with channels last are no tensors for safetensors."""
    for key in state:
        if key.startswith(prefix):
            state[key] = state[key].contiguous()
