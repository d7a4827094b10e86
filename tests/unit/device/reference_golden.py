#!/usr/bin/env python3
"""Writes reference_golden.h: what PyTorch computes, in double, for the cases of reference_test.c.

    python3 tests/unit/device/reference_golden.py > tests/unit/device/reference_golden.h

Recorded with PyTorch 1.13.0 and NumPy 1.24.2. Inputs are made from their index by `value`, here and in the test alike.
"""
import numpy
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def value(key, *shape):
    count = int(numpy.prod(shape))
    return torch.tensor([((i * 37 + key * 11) % 101) / 50 - 1 for i in range(count)]).reshape(shape)


def show(name, tensor):
    numbers = ", ".join(repr(float(x)) for x in tensor.detach().reshape(-1))
    print(f"static const double golden_{name}[] = {{{numbers}}};")


def convolution():
    x, w, b = value(1, 2, 4, 5, 7), value(2, 6, 2, 3, 3), value(3, 6)
    show("conv2d", F.conv2d(F.pad(x, (1, 2, 0, 1)), w, b, stride=(2, 3), groups=2))  # pad: left, right, top, bottom
    residual = value(4, 2, 6, 2, 3) * 8
    show("conv2d_fused", F.relu6(F.conv2d(F.pad(x, (1, 2, 0, 1)), w, b * 6, stride=(2, 3), groups=2) + residual))


def batch_norm():
    x, residual = value(1, 3, 4, 2, 5), value(2, 3, 4, 2, 5)
    norm = torch.nn.BatchNorm2d(4, eps=0.125, momentum=0.25)
    norm.weight.data, norm.bias.data = value(3, 4), value(4, 4)
    norm.running_mean, norm.running_var = value(5, 4), value(6, 4) + 1.5
    show("batch_norm_frozen", norm.eval()(x))
    show("batch_norm", F.relu(norm.train()(x) + residual))
    show("running_mean", norm.running_mean)
    show("running_variance", norm.running_var)


def pooling():
    x = value(1, 2, 3, 5, 6)
    show("max_pool", F.max_pool2d(x, 3, stride=2, padding=1))
    show("average_pool", F.adaptive_avg_pool2d(x, 1))


def linear():
    show("linear", F.linear(value(1, 3, 8), value(2, 5, 8), value(3, 5)))


def loss():
    logits, labels, weight = value(1, 5, 3) * 4, torch.tensor([2, 0, 1, 1, 2]), value(2, 3) + 1.5
    show("softmax", F.softmax(logits, dim=1))
    show("loss", F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=0.125) / 5)


def optimizer(name, make):
    """Three steps with clipping; the first 64 elements decay, the last 64 do not."""
    decayed, plain = value(1, 64).requires_grad_(), value(2, 64).requires_grad_()
    optimiser = make([{"params": [decayed]}, {"params": [plain], "weight_decay": 0.0}])
    average = [decayed.detach().clone(), plain.detach().clone()]
    for step in range(3):
        decayed.grad, plain.grad = value(3 + step, 64) / 2, value(6 + step, 64) / 2
        torch.nn.utils.clip_grad_norm_([decayed, plain], 2.5)
        optimiser.step()
        average = [0.75 * e + 0.25 * p.detach() for e, p in zip(average, (decayed, plain))]
    show(name, torch.cat([decayed, plain]))
    show(name + "_ema", torch.cat(average))


def halves():
    """Doubles and the bits of the nearest bf16 and f16 (ties to even), by torch and NumPy from f32."""
    numbers = [0.0, -0.0, 1.0, -2.5, 3.14159265, 1.00390625, 1.01171875, 65504.0, 65519.0, 65520.0, 1e-7, 6e-8, 2.9e-8,
               3.1e-8, 6.1e-5, 1e38, 3.39e38, float("inf"), float("-inf")]
    single = numpy.array(numbers, dtype=numpy.float32)
    bf16 = torch.tensor(single).to(torch.bfloat16).view(torch.int16).numpy().astype(numpy.uint16)
    with numpy.errstate(over="ignore"):
        f16 = single.astype(numpy.float16).view(numpy.uint16)
    print("static const struct {\n    float value;\n    uint16_t bf16, f16;\n} golden_halves[] = {")
    for value32, b, h in zip(single, bf16, f16):
        text = repr(float(value32)).replace("inf", "INFINITY")
        print(f"    {{(float){text}, 0x{b:04x}, 0x{h:04x}}},")
    print("};")


print("#pragma once\n#include <math.h>\n#include <stdint.h>\n\n/* Written by reference_golden.py. */\n")
print("/* clang-format off */")
convolution()
batch_norm()
pooling()
linear()
loss()
optimizer("sgd", lambda groups: torch.optim.SGD(groups, lr=0.125, momentum=0.75, weight_decay=0.25))
optimizer("adamw", lambda groups: torch.optim.AdamW(groups, lr=0.125, betas=(0.75, 0.875), eps=0.0625, weight_decay=0.25))
halves()
