"""Options of learning from a teacher model."""

import argparse


def add_distillation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script for knowledge distillation."""
    add = parser.add_argument_group('Distillation').add_argument
    add('--kd-model-name', type=str, metavar='NAME', help='timm model to learn from; unset: no distillation')
    add(
        '--kd-distill-type',
        type=str,
        default='logit',
        choices=['logit', 'feature', 'token'],
        help="what is matched: the teacher's logits, its features, or its logits by a distillation token",
    )
    add('--kd-loss-type', type=str, default='kl', metavar='NAME', help='loss between the two sets of logits')
    add('--distill-loss-weight', type=float, metavar='X', help='weight of the distillation loss')
    add('--task-loss-weight', type=float, metavar='X', help='weight of the loss on the labels')
    add('--kd-temperature', type=float, default=4.0, metavar='X', help='temperature of the soft targets')
    add('--kd-student-feature-dim', type=int, metavar='N', help="width of the student's features; unset: asked of it")
    add('--kd-teacher-feature-dim', type=int, metavar='N', help="width of the teacher's features; unset: asked of it")
    add(
        '--kd-token-distill-type',
        type=str,
        default='soft',
        choices=['soft', 'hard'],
        help="targets of the token: the teacher's probabilities, or its best class",
    )
