import json
from dataclasses import replace

import pytest

from bench.cost.__main__ import add_growth
from bench.cost.count import count_networks
from bench.cost.stopwatch import PARTS
from bench.cost.tables import growth_table
from tests.helpers import run_script, without_padding
from tests.tiny import adam_steps
from timm_repaint.benchmark.__main__ import build_parser, main
from timm_repaint.benchmark.cases import Case, plan_cases
from timm_repaint.benchmark.cost_tables import cost_table
from timm_repaint.benchmark.measure import Arm, Batches, measure, num_stages, times
from timm_repaint.errors import UsageError
from timm_repaint.log import logger

TINY = ('--device', 'cpu', '--repaint-width', '4', '--num-classes', '10')
CASE = Case('test_resnet', 32, 4, options=TINY)


def plan(*argv):
    return plan_cases(build_parser().parse_args([*argv, '--output', 'x']), [])


def test_every_model_has_the_default_then_sizes_then_batches_then_variants_each_once():
    parser = build_parser()
    add_growth(parser)
    argv = [
        '--models',
        'a',
        '--sizes',
        '64',
        '224',
        '--batch-sizes',
        '4',
        '--variants',
        'prob-1',
        'default',
        '--output',
        'x',
    ]
    cases = plan_cases(parser.parse_args(argv), [])
    assert [(c.img_size_px, c.batch_size, c.variant) for c in cases] == [
        (224, 8, 'default'),
        (64, 8, 'default'),
        (224, 4, 'default'),
        (224, 8, 'prob-1'),
    ]


def test_variants_without_a_name_are_all_of_them():
    assert {case.variant for case in plan('--models', 'a', '--variants')} > {'default', 'freeze', 'compile', 'bfloat16'}


def test_an_unknown_variant_is_refused_with_the_choices():
    with pytest.raises(UsageError, match=r"unknown variant 'fast'; choose from default, width-8.*compile"):
        plan('--variants', 'fast')


def test_batches_in_memory_go_round_and_epochs_go_on_where_the_last_one_stopped():
    batches = Batches([1, 2, 3], steps=2, in_memory=True)
    assert [list(batches) for _ in range(3)] == [[1, 2], [3, 1], [2, 3]] and len(batches) == 2


def test_batches_that_are_read_come_from_the_loader_again_when_it_ends():
    reads = []

    class Loader:
        def __iter__(self):
            reads.append(len(reads))
            return iter((reads[-1] * 10, reads[-1] * 10 + 1))

    assert list(Batches(Loader(), steps=5, in_memory=False)) == [0, 1, 10, 11, 20]


def test_ratios_are_those_of_neighbours_and_a_quarter_of_the_run_costs_what_plain_training_does():
    # A slow machine in the second pair, an outlier in the third.
    clock, processor = [(1.0, 1.5), (2.0, 3.2), (1.0, 9.0)], [(1.0, 1.2), (1.0, 1.3), (2.0, 2.2)]
    pairs = [tuple(zip(*both, strict=True)) for both in zip(clock, processor, strict=True)]
    figures = times(pairs, steps=2)
    assert figures['ratios'] == [1.5, 1.6, 9.0] and figures['ratio'] == 1.6
    assert figures['whole_run_ratio'] == pytest.approx((150 * 1.6 + 50) / 200)
    assert figures['seconds_a_step'] == {'plain': 0.5, 'repaint': 1.6}
    assert figures['processor_ratio'] == 1.2
    assert figures['processor_s_a_step'] == {'plain': 0.5, 'repaint': 0.65}


def test_both_kinds_train_on_whole_patterns_and_the_phase_trains_all_its_networks():
    plain, repaint = (Arm(replace(CASE, steps=2), kind) for kind in (False, True))
    assert len(plain.run.loaders.train) == len(repaint.run.loaders.train) == 3  # --repaint-schedule 2:1
    for arm in (plain, repaint):
        assert min(arm.train()) > 0
        arm.train()
    assert adam_steps(repaint.run.repaint) == (6, 2)
    assert repaint.skipped_updates == plain.skipped_updates == 0


def test_the_frozen_variant_is_the_generator_that_comes_along_and_has_no_discriminator():
    arm = Arm(Case('test_resnet', 32, 4, 'freeze', ('--device', 'cpu', '--num-classes', '10')), True)
    assert arm.run.repaint.discriminator is None and arm.run.repaint.optimizers == {}
    assert set(count_networks(arm)) == {'E', 'G', 'T'}


def figures(model='a', size=224, batch=8, ratio=1.2, added=(0.2, 100.0), variant='default'):
    seconds = {'plain': 1.0, 'repaint': 1.0 + added[0]}
    memory = {'plain': 1000.0, 'repaint': 1000.0 + added[1], 'ratio': 1 + added[1] / 1000}
    return {
        'model': model,
        'img_size_px': size,
        'batch_size': batch,
        'variant': variant,
        'ratios': [ratio - 0.1, ratio, ratio + 0.1],
        'ratio': ratio,
        'whole_run_ratio': (3 * ratio + 1) / 4,
        'seconds_a_step': seconds,
        'processor_ratio': ratio - 0.02,
        'processor_s_a_step': seconds,
        'peak_memory_mib': memory,
        'networks': {'G': {'parameters': 250_000, 'multiply_adds': 30_000_000}},
        'shares': dict.fromkeys(PARTS, 1 / len(PARTS)),
    }


def test_the_table_of_costs_ends_with_the_mean_over_models():
    lines = without_padding(cost_table([figures(), figures('b', ratio=1.6)])).splitlines()
    assert lines[2] == (
        '| a | 224 | 8 | default | 1.000 | 1.200 | 1.20 (1.10-1.30) | 1.18 | 1.15 | 1000 | 1100 | 1.10 |'
    )
    assert lines[4] == '| mean | 224 | 8 | default | | | 1.40 | 1.38 | 1.30 | | | 1.10 |'


def test_other_devices_have_no_time_of_the_processor():
    case = figures()
    del case['processor_ratio'], case['processor_s_a_step']
    assert '1.20 (1.10-1.30) | | 1.15' in without_padding(cost_table([case, case]))
    row = without_padding(growth_table([case])).splitlines()[2]
    assert row == '| a | 224 | 8 | 0.200 | 0.498 | | 1.281 | 100 | 249 |'


@pytest.mark.slow
def test_measuring_yields_as_many_stages_as_it_says_and_last_the_figures():
    stages = list(measure(CASE, 1))
    assert len(stages) == num_stages(1) and stages[:-1] == [None] * (len(stages) - 1)
    assert stages[-1]['peak_memory_mib']['repaint'] > 100 and stages[-1]['ratio'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('command', ['-m timm_repaint.benchmark', '-m bench.cost'])
def test_the_commands_write_json_and_tables_for_two_models_and_the_bench_a_plot(command, tmp_path):
    models = ('test_resnet', 'test_vit')
    options = ('--img-size', 160, '--batch-size', 2, '--rounds', 1, '--output', tmp_path)
    done = run_script(command, '--models', *models, *options, '--', *TINY)
    written = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [case['model'] for case in written['cases']] == list(models)
    assert written['machine']['threads'] >= 1
    assert (tmp_path / 'benchmark.md').read_text() in done.stdout + '\n'
    assert (tmp_path / 'shares.png').is_file() == ('bench' in command.split('.')[0])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--models', 'resnet5000'), "timm has no model 'resnet5000'"),
        (('--models', 'test_resnet', '--data', 'missing'), 'data folder missing does not exist'),
        (('--models', 'test_resnet', '--', '--repaint-prob', '2'), '--repaint-prob is 2.0; it must be above 0'),
    ],
)
def test_mistakes_are_told_before_any_work(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['benchmark', '--output', str(tmp_path / 'out'), *options])
    level = logger.level  # the command turns the engine's own log down
    with pytest.raises((UsageError, SystemExit)) as stop:
        main()
    logger.setLevel(level)
    assert message in f'{stop.value} {capsys.readouterr().err}'
    assert not (tmp_path / 'out').exists()


def test_a_file_in_the_place_of_the_output_or_of_others_in_it_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / 'benchmark.json').write_text('{}')
    for output, message in (
        (tmp_path / 'benchmark.json', 'File exists'),
        (tmp_path, r'benchmark\.json was there before and is no benchmark of ours'),
    ):
        monkeypatch.setattr('sys.argv', ['benchmark', '--models', 'test_resnet', '--output', str(output)])
        level = logger.level
        with pytest.raises(UsageError, match=message):
            main()
        logger.setLevel(level)
    assert (tmp_path / 'benchmark.json').read_text() == '{}'
