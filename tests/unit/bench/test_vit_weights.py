"""Weights of a ViT under the names of another library."""

import timm
import torch

from bench.photos.vit_weights import to_timm


def test_weights_of_a_vit_get_the_names_that_timm_gives_them():
    model = timm.create_model('vit_small_patch14_dinov2', num_classes=0, depth=1, embed_dim=12, num_heads=2)
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    theirs = {
        'embeddings.cls_token': state['cls_token'],
        'layernorm.weight': state['norm.weight'],
        'layernorm.bias': state['norm.bias'],
    }
    names = {
        'attention.output.dense': 'attn.proj', 'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2', 'norm1': 'norm1',
        'norm2': 'norm2',
    }  # fmt: skip
    for kind in ('weight', 'bias'):
        theirs[f'embeddings.patch_embeddings.projection.{kind}'] = state[f'patch_embed.proj.{kind}']
        parts = state[f'blocks.0.attn.qkv.{kind}'].chunk(3)
        for part, value in zip(('query', 'key', 'value'), parts, strict=True):
            theirs[f'encoder.layer.0.attention.attention.{part}.{kind}'] = value
        for name, ours in names.items():
            theirs[f'encoder.layer.0.{name}.{kind}'] = state[f'blocks.0.{ours}.{kind}']
    for number in (1, 2):
        theirs[f'encoder.layer.0.layer_scale{number}.lambda1'] = state[f'blocks.0.ls{number}.gamma']
    found = to_timm(theirs, state['pos_embed'])
    assert found.keys() == state.keys()
    assert all(torch.equal(value, found[name]) for name, value in state.items())
