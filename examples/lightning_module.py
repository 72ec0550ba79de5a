"""Repaint in a LightningModule: lightning_module.py DATA 200 [CHECKPOINT], with images in DATA/train/CLASS/."""

import sys

import lightning
import timm
import torch
from torchvision.datasets import ImageFolder

from timm_repaint import Repaint, with_masks


class RepaintedClassifier(lightning.LightningModule):
    def __init__(self, num_classes):
        super().__init__()
        self.repaint = Repaint(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
        self.model = timm.create_model('resnet18', num_classes=num_classes)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameters())

    def on_train_epoch_start(self):
        if self.current_epoch >= 0.75 * self.trainer.max_epochs:
            self.repaint.stop()

    def training_step(self, batch, batch_idx):
        images, target = batch
        return torch.nn.functional.cross_entropy(self.model(self.repaint(images)), target)

    def on_after_backward(self):  # of the loss, which Lightning divided by n, and multiplied for '16-mixed'
        n, scaler = self.trainer.accumulate_grad_batches, getattr(self.trainer.precision_plugin, 'scaler', None)
        update = (self.trainer.fit_loop.batch_idx + 1) % n == 0 or self.trainer.is_last_batch
        self.repaint.step((scaler.get_scale() if scaler else 1.0) / n, update)


if __name__ == '__main__':
    folder, epochs, checkpoint = [*sys.argv[1:], None][:3]
    data = ImageFolder(f'{folder}/train', with_masks(timm.data.create_transform(128, is_training=True), masks='fh'))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, num_workers=4)
    lightning.Trainer(max_epochs=int(epochs)).fit(RepaintedClassifier(len(data.classes)), loader, ckpt_path=checkpoint)
