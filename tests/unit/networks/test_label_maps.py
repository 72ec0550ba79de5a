import pytest
import torch
import torch.nn.functional as F

from timm_repaint.networks.label_maps import (
    COPIES,
    LARGE_PX,
    SEGMENT_SLOTS,
    boundary_map,
    discriminator_condition,
    draw_detail,
    find_shapes,
    num_condition_channels,
    one_hot,
    paint_segments,
    pool_segments,
    resize_labels,
    segment_slots,
    sum_segments,
    swap_detail,
)


def test_boundary_marks_both_sides_of_an_edge():
    labels = torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 1, 1]]])
    expected = torch.tensor([[[[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]]]).float()
    torch.testing.assert_close(boundary_map(labels).float(), expected)


def test_boundary_of_one_segment_is_empty_up_to_the_border():
    assert not boundary_map(torch.full((2, 5, 4), 7)).any()


def test_boundary_sees_the_difference_of_ids_that_share_a_slot():
    labels = torch.tensor([[[3, 3 + SEGMENT_SLOTS]]])
    assert boundary_map(labels).flatten().tolist() == [1, 1]


def test_slots_stay_in_range_for_any_id():
    labels = torch.tensor([[[0, 255, 256, 65535, 300]]])
    assert segment_slots(labels).flatten().tolist() == [0, 255, 0, 255, 44]
    assert segment_slots(labels.expand(3, -1, -1))[2].flatten().tolist() == [512, 767, 512, 767, 556]


def test_boundary_is_that_of_numbers_padded_one_by_one():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 9, 7))
    padded = F.pad(labels.float().unsqueeze(1), (1, 1, 1, 1), mode='replicate')
    beside = [padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:], padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]]
    wanted = sum((other != labels.unsqueeze(1)).int() for other in beside) > 0
    assert boundary_map(labels).bool().equal(wanted)


def test_pooling_gives_each_segments_mean_and_which_segments_exist():
    features = torch.tensor([[[[1.0, 3.0], [10.0, 20.0]]], [[[5.0, 5.0], [5.0, 9.0]]]])
    slots = segment_slots(torch.tensor([[[0, 0], [255, 255]], [[2, 2], [2, 0]]]))
    means, present = pool_segments(features, slots)
    assert means.shape == (2, SEGMENT_SLOTS, 1)
    assert [means[0, 0, 0], means[0, 255, 0], means[1, 2, 0], means[1, 0, 0]] == [2, 15, 5, 9]
    assert present.nonzero().tolist() == [[0, 0], [0, 255], [1, 0], [1, 2]]
    assert means.sum() == 2 + 15 + 5 + 9


def test_pooling_of_half_precision_sums_in_float32():
    features = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)  # the sum is above float16's largest number
    means, _ = pool_segments(features, torch.zeros(1, 64, 64, dtype=torch.long))
    assert means.dtype == torch.float32
    assert means[0, 0, 0] == 100


@pytest.mark.parametrize('width', [LARGE_PX - 1, LARGE_PX])
def test_neighbours_in_a_large_map_do_not_add_to_one_place(width, monkeypatch):
    torch.manual_seed(0)
    features, labels = torch.randn(2, 3, 4, width), torch.randint(0, 3, (2, 4, width))
    index_add, places = torch.Tensor.index_add, []
    monkeypatch.setattr(torch.Tensor, 'index_add', lambda *args: (places.append(args[2]), index_add(*args))[1])
    sums = sum_segments(features, segment_slots(labels)).view(2, SEGMENT_SLOTS, 3)
    for image, slot in ((0, 0), (0, 2), (1, 1)):
        torch.testing.assert_close(sums[image, slot], (features[image] * (labels[image] == slot)).sum(dim=(1, 2)))
    rows = places[0].view(2, 4, width).unfold(2, COPIES, 1)
    apart = all(len(set(row)) == COPIES for row in rows.flatten(0, 2).tolist())
    assert apart == (width >= LARGE_PX)


def test_bytes_and_whole_numbers_are_the_same_label_maps():
    labels = torch.randint(0, 256, (2, 5, 7))
    for wide, narrow in zip(find_shapes(labels)[1:], find_shapes(labels.byte())[1:], strict=True):
        assert wide.dtype == narrow.dtype and torch.equal(wide, narrow)
    assert torch.equal(one_hot(labels, 20), one_hot(labels.byte(), 20))


def test_painting_puts_other_maps_behind_the_codes_and_gives_the_codes_their_gradient():
    torch.manual_seed(0)
    codes = torch.randn(2, SEGMENT_SLOTS, 3, dtype=torch.float64, requires_grad=True)
    slots, boundary = segment_slots(torch.randint(0, 9, (2, 4, LARGE_PX))), torch.ones(2, 1, 4, LARGE_PX).byte()
    weights = torch.randn(2, 4, 4, LARGE_PX, dtype=torch.float64)
    painted = paint_segments(codes, slots, boundary)
    assert torch.equal(painted[:, :3], paint_segments(codes, slots)) and (painted[:, 3] == 1).all()
    wanted = F.embedding(slots, codes.flatten(0, 1)).permute(0, 3, 1, 2)
    (own,) = torch.autograd.grad((painted * weights).sum(), codes)
    torch.testing.assert_close(own, *torch.autograd.grad((wanted * weights[:, :3]).sum(), codes))


def test_painting_gives_each_pixel_its_segments_code():
    codes = torch.zeros(2, SEGMENT_SLOTS, 2)
    codes[0, 3], codes[1, 3] = torch.tensor([1.0, 2.0]), torch.tensor([7.0, 8.0])
    slots = segment_slots(torch.tensor([[[3, 0]], [[0, 3]]]))
    painted = paint_segments(codes, slots)
    assert painted[0].tolist() == [[[1, 0]], [[2, 0]]]
    assert painted[1].tolist() == [[[0, 7]], [[0, 8]]]


def test_painting_then_pooling_returns_the_codes_of_present_segments():
    torch.manual_seed(0)
    codes = torch.randn(2, SEGMENT_SLOTS, 5)
    slots = segment_slots(torch.randint(0, SEGMENT_SLOTS, (2, 12, 9)))
    means, present = pool_segments(paint_segments(codes, slots), slots)
    torch.testing.assert_close(means[present], codes[present])
    assert not means[~present].any()


def test_each_segment_takes_its_detail_from_one_place_of_one_image():
    torch.manual_seed(0)
    batch, height, width = 3, 8, 6
    places = torch.arange(batch * height * width).view(batch, 1, height, width).float()  # each pixel says where it is
    slots = torch.zeros(batch, height, width, dtype=torch.long)
    slots[:, :, 3:] = 5
    swapped = swap_detail(places, segment_slots(slots))
    assert swapped.shape == places.shape
    sources = set()
    for image in range(batch):
        for slot in (0, 5):
            inside = slots[image] == slot
            moved, own = swapped[image, 0][inside].long(), places[image, 0][inside].long() % (height * width)
            origin, place = moved // (height * width), moved % (height * width)
            down = (place // width - own // width) % height
            right = (place % width - own % width) % width
            assert len(origin.unique()) == len(down.unique()) == len(right.unique()) == 1
            sources.add((origin[0].item(), down[0].item(), right[0].item()))
    assert len(sources) == 6  # another place for each segment


def test_detail_is_kept_swapped_or_left_out():
    image, slots = torch.rand(2, 3, 8, 8), segment_slots(torch.zeros(2, 8, 8, dtype=torch.long))
    own = draw_detail('keep', image, slots)
    torch.testing.assert_close(own, image - image.mean(dim=(2, 3), keepdim=True))
    swapped = draw_detail('swap', image, slots, torch.Generator().manual_seed(1))
    torch.testing.assert_close(swapped, swap_detail(own, slots, torch.Generator().manual_seed(1)))
    assert not torch.equal(swapped, own)
    assert draw_detail('none', image, slots) is None


def test_a_seeded_generator_swaps_alike_and_each_image_of_the_batch_is_a_source():
    detail = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    slots = segment_slots(torch.arange(256).view(1, 16, 16).expand(4, 16, 16))
    first, second = (swap_detail(detail, slots, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    shares = torch.bincount(first.flatten().long(), minlength=4) / first.numel()
    assert ((shares - 0.25).abs() < 0.05).all()


def test_resize_takes_the_label_under_each_pixels_centre():
    labels = torch.arange(16).view(1, 4, 4)
    assert resize_labels(labels, (2, 2)).tolist() == [[[5, 7], [13, 15]]]
    assert resize_labels(labels, (4, 4)).equal(labels)
    odd = torch.arange(35).view(1, 5, 7)
    assert resize_labels(odd, (2, 3)).tolist() == [[[8, 10, 12], [22, 24, 26]]]  # rows 1 and 3, columns 1, 3 and 5
    nine = torch.arange(81).view(1, 9, 9)
    assert resize_labels(nine, (3, 3)).tolist() == [[[10, 13, 16], [37, 40, 43], [64, 67, 70]]]
    assert resize_labels(torch.tensor([[[1, 65535]]]), (2, 4)).tolist() == [[[1, 1, 65535, 65535]] * 2]


def test_one_hot_puts_unknown_and_outside_labels_in_the_last_channel():
    encoded = one_hot(torch.tensor([[[0, 1, 2, 255, -1]]]), 2)
    assert encoded[0, :, 0].tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]


def test_one_hot_keeps_255_unknown_with_more_than_255_classes():
    assert one_hot(torch.tensor([[[255, 299]]]), 300).argmax(1).tolist() == [[[300, 299]]]


def test_discriminator_condition_draws_a_code_a_segment():
    labels = torch.tensor([[[3, 700], [65535, 700]]])
    condition = discriminator_condition(labels, None, torch.Generator().manual_seed(0))[0]
    assert condition.shape[0] == num_condition_channels(None) == 9
    codes = condition[:8].flatten(1).T
    assert torch.equal(codes[1], codes[3])
    assert codes.unique(dim=0).shape[0] == 3
    assert torch.equal(condition[8], torch.ones(2, 2))
    assert not torch.equal(condition, discriminator_condition(labels, None)[0])


def test_under_autocast_codes_are_painted_in_its_type():
    labels = torch.tensor([[[0, 0, 1]]])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert discriminator_condition(labels, None).dtype == torch.bfloat16
    assert discriminator_condition(labels, None).dtype == torch.float32


def test_discriminator_condition_of_classes_is_one_hot_and_boundary():
    condition = discriminator_condition(torch.tensor([[[0, 0, 255]]]), 2)[0]
    assert condition.shape[0] == num_condition_channels(2) == 4
    assert condition[:, 0].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_nothing_reads_values_back_to_the_host():
    # Tensors without values: whatever needs one (item, nonzero, unique) raises.
    labels = torch.zeros(2, 8, 8, dtype=torch.long, device='meta')
    slots = resize_labels(segment_slots(labels), (4, 4))
    means, present = pool_segments(torch.zeros(2, 3, 4, 4, device='meta'), slots)
    assert means.shape == (2, SEGMENT_SLOTS, 3) and present.dtype == torch.bool
    assert paint_segments(means, segment_slots(labels)).shape == (2, 3, 8, 8)
    assert one_hot(labels, 4).shape == (2, 5, 8, 8)
    assert discriminator_condition(labels, None).shape == (2, 9, 8, 8)
    assert draw_detail('swap', torch.zeros(2, 3, 8, 8, device='meta'), segment_slots(labels)).shape == (2, 3, 8, 8)
