"""Does the classifier decide by shape or by texture? Its accuracy by each on images where the two disagree."""

import json
import os

import torch
from timm.data import create_loader
from timm.utils import unwrap_model
from torch import Tensor

from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.engine.parts import Run
from timm_repaint.files import write_text
from timm_repaint.log import logger
from timm_repaint.options.run_file import CUE_CONFLICT


def shape_and_texture_accuracy(predictions: Tensor, shapes: Tensor, textures: Tensor) -> dict[str, float]:
    """Share of predictions that are the image's shape, and that are the class of its texture, in percent.

    Args:
        predictions, shapes, textures: Class indices, [N].
    """
    return {
        'shape': 100 * (predictions == shapes).float().mean().item(),
        'texture': 100 * (predictions == textures).float().mean().item(),
    }


@torch.inference_mode()
def report_cue_conflict(run: Run) -> None:
    """Log both accuracies on the built-in set's split 'cue-conflict' and write them to `cue_conflict.json`."""
    size = max(run.data_config['input_size'][-2:])
    dataset = ShapesDataset('cue-conflict', run.args.val_num_samples, image_size=size)
    own = {name: run.data_config[name] for name in ('input_size', 'interpolation', 'mean', 'std', 'crop_pct')}
    loader = create_loader(
        dataset,  # type: ignore[arg-type]
        batch_size=run.args.validation_batch_size or run.args.batch_size,
        num_workers=run.args.workers,
        device=run.device,
        img_dtype=run.precision.model_dtype or torch.float32,
        **own,
    )
    averaged = run.args.model_ema and not run.args.model_ema_force_cpu  # as in validation
    model = unwrap_model(run.task.get_eval_model(ema=averaged))  # the other processes do not take part
    model.eval()
    predictions, shapes = [], []
    for images, target in loader:
        with run.precision.autocast():
            predictions.append(model(images).argmax(dim=1).cpu())
        shapes.append(target.cpu())
    textures = torch.tensor([dataset.texture_label(index) for index in range(len(dataset))])
    result = shape_and_texture_accuracy(torch.cat(predictions), torch.cat(shapes), textures)
    logger.info('Cue conflict: %.1f %% by shape, %.1f %% by texture.', result['shape'], result['texture'])
    if run.output.folder:
        content = {'epochs': run.plan.stop_epoch, 'images': len(dataset), **result}
        write_text(os.path.join(run.output.folder, CUE_CONFLICT), json.dumps(content, indent=2))
