"""A finished classifier to the Hugging Face Hub, as timm does it: `timm-repaint push RUN OWNER/NAME`.

timm's `push_to_hf_hub` makes the repository and writes weights (safetensors) and config; the model card has the run's
options, its figure and its last gallery. You log in beforehand, with `hf auth login`.
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from timm.data import resolve_data_config
from timm.models import push_to_hf_hub
from torch import nn

from timm_repaint.errors import UsageError, run_command
from timm_repaint.options.parser import build_parser
from timm_repaint.options.roles import REPAINT_OPTIONS, Role
from timm_repaint.options.run_file import ARGS, FINE_TUNE, is_detection, read_args
from timm_repaint.report.classifier import make_classifier, read_classifier
from timm_repaint.report.summary import read_rows
from timm_repaint.version import __version__

CHECKPOINT = 'model_best.pth.tar'
GALLERY = 'gallery.png'
# Not of the training: where it ran and what its files are called.
PRIVATE = Role.MACHINE.names | Role.DATA.names | Role.OUTPUT.names


def parse_args() -> Namespace:
    parser = ArgumentParser(prog='timm-repaint push', description='Put a classifier on the Hugging Face Hub.')
    parser.add_argument('run', type=Path, metavar='RUN', help='folder of a train.py run, or of its fine-tune phase')
    parser.add_argument('repo', metavar='REPO', help='OWNER/NAME on the Hub; it is made if it is not there')
    parser.add_argument('--private', action='store_true', help='a new repository is only seen by you')
    return parser.parse_args()


def finished_phase(run: Path) -> Path:
    """The folder of a run's last phase."""
    return run / FINE_TUNE if (run / FINE_TUNE / CHECKPOINT).is_file() else run


def load_classifier(folder: Path) -> tuple[nn.Module, Namespace, int]:
    """The best classifier of a phase, its options, and its epoch.

    Raises:
        UsageError: if the folder holds none, or a detector.
    """
    options = read_args(folder, 'RUN is the output folder of a train.py run')
    if is_detection(options):
        raise UsageError(f'{folder} is a detector; the Hub takes classifiers of timm')
    path = folder / CHECKPOINT
    if not path.is_file():
        raise UsageError(f'{path} does not exist: the run has no checkpoint yet')
    saved = read_classifier(path)
    model, _ = make_classifier(saved, path)
    return model, Namespace(**{**vars(build_parser().parse_args([])), **options}), saved.epoch


def top1_of(folder: Path, epoch: int) -> str:
    """The validation accuracy of an epoch in a phase's summary; nothing if it has none."""
    rows = [row for row in read_rows(folder)[0] if row['epoch'] == epoch and 'eval_top1' in row]
    return f'{rows[0]["eval_top1"]:.2f} % (epoch {epoch})' if rows else ''


def last_gallery(run: Path) -> Path | None:
    """The newest gallery of a run's repaint phase."""
    folders = (run, run.parent) if run.name == FINE_TUNE else (run,)
    pictures = [path for folder in folders for path in folder.glob('gallery-*.png')]
    return max(pictures, key=os.path.getmtime, default=None)


def changed_options(folder: Path, args: Namespace) -> dict[str, Any]:
    """Options of a phase that differ from the defaults, without places on this machine; its repaints' are the run's."""
    parser = build_parser()
    defaults, values = vars(parser.parse_args([])), vars(args)
    if folder.name == FINE_TUNE and (folder.parent / ARGS).is_file():
        run = read_args(folder.parent)
        values = {**values, **{name: run[name] for name in REPAINT_OPTIONS | {'repaint'} if name in run}}
    private = PRIVATE | {action.dest for action in parser._actions if action.metavar in ('FILE', 'DIR')}
    return {
        '--' + name.replace('_', '-'): value
        for name, value in sorted(values.items())
        if name in defaults and name not in private and value != defaults[name]
    }


def describe(folder: Path, args: Namespace, repo: str, top1: str, gallery: bool) -> dict[str, Any]:
    """A model card in timm's words."""
    details: dict[str, Any] = {'Model type': f'image classification, {args.model}'}
    if top1:
        details['Top-1 on its validation split'] = top1
    details['Trained with'] = f'timm-repaint {__version__}, timm {timm.__version__}'
    details['Options that differ from the defaults'] = changed_options(folder, args)
    usage = f"```python\nimport timm\n\nmodel = timm.create_model('hf_hub:{repo}', pretrained=True).eval()\n```\n"
    if gallery:
        usage += f'\n## Repaints\n\nOriginals, their masks and repaints of them:\n\n![repaints]({GALLERY})\n'
    description = 'Trained without repaints.'
    if args.repaint or folder.name == FINE_TUNE:
        description = 'Trained with repaints of its training images, which keep shapes and change texture and colour.'
    return {'license': 'unknown', 'description': description, 'details': details, 'usage': usage}


def main() -> int:
    args = parse_args()
    folder = finished_phase(args.run)
    model, saved, epoch = load_classifier(folder)
    gallery = last_gallery(args.run)
    card = describe(folder, saved, args.repo, top1_of(folder, epoch), gallery is not None)
    try:
        if gallery is not None:  # ahead of the model, whose card shows it
            api = huggingface_hub.HfApi(library_name='timm_repaint', library_version=__version__)
            api.create_repo(args.repo, private=args.private, exist_ok=True)
            api.upload_file(path_or_fileobj=str(gallery), path_in_repo=GALLERY, repo_id=args.repo)
        push_to_hf_hub(
            model,
            args.repo,
            commit_message=f'{saved.model} by timm-repaint',
            private=args.private,
            model_card=card,
            safe_serialization=True,
            data_config=resolve_data_config(vars(saved), model=model),
        )
    except Exception as error:  # no network, login or right to write, no such name: of several libraries' classes
        raise UsageError(f'the Hub refuses {args.repo}: {error}; see hf auth login') from error
    print(f'https://huggingface.co/{args.repo}')
    return 0


if __name__ == '__main__':
    run_command(main)
