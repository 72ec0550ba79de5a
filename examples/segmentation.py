"""Repaint and torchvision's segmentation: segmentation.py IMAGES MAPS 182 200 [last.pt], PNGs of class ids in MAPS."""

import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.transforms import v2

from timm_repaint import Repaint

MEAN, STD, UNKNOWN = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255
DTYPES = v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True)
MOVE = v2.Compose([v2.RandomResizedCrop(256, (0.25, 1)), v2.RandomHorizontalFlip(), DTYPES, v2.Normalize(MEAN, STD)])


def read(paths):  # of images and their maps, moved alike -> [B, 3, H, W], [B, H, W]
    opened = [(Image.open(image).convert('RGB'), Image.open(labels)) for image, labels in paths]
    moved = [MOVE(tv_tensors.Image(image), tv_tensors.Mask(labels)) for image, labels in opened]
    return torch.stack([image for image, _ in moved]), torch.cat([labels for _, labels in moved])


if __name__ == '__main__':
    images, maps, num_classes, epochs, checkpoint = [*sys.argv[1:], None][:5]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    data = [(path, Path(maps, f'{path.stem}.png')) for path in sorted(Path(images).iterdir())]
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, num_workers=4, collate_fn=read)
    model = lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=int(num_classes)).to(device)
    repaint = Repaint(MEAN, STD, num_labels=int(num_classes)).to(device)  # the maps' own classes are its masks
    optimizer = torch.optim.AdamW(model.parameters())
    parts = {'model': model, 'optimizer': optimizer, 'repaint': repaint}
    saved = torch.load(checkpoint, map_location=device) if checkpoint else {'epoch': 0}
    for name in parts.keys() & saved.keys():
        parts[name].load_state_dict(saved[name])
    for epoch in range(saved['epoch'], int(epochs)):
        if epoch >= 0.75 * int(epochs):
            repaint.stop()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            logits = model(repaint(images, labels=labels))['out']
            loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=UNKNOWN)
            loss.backward()
            repaint.step()
            optimizer.step()
            optimizer.zero_grad()
        torch.save({'epoch': epoch + 1} | {name: part.state_dict() for name, part in parts.items()}, 'last.pt')
