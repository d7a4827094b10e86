#!/usr/bin/env python3
"""Writes npz/*.npz, the archives that dataset_npz_test.c reads: NumPy's own writer, MedMNIST's keys, small pictures.

Pixel (y, x) of image i is (i * 7 + y * 3 + x) % 256; label i is i % 2. Needs numpy."""

import numpy as np


def part(count):
    i, y, x = np.meshgrid(np.arange(count), np.arange(5), np.arange(4), indexing="ij")
    return ((i * 7 + y * 3 + x) % 256).astype(np.uint8), (np.arange(count) % 2).astype(np.uint8)[:, None]


def save(name, arrays, **changes):
    np.savez_compressed("npz/" + name, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


def main():
    arrays = {}
    for name, count in (("train", 12), ("val", 3), ("test", 4)):
        arrays[name + "_images"], arrays[name + "_labels"] = part(count)
    images, labels = arrays["train_images"], arrays["train_labels"]
    save("medmnist.npz", arrays)
    np.savez("npz/medmnist_stored.npz", **{**arrays, "train_labels": labels.astype(np.int64).ravel()})
    save("colour.npz", arrays, train_images=np.repeat(images[..., None], 3, axis=3))
    wrong = labels.copy()
    wrong[5] = 2
    save("bad_label.npz", arrays, train_labels=wrong)
    save("bad_count.npz", arrays, train_labels=labels[:11])
    save("bad_type.npz", arrays, train_images=images.astype(np.float32))
    save("bad_order.npz", arrays, train_images=np.asfortranarray(images))
    save("bad_keys.npz", arrays, train_labels=None)


if __name__ == "__main__":
    main()
