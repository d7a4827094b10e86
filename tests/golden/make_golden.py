#!/usr/bin/python3
"""Records what PyTorch computes, for tests/golden/golden_test.c: logits of whole networks and the losses of 20 SGD steps.

    /usr/bin/python3 tests/golden/make_golden.py [--data DIR] > tests/golden/golden.json

Weights and images are not stored: both sides make them from names by the same formula (pattern below, pattern.c there). The networks
are those of networks.py. With --data the logits of the published EfficientNet-Lite0 weights are recorded too.
"""
import argparse, json, os, struct, sys
import numpy as np
import torch
from torch.nn import functional as F
from networks import MODELS


def pattern(name, shape):
    """Uniform in [-1, 1): FNV-1a of the name seeds SplitMix64, one draw per element."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    count = int(np.prod(shape)) if len(shape) else 1
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float64) / 16777216.0
    return (2.0 * unit - 1.0).reshape(shape).astype(np.float32)


def pattern_value(name, shape):
    """A plausible value for a parameter of that name."""
    u = pattern(name, shape)
    if name.endswith("running_mean"):
        return 0.1 * u
    if name.endswith("running_var"):
        return 1.0 + 0.5 * u
    if len(shape) == 4:
        fan_in = np.float32(shape[1] * shape[2] * shape[3])
        return u * np.sqrt(np.float32(6.0) / fan_in)
    if len(shape) == 2:
        return np.float32(0.05) * u
    if name.endswith("bn3.weight"):
        # A bottleneck adds little to its identity, as after torchvision's zero-initialised residuals: with scales near 1 this network is
        # chaotic, and PyTorch's own single and double precision part by .28 within the 20 steps (so: by 1.5e-5).
        return (np.float32(0.2) * (1.0 + 0.1 * u)).astype(np.float32)
    return (1.0 + 0.1 * u if name.endswith("weight") else 0.1 * u).astype(np.float32)


def build(case):
    model = MODELS[case["architecture"]](case["channels"], case["classes"], case["stem"])
    state = model.state_dict()
    model.load_state_dict({k: v if k.endswith("num_batches_tracked") else torch.from_numpy(np.asarray(pattern_value(k, tuple(v.shape)), dtype=np.float32))
                           for k, v in state.items()})
    return model


def images(case, step=0):
    return torch.from_numpy(pattern(f"images{step}", (case["batch"], case["channels"], case["size"], case["size"])))


def record_logits(case):
    model = build(case).double().eval()
    with torch.no_grad():
        return dict(case, logits=[round(v, 9) for v in model(images(case).double()).flatten().tolist()])


def record_training(case):
    """Double precision: the truth that both single-precision engines should follow."""
    model = build(case).double().train()
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": decay, "weight_decay": case["weight_decay"]}, {"params": plain, "weight_decay": 0}],
                                lr=case["learning_rate"], momentum=0.9)
    losses = []
    for step in range(case["steps"]):
        labels = (torch.arange(case["batch"]) * 7 + step % case["batches"]) % case["classes"]
        loss = F.cross_entropy(model(images(case, step % case["batches"]).double()), labels, label_smoothing=case["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 9))
    return dict(case, losses=losses)


def load_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    kinds = {"F32": np.float32, "I64": np.int64}
    return {k: torch.from_numpy(np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], kinds[v["dtype"]]).reshape(v["shape"]).copy())
            for k, v in header.items() if k != "__metadata__"}


def record_pretrained(data):
    case = {"architecture": "efficientnet_lite0", "stem": "7x7", "channels": 3, "classes": 1000, "size": 224, "batch": 1}
    model = MODELS["efficientnet_lite0"](3, 1000, None)
    model.load_state_dict(load_safetensors(os.path.join(data, "pretrained/efficientnet_lite0_imagenet.safetensors")))
    with torch.no_grad():
        logits = model.double().eval()(images(case).double()).flatten().tolist()
    return dict(case, logits=[round(v, 9) for v in logits])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    args = parser.parse_args()
    torch.set_num_threads(2)
    small = {"stem": "7x7", "classes": 3, "batch": 2}
    logits = [dict(small, architecture="resnet18", channels=1, size=64), dict(small, architecture="resnet18", channels=3, size=224),
              dict(small, architecture="resnet18", channels=1, size=28, stem="3x3"),
              dict(small, architecture="resnet50", channels=3, size=64), dict(small, architecture="resnet50", channels=1, size=224),
              dict(small, architecture="efficientnet_lite0", channels=3, size=65), dict(small, architecture="efficientnet_lite0", channels=1, size=224)]
    training = [dict(small, architecture="resnet18", channels=1, size=64, batch=8, steps=20, batches=2, learning_rate=0.0005,
                     weight_decay=1e-3, label_smoothing=0.1),
                dict(small, architecture="resnet50", channels=3, size=64, batch=8, steps=20, batches=2, learning_rate=0.0005,
                     weight_decay=1e-3, label_smoothing=0.0),
                # Only two steps: in the third PyTorch's own single and double precision differ by .0013 on this network.
                dict(small, architecture="efficientnet_lite0", channels=1, size=64, batch=8, steps=2, batches=2, learning_rate=0.0005,
                     weight_decay=1e-3, label_smoothing=0.0)]
    out = {"torch": torch.__version__, "logits": [record_logits(c) for c in logits], "training": [record_training(c) for c in training]}
    if args.data:
        out["pretrained"] = record_pretrained(args.data)
    json.dump(out, sys.stdout, indent=None, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
