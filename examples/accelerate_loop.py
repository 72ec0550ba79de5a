"""accelerate launch [--mixed_precision bf16 --gradient_accumulation_steps 2] accelerate_loop.py DATA 200 [last]"""

import sys

import timm
import torch
from accelerate import Accelerator
from torchvision.datasets import ImageFolder

from timm_repaint import Repaint, with_masks

MEAN, STD = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD

if __name__ == '__main__':
    folder, epochs, checkpoint = [*sys.argv[1:], None][:3]
    accelerator = Accelerator()  # with the settings of `accelerate launch`
    data = ImageFolder(f'{folder}/train', with_masks(timm.data.create_transform(128, is_training=True), masks='fh'))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, num_workers=4)
    model = timm.create_model('resnet18', num_classes=len(data.classes))
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(epochs))
    repaint = Repaint(MEAN, STD).to(accelerator.device)  # prepare() is for others: it averages its gradients itself
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(repaint, schedule)
    if checkpoint:
        accelerator.load_state(checkpoint)
    for epoch in range(schedule.last_epoch, int(epochs)):
        if epoch >= 0.75 * int(epochs):
            repaint.stop()
        for images, target in loader:
            with accelerator.accumulate(model):
                with accelerator.autocast():
                    loss = torch.nn.functional.cross_entropy(model(repaint(images)), target)
                accelerator.backward(loss)  # divides it by the accumulation, and multiplies it for float16
                scale = accelerator.scaler.get_scale() if accelerator.scaler else 1.0
                repaint.step(scale / accelerator.gradient_accumulation_steps, update=accelerator.sync_gradients)
                optimizer.step()
                optimizer.zero_grad()
        schedule.step()
        accelerator.save_state('last')
