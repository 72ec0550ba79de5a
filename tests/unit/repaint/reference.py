"""The gradients of E, G, D and T by autograd through all of them as one graph: what `Repaint` has to agree with."""

import torch
import torch.nn.functional as F

from timm_repaint.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    segment_kl_divergence,
)
from timm_repaint.networks.discriminator import split_logits
from timm_repaint.networks.label_maps import discriminator_condition


def reference_gradients(repainter, discriminator, model, batch, setup):
    """Gradients of one batch in an update in which E, G, D and T learn.

    Args:
        repainter: E and G, in training mode, requiring gradients.
        discriminator: D, the same.
        model: T, the same.
        batch: images [B, 3, H, W], labels [B, H, W], target [B], and the random seed of the batch.
        setup: mean, std, number of repaints, 'mix', whether batches are separate, weights by name.

    Returns:
        Gradients of E+G, of D, of T (None where it has none), a list each.
    """
    images, labels, target, seed = batch
    count, weights = setup['count'], setup['weights']
    mean, std = (torch.tensor(setup[name], dtype=images.dtype).view(1, 3, 1, 1) for name in ('mean', 'std'))
    image_pm1 = (images[:count] * std + mean) * 2 - 1
    torch.manual_seed(seed)
    repaint_pm1, posterior, _ = repainter(image_pm1, labels[:count])
    repaint_norm = ((repaint_pm1 + 1) / 2 - mean) / std
    if setup['separate']:
        seen, wanted = repaint_norm, target[:count]
    elif setup['mix'] == 'both':
        seen, wanted = torch.cat([repaint_norm, images]), torch.cat([target[:count], target])
    else:
        seen, wanted = torch.cat([repaint_norm, images[count:]]), target
    task_loss = F.cross_entropy(model(seen), wanted)  # mean over all images that T saw

    condition = discriminator_condition(labels[:count], None).to(images.dtype)
    discriminator.train(not setup['separate'])  # where it does not learn, its spectral norms do not iterate
    outputs = discriminator(torch.cat([image_pm1, repaint_pm1]), torch.cat([condition, condition]))
    real = [[layer[:count] for layer in scale] for scale in outputs]
    fake = [[layer[count:] for layer in scale] for scale in outputs]
    (real_logits, real_features), (fake_logits, fake_features) = split_logits(real), split_logits(fake)
    parts = {
        'gan': generator_loss(fake_logits, 'hinge'),
        'feat': feature_matching_loss(real_features, fake_features),
        'kl': kl_divergence(posterior.global_mu, posterior.global_logvar),
        'segment_kl': segment_kl_divergence(*posterior[2:]),
        'task': task_loss * len(seen) / count,  # as a mean over the repaints
    }
    g_loss = sum(weights.get(name, 1.0) * part for name, part in parts.items())
    d_loss = discriminator_loss(real_logits, fake_logits, 'hinge')

    def gradients(loss, module):
        parameters = list(module.parameters())
        return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)

    of_d = None if setup['separate'] else gradients(d_loss, discriminator)
    learning = [p for p in model.parameters() if p.requires_grad]
    of_t = torch.autograd.grad(task_loss, learning, retain_graph=True)
    return gradients(g_loss, repainter), of_d, of_t
