"""Training steps of the six-layer network in PyTorch.

python -m tests.benchmarks.pytorch_steps NETWORK, as `training.pytorch_steps` starts it: for each
line on stdin it prints how many examples a second it trains on. It is a process of its own, since
PyTorch and TensorFlow may bring two versions of LLVM, which ends a process that loads both.
"""

import json
import os
import sys
import time

import torch

_SECONDS = 4.0


def build_network(*, blocks: list, dense_units: int, num_classes: int, dropout: float):
    """The network on RGB pictures: `blocks` of (filters, kernel, pool, stride), then the head."""
    layers, channels = [], 3
    for filters, kernel, pool, stride in blocks:
        layers += [
            torch.nn.Conv2d(channels, filters, tuple(kernel)),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(tuple(pool), stride),
        ]
        channels = filters
    layers += [
        torch.nn.Flatten(),
        torch.nn.Linear(channels, dense_units),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(dense_units, num_classes),
    ]
    return torch.nn.Sequential(*layers)


def main(asked: dict) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = build_network(**asked["network"])
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert num_parameters == asked["num_parameters"], num_parameters
    optimizer = torch.optim.Adam(network.parameters(), asked["learning_rate"], eps=1e-7)
    size = asked["batch_size"]
    pictures = torch.rand(size, 3, *asked["shape"])
    labels = torch.randint(asked["network"]["num_classes"], (size,))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pictures), labels).backward()
        optimizer.step()

    for _ in sys.stdin:
        step()
        started, count = time.monotonic(), 0
        while time.monotonic() - started < _SECONDS:
            step()
            count += size
        print(count / (time.monotonic() - started), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
