import argparse
import json

import pytest
import yaml
from timm.utils import ParseKwargs

from timm_repaint.masks.choice import MASK_SOURCES
from timm_repaint.options import build_config_parser, build_parser, parse_args

LATER_OPTIONS_OF_TIMM = {'stop_epoch', 'save_epochs'}
OUR_OPTIONS = {
    'isda',
    'cutout',
    'train_fraction',
    'log_tensorboard',
    'cue_conflict',
    'mask',
    'fh_scale',
    'fh_sigma',
    'fh_min_size',
    'fh_backend',
    'mask_checkpoint',
    'mask_dir',
    'mask_classes',
    'repaint',
    'repaint_epochs',
    'repaint_schedule',
    'repaint_separate_batches',
    'repaint_prob',
    'repaint_mix',
    'repaint_consistency',
    'repaint_freeze',
    'repaint_checkpoint',
    'repaint_generator',
    'repaint_width',
    'repaint_latent',
    'repaint_latent_dim',
    'repaint_detail',
    'repaint_temperature',
    'repaint_task_weight',
    'repaint_gan_loss',
    'repaint_feat_weight',
    'repaint_kl_weight',
    'repaint_segment_kl_weight',
    'repaint_g_lr',
    'repaint_d_lr',
    'repaint_max_nonfinite',
    'repaint_gallery_interval',
}


def describe(action):
    """The facts of one option, in the form of the shared table."""
    kinds = {
        ParseKwargs: 'ParseKwargs',
        argparse._StoreAction: 'StoreAction',
        argparse._StoreTrueAction: 'StoreTrueAction',
    }
    return {
        'flags': list(action.option_strings) or [action.dest],
        'dest': action.dest,
        'default': action.default,
        'nargs': action.nargs,
        'choices': None if action.choices is None else list(action.choices),
        'type': None if action.type is None else action.type.__name__,
        'action': kinds[type(action)],
        'const': action.const,
    }


def options_of(parser):
    return {action.dest: action for action in parser._actions if action.default is not argparse.SUPPRESS}


@pytest.fixture
def timm_table(shared_timm):
    return json.loads((shared_timm / 'flags-1.0.29.json').read_text())


def test_every_option_of_timm_has_the_names_type_and_default_of_the_table(timm_table):
    ours = options_of(build_parser())
    assert len(timm_table) == 172
    for entry in timm_table:
        assert describe(ours[entry['dest']]) == entry


def test_no_option_exists_outside_the_table_the_later_ones_and_ours(timm_table):
    known = {entry['dest'] for entry in timm_table}
    assert set(options_of(build_parser())) == known | LATER_OPTIONS_OF_TIMM | OUR_OPTIONS


def test_every_option_has_a_help_text_of_one_or_two_lines():
    for action in build_parser()._actions:
        assert action.help, action.dest
        assert len(action.help) <= 240, action.dest


def test_help_can_be_printed_and_says_what_the_paper_used_for_each_repaint_option():
    text = ' '.join(build_parser().format_help().split())
    assert '-c FILE, --config FILE' in text or '-c, --config FILE' in text
    for dest, action in options_of(build_parser()).items():
        if dest.startswith('repaint_') or dest == 'mask':
            assert 'Paper: ' in action.help, dest


def test_help_shows_defaults_that_mean_something_and_no_empty_ones():
    text = ' '.join(build_parser().format_help().split())
    assert 'Paper: 1e-4 (default: 0.001)' in text
    assert '(default: None)' not in text
    assert '(default: False)' not in text
    assert '(default: )' not in text


def test_resume_help_mentions_auto():
    assert "'auto'" in options_of(build_parser())['resume'].help


def test_later_options_of_timm_take_whole_epochs():
    args = build_parser().parse_args(['--stop-epoch', '3', '--save-epochs', '1', '2'])
    assert (args.stop_epoch, args.save_epochs) == (3, [1, 2])
    defaults = build_parser().parse_args([])
    assert (defaults.stop_epoch, defaults.save_epochs) == (None, None)


def test_repaint_defaults_are_those_of_the_trial():
    args = build_parser().parse_args([])
    assert args.repaint is False
    assert (args.mask, args.fh_scale, args.fh_sigma, args.fh_min_size) == ('fh', None, 0.5, None)
    assert (args.repaint_prob, args.repaint_mix, args.repaint_schedule) == (0.5, 'replace', '2:1')
    assert (args.repaint_latent, args.repaint_latent_dim) == ('segment', None)
    assert (args.repaint_g_lr, args.repaint_d_lr) == (1e-3, 2e-3)
    assert (args.repaint_feat_weight, args.repaint_kl_weight, args.repaint_segment_kl_weight) == (10.0, 0.05, 1.0)
    assert (args.repaint_task_weight, args.repaint_gan_loss) == (1.0, 'hinge')
    assert (args.repaint_width, args.repaint_generator) == (16, 'light')
    assert (args.repaint_gallery_interval, args.repaint_max_nonfinite) == (10, 20)
    assert (args.repaint_checkpoint, args.repaint_freeze) == ('', False)
    assert args.repaint_epochs is None


def test_a_wrong_mask_source_stops_with_the_list_of_sources(capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(['--mask', 'sam'])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert "argument --mask: invalid choice: 'sam'" in message
    for name in MASK_SOURCES:
        assert name in message.split('choose from')[1]


def test_the_config_option_is_taken_off_the_command_line_and_kept_out_of_the_options(tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('lr: 0.2\n')
    config_args, remaining = build_config_parser().parse_known_args(['data', '-c', str(path), '-b', '8'])
    assert config_args.config == str(path)
    assert remaining == ['data', '-b', '8']
    args, text = parse_args(build_parser(), build_config_parser(), ['data', '-c', str(path), '-b', '8'])
    assert not hasattr(args, 'config')
    assert 'config' not in yaml.safe_load(text)


@pytest.mark.parametrize(
    ('line', 'end'),
    [
        ('photos --mask-dirs masks', '--mask-dirs masks; did you mean --mask-dir?'),
        ('--repaint-widht=8', '--repaint-widht=8; did you mean --repaint-width?'),
        ('--zzzz data', '--zzzz'),
    ],
)
def test_an_unknown_option_is_told_with_the_one_most_like_it(line, end, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(line.split())
    assert capsys.readouterr().err.strip().endswith(f'unrecognized arguments: {end}')


def test_a_shortened_option_that_could_be_many_names_a_few(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(['photos', '--repain'])
    told = capsys.readouterr().err.strip()
    assert told.endswith(
        'ambiguous option: --repain could match --repaint, --repaint-epochs, --repaint-gallery-interval '
        'and more; write it out'
    )
