"""The end of each repaint epoch: measurements on fixed images, the gallery, and warnings of what goes wrong."""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm import utils
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from timm_repaint.data.samples import Samples, fixed_samples
from timm_repaint.data.stored import WithStoredMasks
from timm_repaint.engine.loaders import build_dataset
from timm_repaint.engine.masks import with_stored_masks
from timm_repaint.engine.parts import Run
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.masks.cache import Folders, read_image
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks
from timm_repaint.monitor.alarms import Alarms, find_alarms
from timm_repaint.monitor.gallery import save_gallery
from timm_repaint.monitor.probe import Leak, evaluating, measure_repaints, probe_leak, repaint_copies
from timm_repaint.options.conflicts import resolve_repaint_epochs
from timm_repaint.pictures import to_u8
from timm_repaint.repainter import Repainter

GALLERY_COLUMNS = 8
GALLERY_COPIES = 3
MEASURED_IMAGES = (8, 64)  # at least and at most
MEASURED_PIXELS = 64 * 448 * 448  # of a few copies each, which lie on the device at once
MEASURED_SHARE = 1 / 32  # of an epoch's images, so that measuring takes a few percent of its time


@dataclass(frozen=True)
class FixedImages:
    """The images that a run is measured on.

    Attributes:
        gallery: Training images that the gallery shows.
        train: Training images that are repainted after each epoch.
        unseen: Validation images for the leak probe; None without any, or without masks for them.
    """

    gallery: Samples
    train: Samples
    unseen: Samples | None


class RepaintWatch:
    """Looks at repaints of the same images after each epoch, on the primary process alone: no process waits in it.

    Random numbers are its own, so training goes on as if nobody had looked.

    Attributes:
        unseen_count: Validation images for the leak probe.
    """

    unseen_count = 256

    def __init__(self) -> None:
        self.images: FixedImages | None = None
        self.alarms = Alarms()

    def look(self, run: Run, epoch: int, discriminator_loss: float) -> dict[str, float]:
        """Measure, warn, and at intervals draw the gallery and run the leak probe.

        Args:
            epoch: Counted from 0; just trained.
            discriminator_loss: D's mean over the epoch; nan without D.

        Returns:
            'diversity', 'distance' and 'changed_segments' (see `measure_repaints`); 'leak_original', 'leak_repaint',
            'leak_swapped' and 'leak_chance' (see `Leak`; nan in epochs without a probe); 'skipped_updates'. Nothing on
            processes other than the primary.
        """
        if not utils.is_primary(run.args):
            return {}
        assert run.repaint is not None
        if self.images is None:
            self.images = self.fixed_images(run)
        interval, completed = run.args.repaint_gallery_interval, epoch + 1
        at_interval = bool(interval) and completed % interval == 0
        repainter, batch_size = run.repaint.repainter, run.args.batch_size
        with evaluating(repainter):
            measures = measure_repaints(repainter, self.images.train, own_draws(run), batch_size)
            if run.output.folder and (at_interval or completed == run.plan.stop_epoch):
                copies = repaint_copies(repainter, self.images.gallery, GALLERY_COPIES, own_draws(run), batch_size)
                path = os.path.join(run.output.folder, f'gallery-{epoch}.png')
                try:
                    self.save_gallery(path, self.images.gallery, copies)
                    run.output.show_gallery(path, epoch)
                except UsageError as error:  # a picture is not worth the run
                    logger.warning('No gallery of epoch %d: %s', epoch, error)
        leak = Leak(*[math.nan] * 4)
        # The phase's end, not `--stop-epoch`: a run in two parts has the same figures as one in one.
        if self.images.unseen is not None and (at_interval or completed == resolve_repaint_epochs(run.args)):
            leak = self.find_leak(run, self.images.unseen)
        if isinstance(repainter, Repainter):  # other painters have nothing that could go wrong
            # Of the latents: at temperature 0 there is none on purpose, and swapped detail differs without them.
            by_latents = repainter.temperature > 0 and repainter.detail != 'swap'
            diversity = measures['diversity'] if by_latents else math.nan
            self.alarms.update(find_alarms(discriminator_loss, diversity, leak, run.repaint.config))
        leaks = {f'leak_{name}': value for name, value in leak._asdict().items()}
        return {**measures, **leaks, 'skipped_updates': float(sum(run.repaint.skipped.values()))}

    def fixed_images(self, run: Run) -> FixedImages:
        """Load the images that all epochs are measured on."""
        dataset, masks = run.loaders.dataset_train, run.loaders.masks
        gallery, train = (self.pick(run, dataset, masks, count) for count in (GALLERY_COLUMNS, measured_images(run)))
        return FixedImages(gallery, train, self.unseen_images(run))

    def unseen_images(self, run: Run) -> Samples | None:
        """Validation images and their masks: stored ones, or made here by the run's own source.

        None without a validation split, for a stream (a second reader here could disturb the loader's), and where masks
        are stored ones of the training images alone; only Felzenszwalb's are made anew, as the cache would hold them.
        """
        dataset = self.validation_images(run) if run.args.val_split else None
        if dataset is None or isinstance(dataset, IterableDataset):
            return None
        sources: list[Any] = [run.loaders.masks]
        if isinstance(run.loaders.masks, CachedMasks) and run.loaders.masks.manifest.source == 'fh':
            sources.append(FreshMasks(run.loaders.masks))
        for masks in sources:
            try:
                return self.pick(run, dataset, masks, self.unseen_count)
            except UsageError as error:
                reason = error
        logger.info('No leak probe, the validation images have no masks: %s', reason)
        return None

    def validation_images(self, run: Run) -> Any:
        """A data set of validation images."""
        return build_dataset(run.args, run.args.val_split, run.data_config, is_training=False)

    def pick(self, run: Run, dataset: Any, masks: Any, count: int) -> Samples:
        """`count` images of a data set with their label maps, the same at every call."""
        if not isinstance(dataset, WithStoredMasks):
            dataset = with_stored_masks(dataset, masks)
        return fixed_samples(dataset, masks, run.data_config, count)

    def find_leak(self, run: Run, unseen: Samples) -> Leak:
        """The leak probe with the run's T in its own number formats."""
        # T without wrappers: that of several processes would wait for the others.
        repaint, model = run.repaint, unwrap_model(run.task.get_eval_model())
        assert repaint is not None
        judge, dtype, batch_size = self.judge(model), run.precision.model_dtype or torch.float32, run.args.batch_size

        def find_hits(shown_pm1: Tensor) -> Tensor:
            with run.precision.autocast():
                outputs = [judge(repaint.to_norm(part_pm1, dtype)) for part_pm1 in shown_pm1.split(batch_size)]
            return self.hits(torch.cat(outputs).cpu(), unseen.targets)

        with evaluating(repaint.repainter, model):
            return probe_leak(repaint.repainter, find_hits, unseen, own_draws(run), batch_size)

    def judge(self, model: nn.Module) -> nn.Module:
        """What gives the answers for `hits`: T, or something around it."""
        return model

    def hits(self, outputs: Tensor, targets: list[Any]) -> Tensor:
        """Where T is right, a value an image or object, [M] bool."""
        return outputs.argmax(dim=1) == torch.tensor(targets)

    def save_gallery(self, path: str, samples: Samples, repaints_pm1: list[Tensor]) -> None:
        """Draw samples, masks and repaints, `copies` times [N, 3, H, W] in [-1, 1]."""
        repaints_u8 = [self.drawn([to_u8(one_pm1) for one_pm1 in copy_pm1], samples) for copy_pm1 in repaints_pm1]
        save_gallery(path, self.drawn(samples.images_u8, samples), samples.labels, repaints_u8)

    def drawn(self, images_u8: list[np.ndarray], samples: Samples) -> list[np.ndarray]:
        """The samples or their repaints as a gallery shows them."""
        return images_u8


def own_draws(run: Run) -> torch.Generator:
    """Random numbers that are not training's, the same in every epoch."""
    return torch.Generator(run.device).manual_seed(run.args.seed)


def measured_images(run: Run) -> int:
    """How many training images are repainted after each epoch."""
    least, most = MEASURED_IMAGES
    images_per_epoch = len(run.loaders.train) * run.args.batch_size
    _, height, width = run.data_config['input_size']
    wanted = min(int(MEASURED_SHARE * images_per_epoch), MEASURED_PIXELS // (height * width))
    return min(most, max(least, wanted))


class FreshMasks(CachedMasks):
    """Felzenszwalb segments of images that a cache does not cover, cut when they are read as the cache would be.

    Args:
        cache: A cache of Felzenszwalb segments.
    """

    def __init__(self, cache: CachedMasks) -> None:
        super().__init__(cache.mask_dir, cache.image_root)
        made = cache.manifest.parameters
        backend = 'auto' if made['backend'] == 'opencv' else made['backend']  # OpenCV may be missing here
        self.source = FelzenszwalbMasks(made['scale'], made['sigma'], made['min_size'], backend)

    def read(self, image_path: str | os.PathLike, image_hw: tuple[int, int]) -> np.ndarray:
        """The segments of an image, [h, w] uint16, at the cache's size."""
        return self.source(read_image(Folders('', '', self.manifest.size_px), str(image_path)))
