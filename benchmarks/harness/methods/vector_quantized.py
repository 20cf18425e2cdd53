"""A small version of CVQVAE [Liu22]: autoencoders of both modalities with one codebook, each trained to decode the other too.

Written from the description in its paper; no package is to be had. Components take the place of its 2,500.
"""

from __future__ import annotations

import numpy as np

from ..sets import REAL, Task
from ._method import Fitted, Limit, Method
from .linear import components

D_HIDDEN, D_LATENT, N_CODES = 256, 32, 512
EPOCHS, BATCH_SIZE, LEARNING_RATE = 100, 256, 1e-3
#: Weight of the distance of an embedding to its code, as in the VQ-VAE of van den Oord (2017).
COMMITMENT = 0.25


def cvqvae(task: Task, seed: int) -> Fitted:
    import torch

    torch.manual_seed(seed)
    parts = {}
    for kind in task.keys:
        train, test = components(task, kind, seed)
        size = train.std(0).mean()  # one scale for all, so that the first components count more
        parts[kind] = tuple(torch.as_tensor(x / size, dtype=torch.float32) for x in (train, test))
    encoders = torch.nn.ModuleDict({kind: _mlp(x.shape[1], D_LATENT) for kind, (x, _) in parts.items()})
    decoders = torch.nn.ModuleDict({kind: _mlp(D_LATENT, x.shape[1]) for kind, (x, _) in parts.items()})
    codes = torch.nn.Parameter(torch.randn(N_CODES, D_LATENT))
    optimizer = torch.optim.Adam([*encoders.parameters(), *decoders.parameters(), codes], lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(task.train.n_obs).split(BATCH_SIZE):
            if len(rows) < 2:  # batch normalization needs two
                continue
            x = {kind: train[rows] for kind, (train, _) in parts.items()}
            z = {kind: encoders[kind](x[kind]) for kind in x}
            loss = 1 - torch.cosine_similarity(*z.values()).mean()
            for of_kind in z.values():
                code = codes[torch.cdist(of_kind, codes).argmin(1)]
                loss = (
                    loss
                    + (code - of_kind.detach()).square().mean()
                    + COMMITMENT * (of_kind - code.detach()).square().mean()
                )
                passed_on = of_kind + (code - of_kind).detach()
                loss = loss + sum((decoders[other](passed_on) - x[other]).square().mean() for other in x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    encoders.eval()
    with torch.no_grad():
        embedded = {kind: tuple(encoders[kind](x).numpy() for x in both) for kind, both in parts.items()}
    joint = tuple(np.mean([of_kind[i] for of_kind in embedded.values()], axis=0) for i in (0, 1))
    return Fitted({**embedded, "joint": joint}, {"epochs": EPOCHS})


def _mlp(d_in: int, d_out: int):
    from torch import nn

    return nn.Sequential(
        nn.Linear(d_in, D_HIDDEN), nn.BatchNorm1d(D_HIDDEN), nn.ReLU(),
        nn.Linear(D_HIDDEN, D_HIDDEN), nn.BatchNorm1d(D_HIDDEN), nn.ReLU(), nn.Linear(D_HIDDEN, d_out),
    )  # fmt: skip


METHODS = [
    Method(
        "CVQVAE (our version)", "autoencoders of 50 components of each modality with one codebook, each also trained to decode "
        "the other, and the cosine of both; embeddings before they are replaced by their code", cvqvae, n_seeds=1,
        limit=Limit(REAL, "on real cells alone"),
    ),
]  # fmt: skip
