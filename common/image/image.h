#pragma once
#include "common/base/error.h"
#include "common/base/file.h"
#include <stddef.h>
#include <stdint.h>

/**
 * A picture in memory: rows from the top, interleaved channels, no padding. 8-bit pixels are uint8_t, 16-bit
 * ones uint16_t in the machine's byte order; black is 0 and white is the type's largest value. Plain data;
 * image_fini frees.
 */
struct image {
    int width, height;
    int channels; /**< 1: grey, 3: red, green, blue */
    int bits;     /**< 8 or 16 */
    void *pixels; /**< owned; (height, width, channels) */
};

/** What a picture from outside may cost. All are checked before memory is asked for. */
struct image_limits {
    size_t max_bytes;   /**< of the encoded or raw bytes */
    int64_t max_pixels; /**< width x height */
    int max_side;       /**< width, and height */
};

/** 64 MiB, 40 million pixels, 16,384 pixels a side: above the largest radiographs. A progressive JPEG at the
 * limit takes 360 MB to decode. */
struct image_limits image_limits_default(void);

/**
 * Decodes JPEG (baseline and progressive; grey, YCbCr, RGB, CMYK, YCCK) or PNG (all colour types and depths,
 * also interlaced), told apart by their first bytes. Grey stays one channel, all else becomes three. Alpha
 * and tRNS are dropped, as Pillow's convert("RGB") does; gamma, colour profiles and EXIF rotation are not
 * applied. PNGs of 1, 2 and 4 bits are scaled to 8. CMYK is taken as inverted (Adobe's way) and converted
 * without a profile, as Pillow does. Damage is an error, warnings of the libraries included: half a
 * radiograph must not be diagnosed. limits NULL: the default. On success out owns pixels; on failure it is
 * empty. Errors: FORMAT (truncated, corrupt, empty, unknown bytes), UNSUPPORTED (another format, which is
 * named; 12-bit or lossless JPEG), TOO_LARGE, MEMORY. Thread-safe.
 */
bool image_decode(const void *data, size_t size, const struct image_limits *limits, struct image *out,
                  struct error *err);

/** How a raw value becomes a shade (DICOM PS3.3 C.7.6.3.1.2). Unspecified is an error, never a guess. */
enum image_photometric {
    IMAGE_PHOTOMETRIC_UNSPECIFIED,
    IMAGE_MONOCHROME1, /**< the smallest value is white */
    IMAGE_MONOCHROME2, /**< the smallest value is black */
};

/** Pixels without a format, as a PACS holds them: little-endian, rows from the top, one value a pixel, no
 * padding. */
struct raw_pixels {
    const void *data; /**< borrowed; (rows, columns) */
    size_t size;      /**< exactly rows x columns x bits_allocated / 8 */
    int rows, columns;
    int bits_allocated; /**< 8 or 16 */
    int bits_stored;    /**< 1..bits_allocated: the low bits of each value */
    bool is_signed;     /**< two's complement in bits_stored bits, sign-extended or not */
    enum image_photometric photometric;
};

/**
 * A grey picture from raw values: the whole range of bits_stored bits is scaled to the whole range of 8 bits
 * (bits_stored <= 8) or 16 bits, rounded to nearest; MONOCHROME1 is inverted. No windowing: what the sender
 * wants windowed is sent windowed. A value with bits above bits_stored is an error. Ownership and errors as
 * image_decode, and INVALID.
 */
bool image_from_raw(const struct raw_pixels *raw, const struct image_limits *limits, struct image *out,
                    struct error *err);

/** Zeroed pixels (black). Errors: INVALID where a size makes no sense, MEMORY. */
bool image_init(struct image *image, int width, int height, int channels, int bits, struct error *err);

/** Frees the pixels and empties the picture. Takes one that is empty or finished already. */
void image_fini(struct image *image);

/** A piece of PNG metadata. */
struct image_text {
    const char *key;   /**< 1..79 Latin-1 characters */
    const char *value; /**< Latin-1 */
};

/** Encodes as PNG with text metadata (texts may be NULL where text_count is 0); out->data is owned, free()
 * it. */
bool image_encode_png(const struct image *image, const struct image_text *texts, size_t text_count,
                      struct bytes *out, struct error *err);

/** image_encode_png into a file, whole or not at all. */
bool image_write_png(const char *path, const struct image *image, const struct image_text *texts,
                     size_t text_count, struct error *err);
