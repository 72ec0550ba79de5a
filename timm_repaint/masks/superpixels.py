"""Segments on the batch's device, without training: neighbouring pixels of a small copy join while they are alike.

A minimum spanning forest grows as in Boruvka's algorithm: in each round every segment finds its most similar neighbour,
and joins it if joining costs little (Ward's criterion). The pixels of a finer copy then choose between the segments
beside them. All shapes follow from the images' size, nothing makes the host wait, and the sums that decide are of whole
numbers, so a CPU and a GPU differ in ties only.
"""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from timm_repaint.masks.on_device import DeviceMasks
from timm_repaint.networks.label_maps import resize_labels

SMALL_SIDE_PX = 56  # shorter side of the small copy, more or less
KEPT_SIDE_PX = 80  # smaller images are their own copy
DEAREST = 1.55  # dearest join, a pixel of the small copy, in squared levels of 0..255
LEAST_CONTRAST = 1.0  # of two pixels, in squared levels
LEAST_SIDE = 10 / 32  # pixels of the smallest segment, a pixel of the image's shorter side: as FH's
CHROMA = 2.0  # weight of the two colour differences beside brightness
STEPS = 4  # a level of brightness: colours of the small copy are whole numbers
NEARER = 0.1  # how much nearer to a neighbour's colour than half-way a pixel of the finer copy must be

# How many times its neighbour's least cost a segment may pay in a round: at first anything, then nearly mutual choices.
ROUNDS = (math.inf, math.inf, math.inf, 3.0, 3.0)
ROUNDS_WITH_SPECKS = 3  # the last ones, in which too small segments join whatever it costs
JUMPS = 7  # to the end of a chain of 2^7 segments that join in one round
NO_EDGE = torch.iinfo(torch.int32).max


class SuperpixelMasks(DeviceMasks):
    """Cuts images into some fifty segments of similar colour, on the device where the images are.

    Segment ids are 0 to n - 1 in each image; few of them have lost all pixels to finer edges.

    Sources: X. Wei et al., Superpixel hierarchy, IEEE TIP 2018 (Boruvka's rounds by mean colours); J. Ward,
    Hierarchical grouping to optimize an objective function, JASA 1963.
    """

    kind: str = 'segment'
    num_labels: int | None = None

    def cut(self, image_pm1: Tensor) -> Tensor:
        """[B, 3, H, W] float32 in [-1, 1] -> segment ids [B, H, W] int64."""
        height, width = image_pm1.shape[2:]
        step = pixels_a_step(height, width)
        least_px = round(LEAST_SIDE * min(height, width) / step**2)
        if step == 1:
            return join(opponent(image_pm1).round_(), least_px)[0]
        fine = opponent(shrink(image_pm1, step // 2))  # [3, B, 2h, 2w]
        split = fine.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [3, B, h, 2, w, 2]
        quarters = split.permute(3, 5, 0, 1, 2, 4).contiguous()  # [2, 2, 3, B, h, w]
        small = quarters[0, 0] + quarters[0, 1] + quarters[1, 0] + quarters[1, 1]  # [3, B, h, w]
        segments, means = join(small.mul_(0.25).round_(), least_px)
        return resize_labels(refine(segments, means, quarters), (height, width))


def pixels_a_step(height: int, width: int) -> int:
    """How many pixels of an image are one of its small copy, in each direction: 1 or an even number."""
    shorter = min(height, width)
    return 1 if shorter <= KEPT_SIDE_PX else 2 * max(1, round(shorter / (2 * SMALL_SIDE_PX)))


def shrink(image: Tensor, times: int) -> Tensor:
    """Mean of each times x times pixels: [B, 3, H, W] -> [B, 3, 2h, 2w]."""
    height, width = image.shape[2:]
    if height % (2 * times) or width % (2 * times):
        return F.adaptive_avg_pool2d(image, (_fine_side(height, times), _fine_side(width, times)))
    rows = reduce(torch.add, [image[:, :, first::times] for first in range(times)])  # faster than pooling on a CPU
    return reduce(torch.add, [rows[..., first::times] for first in range(times)]) / times**2


def _fine_side(side: int, times: int) -> int:
    return 2 * math.ceil(side / (2 * times))


def opponent(image_pm1: Tensor) -> Tensor:
    """[B, 3, H, W] RGB in [-1, 1] -> [3, B, H, W]: brightness and two weighted colour differences, STEPS a level."""
    red, green, blue = (image_pm1 * (127.5 * STEPS)).unbind(1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([grey, (red - grey) * CHROMA, (blue - grey) * CHROMA])


class Grid:
    """The edges between neighbouring pixels of B images of h x w pixels, all pixels in one row of B*h*w.

    An edge is one int32: the upper bits of its cost as a float, which sort as the cost does, then its number in its
    image: 2 x the left or upper pixel, + 1 if the other pixel is below it. So of edges of one cost the first is the
    cheapest, and plain areas join at once.

    Args:
        colours: [3, B, h, w].
    """

    def __init__(self, colours: Tensor) -> None:
        _, batch, height, width = colours.shape
        per_image = height * width
        self.width = width
        self.colours = colours.reshape(3, -1)
        self.itself = torch.arange(batch * per_image, device=colours.device)
        place = self.itself % per_image
        self._first = self.itself - place  # of the same image
        self._numbers = 2 ** (2 * per_image - 1).bit_length()
        self._edges = []
        for below, inside in enumerate((place % width < width - 1, place < per_image - width)):
            reach = width if below else 1
            number = (2 * place + below).int() | blank(~inside)
            contrast = _distance(self.colours, reach) + LEAST_CONTRAST * STEPS**2
            self._edges.append((reach, number[:-reach], contrast))

    def cheapest(self, means: Tensor, shares: Tensor, segment: Tensor) -> Tensor:
        """The cheapest edge to another segment of each pixel, [N] int32, or NO_EDGE.

        The cost is Ward's, but by the geometric mean of the segments' contrast and that of the edge's two pixels: on a
        slope of colour segments differ, and pixels hardly do.

        Args:
            means: [3, N], mean colours of the pixels' segments.
            shares: [N], 1 / the segments' sizes.
            segment: [N].
        """
        best = torch.full_like(segment, NO_EDGE, dtype=torch.int32)
        for reach, number, contrast in self._edges:
            cost = _distance(means, reach).mul_(contrast).sqrt_().div_(shares[reach:] + shares[:-reach])
            edge = cost.view(torch.int32).bitwise_and_(-self._numbers).bitwise_or_(number)
            edge |= blank(segment[reach:] == segment[:-reach])
            for end in (best[:-reach], best[reach:]):
                torch.minimum(end, edge, out=end)
        return best

    def cost(self, edge: Tensor) -> Tensor:
        """What joining along an edge costs, NaN without one: [N] int32 -> [N] float32."""
        return (edge & -self._numbers).view(torch.float32)

    def ends(self, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels at both ends of edges that the pixels of an image have: [N] int32 -> two of [N]."""
        number = (edge & (self._numbers - 1)).long()
        first = self._first + (number >> 1)
        second = first + 1 + (number & 1) * (self.width - 1)
        return first.clamp_(max=len(edge) - 1), second.clamp_(max=len(edge) - 1)  # of NO_EDGE any


def _distance(colours: Tensor, reach: int) -> Tensor:
    """Squared distance of each pixel's colour and that of the pixel `reach` further: [3, N] -> [N - reach]."""
    differences = (colours[:, reach:] - colours[:, :-reach]).square_()
    return (differences[0] + differences[1]).add_(differences[2])


def blank(where: Tensor) -> Tensor:
    """int32 that makes an edge NO_EDGE by `|` where there is none, else 0; much faster than filling on a CPU."""
    return where.int() * NO_EDGE


def choose(where: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """torch.where for int64; much faster on a CPU."""
    return old + (new - old) * where


def join(colours: Tensor, least_px: int) -> tuple[Tensor, Tensor]:
    """Segments of small images.

    Args:
        colours: [3, B, h, w], whole numbers.
        least_px: smaller segments join their most similar neighbour.

    Returns:
        segments: [B, h, w] int64, 0 to n - 1 in each image.
        means: [3, B, h, w], the mean colour of each pixel's segment.
    """
    _, batch, height, width = colours.shape
    grid = Grid(colours)
    dearest = DEAREST * STEPS**2 * height * width
    itself = grid.itself
    segment = itself  # of each pixel, named by one of its pixels
    means = sums = grid.colours
    shares = sizes = torch.ones_like(sums[0])
    for number, slack in enumerate(ROUNDS):
        edge = grid.cheapest(means, shares, segment)
        if number:
            edge = torch.full_like(edge, NO_EDGE).scatter_reduce_(0, segment, edge, 'amin')
        cost = grid.cost(edge)
        joins = cost <= dearest
        first, second = (segment.index_select(0, end) for end in grid.ends(edge))
        other = first + second - itself
        specks = None
        if number >= len(ROUNDS) - ROUNDS_WITH_SPECKS:
            specks = (sizes < least_px) & (edge < NO_EDGE)
        if slack < math.inf:
            joins &= cost <= slack * cost.index_select(0, choose(joins, other, itself))
        if specks is not None:
            joins |= specks
        target = choose(joins, other, itself)
        mutual = target.index_select(0, target) == itself
        target = choose(mutual, torch.minimum(target, itself), target)  # of two that chose each other, one stays
        for _ in range(JUMPS):
            target = target.index_select(0, target)
        segment = target.index_select(0, segment)
        sums = torch.zeros_like(sums).index_add_(1, target, sums)
        sizes = torch.zeros_like(sizes).index_add_(0, target, sizes)
        share = sizes.reciprocal()
        means, shares = (sums * share).index_select(1, segment), share.index_select(0, segment)
    used = torch.zeros_like(itself).index_fill_(0, segment, 1).view(batch, -1)
    named = (used.cumsum(1) - 1).view(-1).index_select(0, segment)
    return named.view(batch, height, width), means.view(3, batch, height, width)


def refine(segments: Tensor, means: Tensor, quarters: Tensor) -> Tensor:
    """Each quarter of a pixel stays, or goes to the segment beside it or above or below it, whose colour is nearer.

    Args:
        segments: [B, h, w].
        means: [3, B, h, w], the segments' mean colours.
        quarters: [2, 2, 3, B, h, w], the colours of the pixels' quarters: upper and lower, left and right.

    Returns:
        [B, 2h, 2w] int64.
    """
    _, height, width = segments.shape
    beside, gain_beside = _gain(segments, means, quarters, 2)
    above, gain_above = _gain(segments, means, quarters.transpose(0, 1), 1)
    gain_above = gain_above.transpose(0, 1)
    refined = choose(gain_beside > 0, beside, segments)  # [2, 2, B, h, w]
    refined = choose(gain_above > gain_beside.clamp_(min=0), above[:, None], refined)
    return refined.permute(2, 3, 0, 4, 1).reshape(-1, 2 * height, 2 * width)


def _gain(segments: Tensor, means: Tensor, quarters: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The segments of the neighbours before and after each pixel along a dimension, and how much nearer they are.

    Args:
        quarters: [2, 2, 3, B, h, w], the second dimension along `dim`.

    Returns:
        neighbours: [2, B, h, w].
        gain: [2, 2, B, h, w], half the difference of squared distances, less NEARER; 0 at the border.
    """
    # The neighbours of colour and segment alike, the pixel itself where there is none.
    segments_there, means_there = (
        torch.stack([_moved(x, dim - 3, -1), _moved(x, dim - 3, 1)]) for x in (segments, means)
    )
    towards = means_there - means  # [2, 3, B, h, w]
    threshold = ((0.5 + NEARER) * towards + means).mul_(towards).sum(1)  # of colour * towards, [2, B, h, w]
    return segments_there, (quarters * towards).sum(2) - threshold


def _moved(x: Tensor, dim: int, by: int) -> Tensor:
    """Each place's neighbour before it (by -1) or after it (by 1); the place itself at the border."""
    length = x.shape[dim]
    if by < 0:
        return torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, length - 1)], dim)
    return torch.cat([x.narrow(dim, 1, length - 1), x.narrow(dim, length - 1, 1)], dim)
