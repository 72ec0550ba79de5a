"""Repaint and a torchvision detector: torchvision_detector.py DATA 200 [last.pt], with data in COCO's layout."""

import sys

import torch
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from timm_repaint import Repaint, with_masks

if __name__ == '__main__':
    folder, epochs, checkpoint = [*sys.argv[1:], None][:3]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    steps = [v2.ToImage(), v2.Resize((320, 320)), v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()]
    steps += [v2.Lambda(with_masks(v2.ToDtype(torch.float32, scale=True), masks='fh'), tv_tensors.Image)]
    paths = f'{folder}/train2017', f'{folder}/annotations/instances_train2017.json'
    data = CocoDetection(*paths, transforms=v2.Compose(steps))
    data.ids = [image for image in data.ids if data.coco.getAnnIds(image)]  # those with boxes
    data = wrap_dataset_for_transforms_v2(data, target_keys=('boxes', 'labels'))
    whole = {'drop_last': len(data) > 16}  # batch norm cannot learn from a last batch of one image
    loader = torch.utils.data.DataLoader(data, 16, shuffle=True, num_workers=4, collate_fn=list, **whole)
    model = ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=max(data.coco.getCatIds()) + 1).to(device)
    repaint = Repaint(mean=(0, 0, 0), std=(1, 1, 1)).to(device)  # images in [0, 1]: the detector normalises inside
    optimizer = torch.optim.AdamW(model.parameters())
    parts = {'model': model, 'optimizer': optimizer, 'repaint': repaint}
    saved = torch.load(checkpoint, map_location=device) if checkpoint else {'epoch': 0}
    for name in parts.keys() & saved.keys():
        parts[name].load_state_dict(saved[name])
    for epoch in range(saved['epoch'], int(epochs)):
        if epoch >= 0.75 * int(epochs):
            repaint.stop()
        for images, targets in (zip(*samples, strict=True) for samples in loader):
            targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
            loss = sum(model(repaint(torch.stack(images).to(device)), targets).values())
            loss.backward()
            repaint.step()
            optimizer.step()
            optimizer.zero_grad()
        torch.save({'epoch': epoch + 1} | {name: part.state_dict() for name, part in parts.items()}, 'last.pt')
