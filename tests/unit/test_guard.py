"""Counts of what is not finite, and values that the host reads late."""

import pytest
import torch

from timm_repaint.guard import Guard, LateValue, NonFiniteLossError


def test_a_guard_counts_all_and_those_in_a_row():
    guard = Guard('task', "task's gradient", 'stop it', max_nonfinite=3)
    for bad, wanted in ((True, [1, 1]), (False, [1, 0]), (True, [2, 1]), (True, [3, 2])):
        guard.count(torch.tensor(bad))
        assert guard.counts.tolist() == wanted and guard.skipped == wanted[0]
    guard.count(torch.tensor(True))
    with pytest.raises(
        NonFiniteLossError, match=r"^the task's gradient was not finite in 3 updates in a row; stop it$"
    ):
        guard.count(torch.tensor(False))


def test_a_late_value_is_read_once_and_is_the_latest_one():
    late = LateValue()
    assert late.read() is None and not late.on_its_way
    sent = torch.tensor([3, 4])
    late.send(sent)
    sent += 1
    assert late.on_its_way and late.read() == [3, 4]
    assert late.read() is None and not late.on_its_way
    late.send(torch.tensor([5, 6]))
    late.send(torch.tensor([7, 8]))
    assert late.read() == [7, 8]
