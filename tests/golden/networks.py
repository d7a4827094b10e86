"""Our networks in PyTorch, under the same parameter names: what the C code is compared with, for its results (make_golden.py)
and for its speed (tests/bench/peers). Written down after torchvision's and the TensorFlow port's definitions, independently of
the C code, and as torchvision does it where it matters for speed: activations in place, padding left to the convolution
wherever it is even.

MODELS[architecture](channels, classes, stem) takes (N, channels, H, W) and gives logits (N, classes).
"""
from torch import nn
from torch.nn import functional as F


def pool(x):
    """The mean over H and W: (N, C, H, W) to (N, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if bottleneck \
            else [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.count = len(plan)
        for i, (a, b, k, s) in enumerate(plan, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            if i < self.count:
                x = F.relu(x, inplace=True)
        return F.relu(x + identity, inplace=True)


class ResNet(nn.Module):
    def __init__(self, repeats, bottleneck, channels, classes, small_stem=False):
        super().__init__()
        self.small = small_stem
        self.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False) if small_stem else nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(repeats):
            blocks = []
            for i in range(count):
                blocks.append(Block(inputs, 64 << stage, 2 if stage and not i else 1, bottleneck))
                inputs = (64 << stage) * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if not self.small:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(pool(x))


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding."""
    def forward(self, x):
        def pad(size):
            total = max((-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            return total // 2, total - total // 2
        top, bottom = pad(x.shape[2])
        left, right = pad(x.shape[3])
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), 0
        return F.conv2d(x, self.weight, None, self.stride, padding, 1, self.groups)


class LiteBlock(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expand):
        super().__init__()
        wide = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        if expand != 1:
            self._expand_conv = SameConv(inputs, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = SameConv(wide, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if hasattr(self, "_expand_conv") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    # repeats, kernel, stride, expansion, channels
    STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
              (1, 3, 1, 6, 320)]

    def __init__(self, channels, classes):
        super().__init__()
        self._conv_stem = SameConv(channels, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expand, outputs in self.STAGES:
            for i in range(repeats):
                blocks.append(LiteBlock(inputs, outputs, kernel, stride if i == 0 else 1, expand))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return self._fc(pool(x))


MODELS = {
    "resnet18": lambda channels, classes, stem: ResNet([2, 2, 2, 2], False, channels, classes, stem == "3x3"),
    "resnet50": lambda channels, classes, stem: ResNet([3, 4, 6, 3], True, channels, classes, stem == "3x3"),
    "efficientnet_lite0": lambda channels, classes, stem: Lite0(channels, classes),
}
