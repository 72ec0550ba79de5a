"""Repaint in Hugging Face's Trainer: hf_trainer.py DATA 200 [CHECKPOINT], with images in DATA/train/CLASS/."""

import sys

import timm
import torch
from torchvision.datasets import ImageFolder
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from timm_repaint import Repaint, with_masks


class RepaintedClassifier(torch.nn.Module):
    def __init__(self, num_labels):
        super().__init__()
        self.repaint = Repaint(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
        self.model = ResNetForImageClassification(ResNetConfig(num_labels=num_labels, depths=[2, 2, 2, 2]))

    def forward(self, images, labels):
        return self.model(self.repaint(images), labels)


class RepaintTrainer(Trainer):
    def training_step(self, model, batch, *args):
        if self.state.epoch >= 0.75 * self.args.num_train_epochs:
            self.model.repaint.stop()
        loss = super().training_step(model, {'images': batch[0], 'labels': batch[1]}, *args)
        scale = self.accelerator.scaler.get_scale() if self.accelerator.scaler else 1.0  # of fp16
        self.model.repaint.step(scale / self.current_gradient_accumulation_steps, self.accelerator.sync_gradients)
        return loss


if __name__ == '__main__':
    folder, epochs, checkpoint = [*sys.argv[1:], None][:3]
    data = ImageFolder(f'{folder}/train', with_masks(timm.data.create_transform(128, is_training=True), masks='fh'))
    model, collate = RepaintedClassifier(len(data.classes)), torch.utils.data.default_collate
    saving = {'save_strategy': 'epoch', 'save_total_limit': 2}
    options = TrainingArguments('.', num_train_epochs=int(epochs), dataloader_num_workers=4, **saving)
    RepaintTrainer(model, options, collate, data).train(resume_from_checkpoint=checkpoint)
