"""Training by the plainest loop over timm's parts, with the defaults of timm's script: what train.py has to agree with.

`python -m tests.plain_loop DATA` prints the rows of the parity case 'plain' as JSON.
"""

import json
import sys

import torch
from timm import utils
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask

DEVICE = torch.device('cpu')


def train_plainly(data, model_name, batch_size, epochs):
    """Rows of `epochs` epochs: mean losses, top-1 in percent."""
    utils.random_seed(42, 0)
    model = create_model(model_name, num_classes=4, in_chans=3, drop_rate=0.0)
    config = resolve_data_config({'img_size': 32}, model=model)
    common = {
        'input_size': config['input_size'], 'batch_size': batch_size, 'mean': config['mean'], 'std': config['std'],
        'num_workers': 1, 'device': DEVICE,
    }  # fmt: skip
    loader = create_loader(
        create_dataset('', root=data, split='train', is_training=True),
        is_training=True,
        scale=[0.08, 1.0],
        ratio=[3 / 4, 4 / 3],
        color_jitter=0.4,
        interpolation='random',
        **common,
    )
    validation = create_loader(
        create_dataset('', root=data, split='validation', is_training=False),
        is_training=False,
        interpolation=config['interpolation'],
        crop_pct=config['crop_pct'],
        **common,
    )
    task = ClassificationTask(model, criterion_kwargs={'smoothing': 0.1}, device=DEVICE)
    optimizer = create_optimizer_v2(model, opt='sgd', lr=0.05, weight_decay=2e-5, momentum=0.9)
    scheduler, _ = create_scheduler_v2(optimizer, sched='cosine', num_epochs=epochs, warmup_epochs=0)
    rows = []
    for epoch in range(epochs):
        train_loss = train_epoch(task, loader, optimizer)
        rows.append({'epoch': epoch, 'train_loss': train_loss, **validate(model, validation)})
        scheduler.step(epoch + 1)
    return rows


def train_epoch(task, loader, optimizer):
    task.train()
    total, count = torch.zeros(()), 0
    for images, target in loader:
        loss = task(images, target)['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total, count = total + loss.detach() * len(target), count + len(target)
    return float(total) / count


@torch.no_grad()
def validate(model, loader):
    model.eval()
    logits, targets = zip(*((model(images), target) for images, target in loader), strict=True)
    logits, targets = torch.cat(logits), torch.cat(targets)
    return {
        'eval_loss': torch.nn.functional.cross_entropy(logits, targets).item(),
        'eval_top1': 100 * (logits.argmax(dim=1) == targets).float().mean().item(),
    }


if __name__ == '__main__':
    print(json.dumps(train_plainly(sys.argv[1], 'resnet10t', batch_size=16, epochs=2)))
