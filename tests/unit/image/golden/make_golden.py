#!/usr/bin/env python3
"""Makes the golden pictures and golden.h beside this script, with Pillow and numpy as the reference.

    python3 tests/unit/image/golden/make_golden.py

Recorded with Pillow 9.4.0 (libjpeg-turbo 2.1.5, numpy 1.24.2). All pictures are drawn here from formulas; nothing shows a patient.
"""
import hashlib
import io
import os
import struct
import zlib

import numpy
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 37, 21


def lcg_bytes(seed, count):
    """The test's own generator: Numerical Recipes' LCG, the top byte of each state."""
    out, state = bytearray(count), seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return bytes(out)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def ramp(channels):
    """Smooth shades that differ between the channels: (HEIGHT, WIDTH, channels) uint8."""
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [(x * (5 + c) + y * (7 - 2 * c) + 31 * c) % 256 for c in range(channels)]
    return numpy.stack(planes, axis=-1).astype(numpy.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pack_rows(samples, depth):
    """samples (rows, columns x channels) as PNG scanlines of that depth, each with filter 0."""
    out = b""
    for row in samples:
        if depth == 16:
            line = row.astype(">u2").tobytes()
        elif depth == 8:
            line = row.astype(numpy.uint8).tobytes()
        else:
            bits = "".join(format(int(v), "0%db" % depth) for v in row)
            bits += "0" * (-len(bits) % 8)
            line = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
        out += b"\0" + line
    return out


def write_png(name, samples, depth, colour_type, interlaced=False, palette=None):
    """A PNG from the specification (W3C PNG, second edition), since Pillow writes neither 2-bit nor interlaced ones."""
    height, width, channels = samples.shape
    if interlaced:
        data = b""
        for y0, x0, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
                               (1, 0, 2, 1)):
            part = samples[y0::dy, x0::dx]
            if part.size:
                data += pack_rows(part.reshape(part.shape[0], -1), depth)
    else:
        data = pack_rows(samples.reshape(height, -1), depth)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if palette is not None:
        body += chunk(b"PLTE", palette.tobytes())
    body += chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    with open(os.path.join(HERE, name), "wb") as out:
        out.write(body)


decoded = []  # (file, channels, bits, digest of the pixels in machine order)


def expect(name, pixels):
    bits = 16 if pixels.dtype == numpy.uint16 else 8
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    decoded.append((name, channels, bits, digest(pixels.astype("<u2" if bits == 16 else "u1").tobytes())))


def pillow_agrees(name, pixels):
    mode = "L" if pixels.ndim == 2 else "RGB"
    got = numpy.asarray(Image.open(os.path.join(HERE, name)).convert(mode))
    assert (got == pixels).all(), name


def make_pngs():
    for depth in (1, 2, 4):
        samples = ramp(1) >> (8 - depth)
        shades = (samples[:, :, 0].astype(int) * 255 // ((1 << depth) - 1)).astype(numpy.uint8)
        for interlaced in (False, True):
            name = "grey%d%s.png" % (depth, "_interlaced" if interlaced else "")
            write_png(name, samples, depth, 0, interlaced)
            pillow_agrees(name, shades)
            expect(name, shades)
    palette = ramp(3)[:16, 0, :]
    index = ramp(1) % 16
    write_png("palette4_interlaced.png", index, 4, 3, True, palette)
    pillow_agrees("palette4_interlaced.png", palette[index[:, :, 0]])
    expect("palette4_interlaced.png", palette[index[:, :, 0]])
    for name, channels, colour_type in (("grey8", 1, 0), ("rgb8", 3, 2), ("grey_alpha8", 2, 4), ("rgb_alpha8", 4, 6)):
        samples = ramp(channels)
        write_png(name + ".png", samples, 8, colour_type, name == "rgb8")
        kept = samples[:, :, :1 if channels < 3 else 3]
        kept = kept[:, :, 0] if channels < 3 else kept
        pillow_agrees(name + ".png", kept)
        expect(name + ".png", kept)
    for name, channels, colour_type in (("grey16", 1, 0), ("rgb16", 3, 2), ("grey_alpha16", 2, 4), ("rgb_alpha16", 4, 6)):
        samples = ramp(channels).astype(numpy.uint16) * 257 + ramp(channels)[::-1].astype(numpy.uint16) // 3
        write_png(name + ".png", samples, 16, colour_type, name == "grey16")
        kept = samples[:, :, :1 if channels < 3 else 3]
        expect(name + ".png", kept[:, :, 0] if channels < 3 else kept)


def make_jpegs():
    grey, colour = Image.fromarray(ramp(1)[:, :, 0]), Image.fromarray(ramp(3))
    cmyk = Image.fromarray(ramp(4), "CMYK")
    for name, image, options in (
            ("grey", grey, {}), ("grey_progressive", grey, {"progressive": True}),
            ("colour444", colour, {"subsampling": 0}), ("colour420", colour, {"subsampling": 2}),
            ("colour422_progressive", colour, {"subsampling": 1, "progressive": True}), ("cmyk", cmyk, {})):
        image.save(os.path.join(HERE, name + ".jpg"), quality=90, **options)
        loaded = Image.open(os.path.join(HERE, name + ".jpg"))
        expect(name + ".jpg", numpy.asarray(loaded if loaded.mode == "L" else loaded.convert("RGB")))


def make_resizes():
    """Pillow's convert("L").resize(BILINEAR) of pictures from lcg_bytes."""
    rows = []
    for number, (width, height, channels, to_width, to_height) in enumerate((
            (224, 224, 1, 224, 224), (300, 200, 1, 28, 28), (301, 203, 3, 64, 48), (64, 64, 1, 224, 224),
            (17, 500, 1, 128, 32), (1000, 33, 3, 100, 400), (29, 31, 1, 28, 30), (700, 900, 1, 512, 512),
            (64, 700, 3, 64, 224), (700, 64, 1, 224, 64))):
        data = lcg_bytes(number + 1, width * height * channels)
        image = Image.frombytes("L" if channels == 1 else "RGB", (width, height), data).convert("L")
        small = image.resize((to_width, to_height), Image.BILINEAR)
        rows.append("{%d, %d, %d, %d, %d, %d,\n     \"%s\"}," % (number + 1, width, height, channels, to_width, to_height,
                                                          digest(small.tobytes())))
    return rows


def main():
    make_pngs()
    make_jpegs()
    with open(os.path.join(HERE, "golden.h"), "w") as out:
        out.write("#pragma once\n/* Written by make_golden.py; do not edit. */\n\n")
        out.write("enum { GOLDEN_WIDTH = %d, GOLDEN_HEIGHT = %d };\n\n" % (WIDTH, HEIGHT))
        out.write("static const struct {\n    const char *file;\n    int channels, bits;\n    const char *sha256;\n"
                  "} golden_decoded[] = {\n")
        for row in decoded:
            out.write("    {\"%s\", %d, %d,\n     \"%s\"},\n" % row)
        out.write("};\n\nstatic const struct {\n    unsigned seed;\n    int width, height, channels, to_width, to_height;\n"
                  "    const char *sha256;\n} golden_resized[] = {\n")
        for row in make_resizes():
            out.write("    " + row + "\n")
        out.write("};\n")


if __name__ == "__main__":
    main()
