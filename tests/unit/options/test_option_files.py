import argparse
import logging
from pathlib import Path

import pytest
import yaml

from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args

PAPER_RECIPE = Path(__file__).parents[3] / 'timm_repaint' / 'recipes' / 'paper.yaml'


@pytest.fixture
def parse(tmp_path):
    """Parses a command line on top of a YAML text."""

    def parse_text(text, *argv):
        path = tmp_path / 'recipe.yaml'
        path.write_text(text)
        return parse_args(build_parser(), build_config_parser(), ['-c', str(path), *argv])[0]

    return parse_text


def stops_with(capsys, parse, text):
    """Message of the exit that a YAML text causes."""
    with pytest.raises(SystemExit) as stop:
        parse(text)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_values_of_the_file_become_defaults_and_the_command_line_wins(parse):
    args = parse('lr: 0.5\nepochs: 7\nmodel: resnet18\namp: true\n', '--lr', '0.1')
    assert (args.lr, args.epochs, args.model, args.amp) == (0.1, 7, 'resnet18', True)
    assert args.momentum == 0.9


def test_the_folder_of_the_data_can_stand_in_the_file_or_on_the_command_line(parse):
    assert parse('data: /images\n').data == '/images'
    assert parse('data: /images\n', '/others').data == '/others'


def test_a_file_does_not_change_what_the_parser_gives_without_it(tmp_path):
    parser, config_parser = build_parser(), build_config_parser()
    path = tmp_path / 'recipe.yaml'
    path.write_text('lr: 0.5\nmodel_kwargs: {depth: 3}\ndata: /images\n')
    parse_args(parser, config_parser, ['-c', str(path)])
    args, _ = parse_args(parser, config_parser, [])
    assert (args.lr, args.model_kwargs, args.data) == (None, {}, None)


def test_numbers_written_as_text_are_converted(parse):
    assert isinstance(yaml.safe_load('3e-4'), str)
    args = parse('lr: 3e-4\nweight_decay: "0.05"\nepochs: "12"\nscale: [1e-1, "1"]\n')
    assert (args.lr, args.weight_decay, args.epochs, args.scale) == (3e-4, 0.05, 12, [0.1, 1.0])


def test_an_integer_is_a_fine_number(parse):
    assert parse('mixup: 1\nmin_lr: 0\n').mixup == 1


def test_a_number_is_a_fine_name(parse):
    args = parse('experiment: 7\nwandb_tags: [2024, night]\n')
    assert (args.experiment, args.wandb_tags) == ('7', ['2024', 'night'])


def test_lists_are_taken_element_by_element_and_one_value_is_a_list_of_one(parse):
    args = parse('decay_milestones: [30, 60]\ninput_size: [3, 64, 96]\nlr_noise: 0.4\nwandb_tags: []\n')
    assert (args.decay_milestones, args.input_size, args.lr_noise) == ([30, 60], [3, 64, 96], [0.4])
    assert args.wandb_tags == []


def test_keys_may_be_written_like_flags_or_aliases(parse):
    args = parse('batch-size: 8\n--dr: 0.3\nj: 1\nlocal_rank: 2\ntrain-steps-per-epoch: 5\n')
    assert (args.batch_size, args.decay_rate, args.workers, args.local_rank) == (8, 0.3, 1, 2)
    assert args.train_batches_per_epoch == 5


def test_keyword_options_take_a_mapping_and_the_command_line_replaces_it(parse):
    assert parse('model_kwargs: {depth: 3, name: x}\n').model_kwargs == {'depth': 3, 'name': 'x'}
    assert parse('model_kwargs: {depth: 3}\n', '--model-kwargs', 'width=2').model_kwargs == {'width': 2}


def test_null_leaves_the_default(parse):
    args = parse('lr: null\naa:\nepochs: null\nexperiment: null\namp: null\nscale: null\n')
    assert (args.lr, args.aa, args.epochs, args.experiment, args.amp) == (None, None, 300, '', False)
    assert args.scale == [0.08, 1.0]


def test_null_colour_jitter_means_none_as_in_timm(parse):
    assert parse('color_jitter: null\n').color_jitter is None


def test_a_flag_with_an_optional_value_takes_true_for_the_bare_flag(parse):
    assert parse('torchcompile: true\n').torchcompile == 'inductor'
    assert parse('torchcompile: false\n').torchcompile is None
    assert parse('torchcompile: eager\n').torchcompile == 'eager'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('lr: fast', "argument --lr: wants a number, not 'fast'"),
        ('lr: true', 'argument --lr: wants a number, not true'),
        ('lr: [0.1, 0.2]', 'argument --lr: wants a number, not [0.1, 0.2]'),
        ('epochs: 2.5', 'argument --epochs: wants an integer, not 2.5'),
        ('epochs: ten', "argument --epochs: wants an integer, not 'ten'"),
        ('batch_size: 3e1', "argument -b/--batch-size: wants an integer, not '3e1'"),
        ('amp: 1', 'argument --amp: wants true or false, not 1'),
        ('amp: "true"', "argument --amp: wants true or false, not 'true'"),
        ('model: false', 'argument --model: wants a text, not false'),
        ('data: [a]', "argument data: wants a text, not ['a']"),
        ('input_size: [3, 64]', 'argument --input-size: wants 3 values, not [3, 64]'),
        ('scale: [0.1, much]', "argument --scale: wants a number, not 'much'"),
        ('scale: []', 'argument --scale: wants at least one value, not an empty list'),
        ('save_epochs: {a: 1}', 'argument --save-epochs: wants an integer, not a mapping (a)'),
        ('opt_kwargs: [a=1]', "argument --opt-kwargs: wants a mapping of names to values, not ['a=1']"),
        (
            'kd_distill_type: logits',
            "argument --kd-distill-type: 'logits' is no choice; choose from 'logit', 'feature'",
        ),
        ('mask: sam', "argument --mask: 'sam' is no choice; choose from "),
        ('dr: 0.1\ndecay_rate: 0.2', 'argument --decay-rate/--dr: '),
    ],
)
def test_a_value_that_does_not_fit_stops_with_the_name_of_its_option(capsys, parse, text, message):
    error = stops_with(capsys, parse, text)
    assert message in error
    assert 'recipe.yaml' in error


def test_unknown_keys_are_named_in_a_warning_and_left_out(parse, caplog):
    with caplog.at_level(logging.WARNING):
        args = parse('lr: 0.5\nlearning_rate: 1\njsd: false\nconfig: old.yaml\n')
    assert args.lr == 0.5
    assert not {'learning_rate', 'jsd', 'config'} & set(vars(args))
    assert [record.getMessage().split(': ', 1)[1] for record in caplog.records] == [
        'unknown options are ignored: learning_rate, jsd'
    ]


def test_unknown_keys_stop_a_recipe_that_repaints(capsys, parse):
    error = stops_with(capsys, parse, 'repaint: true\nrepaint_colour: red\njsd: false\n')
    assert 'recipe.yaml names repaint_colour, jsd, but no option is called so' in error


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'- lr\n- 0.1\n', 'must hold lines of "option: value", but is [\'lr\', 0.1]'),
        (b'# nothing yet\n', 'must hold lines of "option: value", but is empty'),
        (b'lr: [0.1\n', 'is not YAML'),
        (b'lr: \xff\xfe\n', 'is not YAML'),
    ],
)
def test_a_file_without_a_mapping_stops_with_its_path(capsys, tmp_path, content, message):
    path = tmp_path / 'broken.yaml'
    path.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        parse_args(build_parser(), build_config_parser(), ['-c', str(path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert str(path) in error
    assert message in error


def test_a_missing_file_stops_with_its_path(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        parse_args(build_parser(), build_config_parser(), ['--config', str(tmp_path / 'none.yaml')])
    assert stop.value.code == 2
    assert f'cannot read {tmp_path / "none.yaml"}: No such file or directory' in capsys.readouterr().err


def test_a_saved_args_file_gives_the_same_options_again(tmp_path):
    argv = [
        *('/images', '--repaint', '--repaint-latent-dim', '4', '--repaint-schedule', '3:1', '--lr', '3e-4', '-vb', '2'),
        *(
            '--input-size',
            '3',
            '32',
            '32',
            '--model-kwargs',
            'depth=3',
            'name=x',
            '--torchcompile',
            '--save-epochs',
            '1',
        ),
        *('--wandb-tags', 'a', 'b', '--experiment', '007', '--train-size-schedule', 'progressive'),
    ]
    args, text = parse_args(build_parser(), build_config_parser(), argv)
    path = tmp_path / 'args.yaml'
    path.write_text(text)
    again, text_again = parse_args(build_parser(), build_config_parser(), ['-c', str(path)])
    assert vars(again) == vars(args)
    assert text_again == text
    assert (again.repaint_schedule, again.experiment, again.torchcompile) == ('3:1', '007', 'inductor')


def test_saved_defaults_give_the_defaults_again(tmp_path):
    args, text = parse_args(build_parser(), build_config_parser(), [])
    path = tmp_path / 'args.yaml'
    path.write_text(text)
    assert vars(parse_args(build_parser(), build_config_parser(), ['-c', str(path)])[0]) == vars(args)


def test_the_paper_recipe_has_no_unknown_key_and_no_conflict(caplog):
    parser = build_parser()
    with caplog.at_level(logging.WARNING):
        args, _ = parse_args(parser, build_config_parser(), ['-c', str(PAPER_RECIPE)])
    check_options(parser, args)
    assert not caplog.records
    assert args.repaint
    assert (args.epochs, args.repaint_epochs, args.repaint_schedule) == (200, 150, '2:1')
    assert (args.repaint_prob, args.repaint_mix, args.repaint_latent) == (1.0, 'replace', 'global')
    assert (args.repaint_g_lr, args.repaint_d_lr, args.repaint_gan_loss) == (1e-4, 4e-4, 'hinge')
    assert (args.repaint_feat_weight, args.repaint_kl_weight) == (10.0, 0.05)


def test_another_parser_without_a_config_file_is_used_as_it_is():
    parser = argparse.ArgumentParser()
    parser.add_argument('--size', type=int, default=3)
    args, text = parse_args(parser, build_config_parser(), ['--size', '5'])
    assert args.size == 5
    assert text == 'size: 5\n'
