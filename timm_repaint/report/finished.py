"""Reports on the repaint phase of a run from its folder: a gallery, and the leak probe."""

from argparse import Namespace
from pathlib import Path

from timm_repaint.detection.installed import find_functions
from timm_repaint.engine.parts import Run
from timm_repaint.engine.repaint_watch import own_draws
from timm_repaint.engine.run import build_run, with_values
from timm_repaint.errors import UsageError
from timm_repaint.files import check_ours
from timm_repaint.monitor.gallery import GRID
from timm_repaint.monitor.probe import Leak, evaluating, repaint_copies
from timm_repaint.options.parser import build_parser
from timm_repaint.options.run_file import NO_WEIGHTS, is_detection, read_repaint_args
from timm_repaint.painters import PAINTERS


def load_run(folder: Path, device: str) -> Run:
    """A run as it was after its repaint phase, with its data; nothing in its folder changes.

    Raises:
        UsageError: if the folder holds no repaint run with a checkpoint.
    """
    checkpoint = folder / 'last.pth.tar'
    saved = Namespace(**{**vars(build_parser().parse_args([])), **read_repaint_args(folder)})
    functions = find_functions(saved)
    no_others = {**NO_WEIGHTS, 'no_resume_opt': True}
    if saved.repaint_generator not in PAINTERS:
        no_others |= {'repaint_checkpoint': str(checkpoint), 'repaint_freeze': True}
    args = with_values(saved, device=device, workers=0, torchcompile=None, **no_others)
    if not checkpoint.is_file():
        raise UsageError(f'{checkpoint} does not exist: the run has no checkpoint yet')
    return build_run(args, functions, str(checkpoint), to_train=False)


def report_gallery(folder: Path, output: Path, device: str, images: int, copies: int) -> None:
    """Draw training images of a run with their masks and repaints to the PNG `output`.

    Raises:
        UsageError: if the folder holds no repaint run with a checkpoint, or the PNG is somebody's.
    """
    check_ours(output, GRID, 'gallery')
    run = load_run(folder, device)
    assert run.repaint is not None
    samples = run.watch.pick(run, run.loaders.dataset_train, run.loaders.masks, images)
    repainter = run.repaint.repainter
    with evaluating(repainter):
        repaints = repaint_copies(repainter, samples, copies, own_draws(run), run.args.batch_size)
    run.watch.save_gallery(str(output), samples, repaints)
    print(output)


def report_leak(folder: Path, device: str) -> Leak:
    """Print what T makes of validation images, of their repaints, and of repaints with other images' latents.

    Raises:
        UsageError: if the folder holds no repaint run with a checkpoint, or there are no validation images with masks.
    """
    run = load_run(folder, device)
    unseen = run.watch.unseen_images(run)
    if unseen is None:
        raise UsageError(f'{folder}: no validation images with masks; the probe needs images that T never saw')
    leak = run.watch.find_leak(run, unseen)
    right = 'objects found on' if is_detection(vars(run.args)) else 'top-1 on'
    print(f'{right} {len(unseen.targets)} validation images: {leak.original:.1f} %')
    print(f'on their repaints: {leak.repaint:.1f} % (chance explains a gain of {leak.chance:.1f} points)')
    print(f'on repaints with the latents of other images: {leak.swapped:.1f} %')
    leaks = leak.repaint - leak.original > leak.chance
    print('the repaints leak the class' if leaks else 'no leak: repaints are not easier than the images')
    return leak
