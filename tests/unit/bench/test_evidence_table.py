"""Statistics, results and the table of the bench, against values worked out by hand."""

import csv
import json
import math
import sys

import pytest
from PIL import Image

from bench.evidence.arms import ARMS
from bench.evidence.data import RECIPES, Subset
from bench.evidence.plan import Place, plan_run
from bench.evidence.plot import draw_plot
from bench.evidence.results import (
    Result,
    collect,
    is_finished,
    leave_result,
    read_results,
    write_csv,
)
from bench.evidence.table import make_table
from bench.seeds import paired_difference
from timm_repaint.errors import UsageError
from timm_repaint.report.summary import UnfinishedError

SUBSET = Subset('photos', 100, 10, RECIPES / '32px.yaml')


def result(arm, seed, top1, baseline='plain', **measures):
    options = {'repaint': not arm.startswith('plain')}
    return Result(
        'photos', 100, arm, seed, f'what {arm} shows', baseline, [45, 60], options, 30.0, top1, top1 - 5, 0.5, measures
    )


def lines_with(table, *words):
    return [line for line in table.splitlines() if all(word in line for word in words)]


def cells(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


# Statistics ----------------------------------------------------------------------------------------------------------


def test_an_interval_is_students_over_the_common_seeds():
    difference = paired_difference({0: 11, 1: 22, 2: 33, 7: 1}, {2: 30, 1: 20, 0: 10, 8: 99})
    assert difference.values == {0: 1, 1: 2, 2: 3}
    assert difference.mean == 2
    assert difference.half_width == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)  # sd 1, t of 2 degrees 4.30265


def test_two_seeds_have_an_interval_of_one_degree_of_freedom():
    difference = paired_difference({0: 1, 1: 3}, {0: 0, 1: 0})
    assert difference.half_width == pytest.approx(12.7062, abs=1e-4)  # sd sqrt(2), over sqrt(2), t 12.7062


def test_one_seed_has_no_interval_and_no_common_seed_no_difference():
    assert paired_difference({0: 5}, {0: 3, 1: 2}).mean == 2
    assert paired_difference({0: 5}, {0: 3}).half_width is None
    assert paired_difference({0: 5}, {1: 3}) is None


# Results -------------------------------------------------------------------------------------------------------------


def write_phase(folder, epoch, **columns):
    """A summary with an earlier row and the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    row = {'epoch': epoch, **columns}
    with open(folder / 'summary.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(dict.fromkeys(row, 0))
        writer.writerow(row)


@pytest.fixture
def run(tmp_path):
    """A repaint run of 60 epochs with the files that its two phases leave."""
    run = plan_run(SUBSET, ARMS['repaint'], 3, Place(tmp_path, ('--epochs', '60')))
    measures = {'train_diversity': 0.2, 'train_leak_repaint': math.nan, 'train_new_one': 7}
    write_phase(run.folder, 44, train_loss=1.5, **measures, eval_loss=2, eval_top1=40, eval_top5=80, lr=0.01)
    write_phase(run.folder / 'fine_tune', 59, train_loss=0.5, eval_loss=1, eval_top1=50, eval_top5=90, lr=0)
    return run


def test_a_result_is_that_of_the_last_epochs_of_both_phases(run):
    found = collect(run, 12.34)
    assert (found.top1, found.phase_top1, found.train_loss, found.seconds) == (50, 40, 0.5, 12.3)
    assert found.measures == {'diversity': 0.2, 'new_one': 7, 'validation_loss': 1}
    assert (found.data, found.size, found.arm, found.seed, found.epochs) == ('photos', 100, 'repaint', 3, [45, 60])


def test_cue_conflicts_are_told_before_and_after_the_fine_tune(run):
    for folder, shape in ((run.folder, 30), (run.folder / 'fine_tune', 20)):
        (folder / 'cue_conflict.json').write_text(json.dumps({'shape': shape, 'texture': 50 + shape, 'epochs': 1}))
    measures = collect(run, 1).measures
    assert {name: measures[name] for name in ('phase_shape', 'phase_texture', 'shape', 'texture')} == {
        'phase_shape': 30, 'phase_texture': 80, 'shape': 20, 'texture': 70
    }  # fmt: skip


def test_a_phase_that_stopped_early_is_no_result(run):
    write_phase(run.folder / 'fine_tune', 57, train_loss=0.5, eval_top1=50)
    with pytest.raises(UnfinishedError, match='fine_tune ends after 58 of 60 epochs'):
        collect(run, 1)
    (run.folder / 'fine_tune' / 'summary.csv').unlink()
    with pytest.raises(UnfinishedError, match=r'fine_tune/summary\.csv has no row'):
        collect(run, 1)


def test_a_result_is_read_back_and_holds_for_its_options_only(run, tmp_path):
    assert not is_finished(run)
    found = collect(run, 1)
    leave_result(run, 1)
    assert is_finished(run)
    assert read_results(tmp_path) == [found]
    other = plan_run(SUBSET, ARMS['repaint'], 3, Place(tmp_path, ('--epochs', '60', '--lr', '0.1')))
    with pytest.raises(UsageError, match=r'seed-3 was run with other options .lr 0\.05, now 0\.1.; give another'):
        is_finished(other)
    moved = plan_run(SUBSET, ARMS['repaint'], 3, Place(tmp_path / '..' / tmp_path.name, ('--epochs', '60')))
    assert is_finished(moved)


def test_a_broken_result_is_named(run):
    (run.folder / 'result.json').write_text('{"data": ')
    with pytest.raises(UsageError, match=r'result\.json is not the result of a run: .* remove it to run again'):
        is_finished(run)


def test_the_csv_has_a_row_a_run_and_all_columns(tmp_path):
    write_csv([result('plain', 0, 50.0), result('repaint', 0, 52.5, diversity=0.2)], tmp_path / 'results.csv')
    with open(tmp_path / 'results.csv', newline='') as file:
        plain, repaint = csv.DictReader(file)
    assert (plain['arm'], plain['top1'], plain['phase_top1'], plain['diversity']) == ('plain', '50.0', '45.0', '')
    assert (repaint['data'], repaint['size'], repaint['diversity']) == ('photos', '100', '0.2')


# Table and plot ------------------------------------------------------------------------------------------------------

RESULTS = [
    *(result('plain', seed, top1, baseline='') for seed, top1 in enumerate((50, 52, 54))),
    *(result('repaint', seed, top1, diversity=0.25) for seed, top1 in enumerate((51, 54, 57))),
    *(result('plain-jitter', seed, top1) for seed, top1 in enumerate((50, 50))),
]


def test_a_row_has_mean_spread_and_paired_difference():
    table = make_table(RESULTS)
    head = cells(lines_with(table, 'top-1, %')[0])
    row = dict(zip(head, cells(lines_with(table, '| repaint ', '| plain ')[0]), strict=True))
    assert row == {
        'data': 'photos', 'images': '100', 'arm': 'repaint', 'epochs': '45 + 15', 'seeds': '3', 'top-1, %': '54.00',
        'sd': '3.00', 'difference': '+2.00', '95 % interval': '-0.48 to +4.48', 'baseline': 'plain',
        'top-1 after phase 1': '49.0', 'train loss': '0.500', 'diversity': '0.250', 'seconds a run': '30.0',
    }  # fmt: skip
    plain = dict(zip(head, cells(lines_with(table, '| plain  ')[0]), strict=True))
    assert (plain['difference'], plain['95 % interval'], plain['baseline'], plain['diversity']) == ('-', '-', '-', '-')


def test_repaint_stands_against_the_control_over_the_seeds_of_both():
    (row,) = lines_with(make_table(RESULTS), '| repaint ', '| plain-jitter ')
    assert cells(row)[3:7] == ['plain-jitter', 'top-1', '2', '+2.50']  # 1 and 4


def test_arms_of_ones_own_stand_against_the_controls_and_controls_against_plain_alone():
    results = [
        *(result(arm, 0, 50) for arm in ('plain-jitter', 'segment-jitter', 'wide', 'plain-long')),
        result('cutmix-repaint', 0, 50, 'cutmix'),
    ]
    table = make_table(results).split('## Further differences')[1].split('##')[0]
    pairs = [cells(line)[2:4] for line in table.splitlines() if line.startswith('| photos')]
    assert pairs == [['wide', 'segment-jitter'], ['wide', 'plain-jitter']]


def test_an_arm_whose_classifier_sees_more_samples_stands_against_the_one_that_sees_as_many():
    arms = ('repaint', 'repaint-both', 'plain-samples')
    table = make_table([result(arm, 0, 50) for arm in arms]).split('## Further differences')[1].split('##')[0]
    pairs = [cells(line)[2:4] for line in table.splitlines() if line.startswith('| photos')]
    assert pairs == [['repaint-both', 'plain-samples']]


def test_one_seed_has_a_difference_without_interval():
    (row, *_) = lines_with(make_table([r for r in RESULTS if r.seed == 0]), '| repaint ', '| plain ')
    assert cells(row)[6:10] == ['-', '+1.00', '-', 'plain']


def test_shape_decisions_are_compared_where_they_were_measured():
    results = [result('plain', 0, 50, '', phase_shape=5.0, shape=4.0), result('repaint', 0, 50, phase_shape=25.0)]
    table = make_table(results)
    (row,) = lines_with(table, 'repaint', '+20.00')
    assert cells(row)[4] == 'by shape after phase 1'
    assert not lines_with(table, 'repaint', '| by shape  ')


def test_every_arm_is_explained_once():
    table = make_table(RESULTS)
    assert lines_with(table, '- **repaint**') == ['- **repaint**: what repaint shows (`--repaint --mask fh`)']
    assert table.count('**plain**') == 1


def test_all_lines_of_a_table_are_equally_long():
    for block in make_table(RESULTS).split('\n\n'):
        if block.startswith('|'):
            assert len({len(line) for line in block.splitlines()}) == 1


def test_the_plot_has_a_panel_for_each_set_of_images(tmp_path):
    pytest.importorskip('matplotlib')
    others = [Result(**{**vars(r), 'data': 'others'}) for r in RESULTS]
    assert draw_plot(RESULTS, tmp_path / 'one.png') and draw_plot(RESULTS + others, tmp_path / 'two.png')
    with Image.open(tmp_path / 'one.png') as one, Image.open(tmp_path / 'two.png') as two:
        assert two.width == one.width and two.height > 1.5 * one.height
        assert len(one.convert('RGB').getcolors(2**24)) > 100


def test_nothing_to_compare_makes_no_plot(tmp_path):
    pytest.importorskip('matplotlib')
    assert not draw_plot(RESULTS[:1], tmp_path / 'plot.png')
    assert not (tmp_path / 'plot.png').exists()


def test_without_matplotlib_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(UsageError, match=r"plot\.png needs matplotlib: pip install '\.\[bench\]'"):
        draw_plot(RESULTS, tmp_path / 'plot.png')
