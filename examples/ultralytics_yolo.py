"""Repaint and YOLO: ultralytics_yolo.py coco8.yaml 200 [last.pt]. ultralytics is AGPL-3.0; tried by hand, 8.4.190."""

import sys

import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from timm_repaint import Repaint


class RepaintTrainer(DetectionTrainer):
    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        batch['img'] = self.repaint(batch['img'])
        self.loss_scale = len(batch['img']) * self.scaler.get_scale()  # the loss is a sum over the batch
        return batch


def begin(trainer):
    trainer.repaint = Repaint(mean=(0, 0, 0), std=(1, 1, 1)).to(trainer.device)  # YOLO's images are in [0, 1]
    if trainer.resume:
        trainer.repaint.load_state_dict(torch.load(trainer.wdir / 'repaint.pt', map_location=trainer.device))


def stop_late(trainer):
    if trainer.epoch >= 0.75 * trainer.epochs:
        trainer.repaint.stop()


if __name__ == '__main__':
    data, epochs, checkpoint = [*sys.argv[1:], False][:3]
    options = {'model': 'yolo11n.yaml', 'data': data, 'epochs': int(epochs), 'resume': checkpoint}
    trainer = RepaintTrainer(overrides=options)
    trainer.add_callback('on_pretrain_routine_end', begin)
    trainer.add_callback('on_train_epoch_start', stop_late)
    trainer.add_callback('on_train_batch_end', lambda t: t.repaint.step(t.loss_scale))
    trainer.add_callback('on_model_save', lambda t: torch.save(t.repaint.state_dict(), t.wdir / 'repaint.pt'))
    trainer.train()
