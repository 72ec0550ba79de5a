"""From label maps to what the networks see: slots, boundaries, one-hot maps, pooling and painting by segment.

Labels are int64 or uint8 [B, H, W]: ids of segments (0..65535, without meaning or order) or of classes (255 =
unknown). The inputs' shapes fix all shapes, so nothing here makes the host wait for the device.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from timm_repaint.precision import at_least_float32, working_dtype

SEGMENT_SLOTS = 256
RANDOM_CODE_DIM = 8
COPIES = 8  # of the sums of large maps
LARGE_PX = 128  # width
DETAILS = ('keep', 'swap', 'none')
Draws = torch.Generator | None  # a source of random numbers; None: the global one


class Shapes(NamedTuple):
    """What all networks need of a batch's label maps, so that it is computed once."""

    labels: Tensor  # [B, H, W] int64 or uint8
    slots: Tensor  # [B, H, W] int64, see `segment_slots`
    boundary: Tensor  # [B, 1, H, W] uint8, see `boundary_map`


def find_shapes(labels: Tensor | Shapes) -> Shapes:
    """Of label maps [B, H, W]; what is found already stays as it is."""
    return labels if isinstance(labels, Shapes) else Shapes(labels, segment_slots(labels), boundary_map(labels))


def segment_slots(labels: Tensor) -> Tensor:
    """Slot of each pixel's segment among those of the batch: its label modulo `SEGMENT_SLOTS`, plus 256 an image.

    Two segments whose ids are a multiple of 256 apart share a slot, so they share a latent: harmless, they are only
    repainted alike.

    Args:
        labels: [B, H, W] int64 or uint8, any ids.
    Returns:
        [B, H, W] int64; of image b 256 b to 256 b + 255.
    """
    first = torch.arange(0, len(labels) * SEGMENT_SLOTS, SEGMENT_SLOTS, device=labels.device)
    return (labels & (SEGMENT_SLOTS - 1)) + first[:, None, None]  # as remainder(), which is much slower


def boundary_map(labels: Tensor) -> Tensor:
    """1 where a pixel's label differs from its left, right, upper or lower neighbour's, else 0.

    Args:
        labels: [B, H, W] int64 or uint8.
    Returns:
        [B, 1, H, W] uint8, 0 or 1, channels last in memory.
    """
    # Numbers, not truth values: torch's compiler makes invalid C++ of padded masks on CPUs.
    beside = (labels[:, :, 1:] != labels[:, :, :-1]).view(torch.uint8)  # [B, H, W-1]
    below = (labels[:, 1:] != labels[:, :-1]).view(torch.uint8)  # [B, H-1, W]
    edge = torch.zeros_like(labels, dtype=torch.uint8)
    for part, differs in (
        (edge[:, :, 1:], beside),
        (edge[:, :, :-1], beside),
        (edge[:, 1:], below),
        (edge[:, :-1], below),
    ):
        part |= differs
    return edge.unsqueeze(3).permute(0, 3, 1, 2)


def one_hot(labels: Tensor, num_labels: int) -> Tensor:
    """One channel a class, the last one for unknown: 255, or any label outside 0..num_labels-1.

    Args:
        labels: [B, H, W] int64 or uint8 class ids.
        num_labels: number of classes.
    Returns:
        [B, num_labels + 1, H, W] float32, 0 or 1; each pixel sums to 1.
    """
    known = (labels >= 0) & (labels < num_labels) & (labels != 255)
    index = torch.where(known, labels, num_labels).long().unsqueeze(1)
    batch, height, width = labels.shape
    zeros = torch.zeros(batch, num_labels + 1, height, width, device=labels.device)
    return zeros.scatter_(1, index, 1.0)


def resize_labels(labels: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Nearest resize: each output pixel takes the label under its centre.

    Args:
        labels: [B, H, W] int64.
        size_hw: wanted height and width in pixels.
    Returns:
        [B, h, w] int64.
    """
    factors = {old / new for new, old in zip(size_hw, labels.shape[1:], strict=True)}
    if len(factors) == 1 and (factor := factors.pop()).is_integer():
        step = int(factor)
        return labels[:, step // 2 :: step, step // 2 :: step]
    rows, columns = (
        (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
        for new, old in zip(size_hw, labels.shape[1:], strict=True)
    )
    return labels.index_select(1, rows).index_select(2, columns)


def pool_segments(features: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Mean feature of each segment of each image.

    Args:
        features: [B, C, h, w].
        slots: [B, h, w] int64, see `segment_slots`.
    Returns:
        means: [B, 256, C] float32, 0 for a slot without pixels.
        present: [B, 256] bool, True where the slot has a pixel.
    """
    batch, channels = features.shape[:2]
    # A one behind each pixel's features; sums overflow float16.
    counted = at_least_float32(F.pad(features, (0, 0, 0, 0, 0, 1), value=1.0))
    sums = sum_segments(counted, slots)
    counts = sums.detach()[:, channels:]  # no gradient goes there
    means = sums[:, :channels] / counts.clamp(min=1)
    return means.view(batch, SEGMENT_SLOTS, channels), (counts > 0).view(batch, SEGMENT_SLOTS)


def sum_segments(features: Tensor, slots: Tensor) -> Tensor:
    """Sum of each segment of each image.

    Neighbouring columns of a large map add to different copies of the sums, which are added up at the end: on a GPU no
    two of eight neighbours wait for each other, and no sum has more than an eighth of its pixels.

    Args:
        features: [B, C, h, w], float32 or float64.
        slots: [B, h, w] int64, see `segment_slots`.
    Returns:
        [B * 256, C].
    """
    rows = len(slots) * SEGMENT_SLOTS
    copies = COPIES if slots.shape[2] >= LARGE_PX else 1
    if copies > 1:
        slots = slots + torch.arange(slots.shape[2], device=slots.device) % copies * rows
    pixels = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    zeros = torch.zeros(copies * rows, pixels.shape[1], dtype=pixels.dtype, device=pixels.device)
    sums = zeros.index_add(0, slots.flatten(), pixels)
    return sums.view(copies, rows, -1).sum(0) if copies > 1 else sums


class PaintCodes(torch.autograd.Function):
    """Each pixel's code and, behind it, what else is known of it; codes' gradients by `sum_segments`.

    torch's own backward pass of the same takes four times as long on a CPU, and sorts the pixels on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor, slots: Tensor, *others: Tensor) -> Tensor:
        """[B, 256, C], [B, H, W] int64 and maps [B, K, H, W] -> [B, C + all K, H, W] of the codes' type."""
        ctx.save_for_backward(slots)
        ctx.codes = codes.shape, codes.dtype
        end = codes.shape[2]
        more = sum(other.shape[1] for other in others)
        painted = F.embedding(slots, F.pad(codes.flatten(0, 1), (0, more)) if more else codes.flatten(0, 1))
        for other in others:
            start, end = end, end + other.shape[1]
            painted[..., start:end] = other.permute(0, 2, 3, 1)
        return painted.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        """To the codes alone."""
        shape, dtype = ctx.codes
        sums = sum_segments(at_least_float32(gradient[0][:, : shape[2]]), ctx.saved_tensors[0])
        return sums.to(dtype).view(shape), *[None] * (len(ctx.needs_input_grad) - 1)


def paint_segments(codes: Tensor, slots: Tensor, *others: Tensor) -> Tensor:
    """Each pixel gets its segment's code.

    Args:
        codes: [B, 256, C].
        slots: [B, H, W] int64, see `segment_slots`.
        others: Maps [B, K, H, W] that go behind the codes; no gradient goes to them.
    Returns:
        [B, C, H, W], or [B, C + all K, H, W], of the codes' type, channels last in memory.
    """
    return PaintCodes.apply(codes, slots, *others)


def segment_detail(image: Tensor, slots: Tensor) -> Tensor:
    """What is left of an image without its segments' mean colours: texture, shading and fine lines.

    Args:
        image: [B, C, H, W].
        slots: [B, H, W] int64, see `segment_slots`.
    Returns:
        [B, C, H, W] of the image's type, mean 0 in every segment.
    """
    means, _ = pool_segments(image, slots)
    return image - paint_segments(means.to(image.dtype), slots)


def check_choice(what: str, name: str, choices: Collection[str]) -> str:
    """The name, after a look at whether there is one like it.

    Raises:
        ValueError: with the choices.
    """
    if name not in choices:
        raise ValueError(f'unknown {what} {name!r}; choose one of {", ".join(choices)}')
    return name


def draw_detail(kind: str, image: Tensor, slots: Tensor, generator: Draws = None) -> Tensor | None:
    """The detail that goes into a repaint, [B, C, H, W]; None where it is painted without.

    Args:
        kind: 'keep' (`segment_detail`), 'swap' (`swap_detail` of it) or 'none'.
        image: [B, C, H, W].
        slots: [B, H, W] int64, see `segment_slots`.
        generator: source of the random numbers; None for the global one.
    """
    if kind == 'none':
        return None
    detail = segment_detail(image, slots)
    return swap_detail(detail, slots, generator) if kind == 'swap' else detail


def swap_detail(detail: Tensor, slots: Tensor, generator: Draws = None) -> Tensor:
    """Each segment gets the detail of a random image of the batch (its own one too), from a random place.

    Where a segment's source reaches beyond the image, it goes on at the opposite border. So in a large batch the
    texture is another image's, and in a batch of one it is the image's own, moved.

    Args:
        detail: [B, C, H, W].
        slots: [B, H, W] int64, see `segment_slots`.
        generator: source of the random numbers; None for the global one.
    Returns:
        [B, C, H, W].
    """
    batch, _, height, width = detail.shape
    uniform = draw_uniform((batch, SEGMENT_SLOTS, 3), detail.device, generator).unbind(2)
    places = [u * extent for u, extent in zip(uniform, (batch, height, width), strict=True)]
    sources = paint_segments(torch.stack(places, dim=2).long(), slots)  # [B, 3, H, W]: image, rows and columns further
    rows = torch.arange(height, device=detail.device)[:, None]
    columns = torch.arange(width, device=detail.device)
    image = sources[:, 0].clamp(max=batch - 1)  # ndtr rounds up to 1
    swapped = detail.permute(0, 2, 3, 1)[image, (sources[:, 1] + rows) % height, (sources[:, 2] + columns) % width]
    return swapped.permute(0, 3, 1, 2)


def draw_normal(shape: tuple[int, ...], device: torch.device, generator: Draws = None) -> Tensor:
    """Draw float32 from N(0, 1) on `device`; a generator of another device draws on its own, so numbers stay its."""
    if generator is None:  # torch.compile takes no generator, not even none, where batches differ in size
        return torch.randn(shape, device=device)
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def draw_uniform(shape: tuple[int, ...], device: torch.device, generator: Draws = None) -> Tensor:
    """Draw float32 from 0 to 1, as `draw_normal`; 1 itself can come, as ndtr rounds up."""
    return torch.special.ndtr(draw_normal(shape, device, generator))


def num_condition_channels(num_labels: int | None) -> int:
    """Number of channels that `discriminator_condition` gives."""
    return 1 + (RANDOM_CODE_DIM if num_labels is None else num_labels + 1)


def discriminator_condition(labels: Tensor | Shapes, num_labels: int | None, generator: Draws = None) -> Tensor:
    """The shapes alone, without anything from the image: what D sees, and G with latent 'global' (SPADE's scheme).

    Args:
        labels: [B, H, W] int64, or what `find_shapes` makes of it.
        num_labels: number of classes of semantic maps; None for segment maps, whose segments get random codes.
        generator: source of the random numbers; None for the global one.
    Returns:
        [B, num_condition_channels(num_labels), H, W]: one-hot classes in float32 or N(0, 1) codes in `working_dtype`,
        then the boundary.
    """
    shapes = find_shapes(labels)
    if num_labels is not None:
        classes = one_hot(shapes.labels, num_labels)
        return torch.cat([classes, shapes.boundary.to(classes.dtype)], dim=1)
    codes = draw_normal((len(shapes.slots), SEGMENT_SLOTS, RANDOM_CODE_DIM), shapes.slots.device, generator)
    codes = codes.to(working_dtype(codes))
    return paint_segments(codes, shapes.slots, shapes.boundary)
