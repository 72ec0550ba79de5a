"""The consistency term: T's answers to repaints beside those to their originals."""

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from tests.tiny import changed, snapshot, tiny_batch, tiny_classifier, tiny_repaint, tiny_task
from tests.unit.repaint.test_forward import run_epoch
from timm_repaint.errors import UsageError

pytestmark = pytest.mark.usefixtures('seeded')


def shown(weight=4.0, prob=0.5, mix='both', size=8):
    """A Repaint that has painted a batch, and the logits of a network that answers at random."""
    repaint = tiny_repaint(prob=prob, mix=mix, consistency=weight)
    images, _ = repaint(*tiny_batch(size))
    return repaint, torch.randn(len(images), 5, requires_grad=True)


def test_it_is_the_mean_divergence_of_each_repaint_and_its_original_times_its_weight():
    repaint, output = shown(weight=4.0, prob=0.5)
    answers = output.detach().softmax(1).double().numpy()
    pairs = [jensenshannon(answers[row], answers[4 + row]) ** 2 for row in range(4)]  # behind four repaints all eight
    assert repaint.consistency(output).item() == pytest.approx(4.0 * sum(pairs) / 4, rel=1e-5)


def test_it_is_zero_for_one_answer_and_finite_for_certain_ones():
    repaint, _ = shown(weight=1.0)
    same = torch.tensor([[1e4, -1e4, 0.0]]).expand(12, 3)
    assert repaint.consistency(same).item() == 0
    other = same.clone()
    other[:4] = -same[:4]
    assert repaint.consistency(other).item() == pytest.approx(torch.tensor(2.0).log().item())


def test_its_gradient_reaches_both_sides_of_a_pair_and_nobody_else():
    repaint, output = shown()
    repaint.consistency(output).backward()
    assert (output.grad.abs().sum(1) > 0).tolist() == [True] * 8 + [False] * 4


def test_without_a_weight_and_after_the_end_there_is_none():
    repaint, output = shown(weight=0.0)
    assert repaint.consistency(output) == 0
    repaint, _ = shown()
    repaint.stop()
    repaint(*tiny_batch(8))
    assert repaint.consistency(torch.randn(8, 5)) == 0


def test_an_output_that_is_no_logits_of_the_batch_is_refused():
    repaint, output = shown()
    with pytest.raises(UsageError, match=r'logits \[12, classes\], the output is \(8, 5\)'):
        repaint.consistency(output[:8])
    with pytest.raises(UsageError, match='the output is tuple; give the logits'):
        repaint.consistency((output, output))


def test_it_needs_repaints_beside_their_originals():
    with pytest.raises(UsageError, match="mix is 'replace'; it needs 'both'"):
        tiny_repaint(consistency=1.0)


def test_the_loop_lets_the_network_learn_from_it():
    ends = []
    for weight in (0.0, 100.0):
        torch.manual_seed(0)
        repaint, task = tiny_repaint(mix='both', consistency=weight), tiny_task()
        torch.manual_seed(1)
        run_epoch(task, repaint, [tiny_batch(8)])
        ends.append(task)
    assert changed(ends[0], snapshot(ends[1]))


@pytest.mark.parametrize('calls', [0, 1])
def test_a_loop_that_leaves_it_out_is_told_once(calls, caplog):
    repaint, model = tiny_repaint(mix='both', consistency=4.0, generator='shift'), tiny_classifier()
    caplog.clear()
    for _ in range(3):
        images, _ = repaint(*tiny_batch(8))
        for _ in range(calls):
            repaint.consistency(model(images))
    told = [record.message for record in caplog.records]
    assert told == ['consistency is 4 and does nothing: add repaint.consistency(output) to the loss.'] * (1 - calls)


def test_a_batch_that_is_skipped_owes_nothing(caplog):
    repaint = tiny_repaint(mix='both', consistency=4.0)
    for _ in range(3):
        repaint(*tiny_batch(8))
        repaint.drop()
    assert caplog.records == []


def test_a_preview_owes_nothing(caplog):
    repaint, model = tiny_repaint(mix='both', consistency=4.0, generator='shift'), tiny_classifier()
    with torch.no_grad():
        repaint(*tiny_batch(8))
    images, _ = repaint(*tiny_batch(8))
    repaint.consistency(model(images))
    repaint.step()
    repaint(*tiny_batch(8))
    assert not [record for record in caplog.records if 'does nothing' in record.message]
