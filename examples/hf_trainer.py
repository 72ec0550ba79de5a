"""Repaint in Hugging Face's Trainer: hf_trainer.py DATA 200 [CHECKPOINT], with images in DATA/train/CLASS/."""

import sys

import timm
import torch
from torchvision.datasets import ImageFolder
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments

from timm_repaint import Repaint, with_masks


class RepaintedClassifier(torch.nn.Module):
    def __init__(self, num_labels):
        super().__init__()
        self.repaint = Repaint(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
        self.model = ResNetForImageClassification(ResNetConfig(num_labels=num_labels, depths=[2, 2, 2, 2]))

    def forward(self, batch):
        return self.model(self.repaint(batch[0]), batch[1])


class RepaintSteps(TrainerCallback):
    def on_epoch_begin(self, args, state, control, model, **kwargs):
        model.repaint.stop() if state.epoch >= 0.75 * args.num_train_epochs else None

    def on_substep_end(self, args, state, control, model, update=False, **kwargs):
        scaler, accumulated = trainer.accelerator.scaler, trainer.current_gradient_accumulation_steps
        model.repaint.step((scaler.get_scale() if scaler else 1.0) / accumulated, update)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.on_substep_end(args, state, control, update=True, **kwargs)


if __name__ == '__main__':
    data = ImageFolder(f'{sys.argv[1]}/train', with_masks(timm.data.create_transform(128, is_training=True)))
    model, collate = RepaintedClassifier(len(data.classes)), torch.utils.data.default_collate
    options = TrainingArguments('.', num_train_epochs=int(sys.argv[2]), save_strategy='epoch')
    trainer = Trainer(model, options, lambda rows: {'batch': collate(rows)}, data, callbacks=[RepaintSteps])
    trainer.train(resume_from_checkpoint=[*sys.argv, None][3])
