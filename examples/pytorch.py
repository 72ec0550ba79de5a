"""A plain PyTorch loop: pytorch.py DATA 200 [last.pt]. The lines that end in `# +` are all that Repaint adds."""

import sys

import timm
import torch
from torchvision.datasets import ImageFolder

from timm_repaint import Repaint, with_masks  # +

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, epochs, checkpoint = [*sys.argv[1:], None][:3]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    data = ImageFolder(f'{folder}/train', timm.data.create_transform(128, is_training=True, mean=MEAN, std=STD))
    data.transform = with_masks(data.transform, masks='fh')  # +
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, num_workers=4)
    model = timm.create_model('resnet18', num_classes=len(data.classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    parts = {'model': model, 'optimizer': optimizer}
    repaint = parts['repaint'] = Repaint(MEAN, STD).to(device)  # +
    saved = torch.load(checkpoint, map_location=device) if checkpoint else {'epoch': 0}
    for name in parts.keys() & saved.keys():
        parts[name].load_state_dict(saved[name])
    for epoch in range(saved['epoch'], int(epochs)):
        if epoch >= 0.75 * int(epochs):  # +
            repaint.stop()  # +
        for images, target in loader:
            images, target = images.to(device), target.to(device)
            images = repaint(images)  # +
            loss = torch.nn.functional.cross_entropy(model(images), target)
            loss.backward()
            repaint.step()  # +
            optimizer.step()
            optimizer.zero_grad()
        torch.save({'epoch': epoch + 1} | {name: part.state_dict() for name, part in parts.items()}, 'last.pt')
        print(f'epoch {epoch + 1}: loss {loss.item():.3f}')
