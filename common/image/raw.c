#include "common/image/image.h"

#include "common/image/codec.h"

/* The scale from stored values to shades: shade = round(value * white / span), value counted from the
 * smallest one. */
struct scale {
    uint32_t mask;   /* of the stored bits */
    uint32_t offset; /* added (modulo the mask) so that the smallest signed value becomes 0 */
    uint32_t white;
    bool is_signed, invert;
};

static bool check_layout(const struct raw_pixels *raw, struct error *err) {
    if (raw->bits_allocated != 8 && raw->bits_allocated != 16)
        return error_set(err, ERROR_UNSUPPORTED, "raw pixels: %d bits allocated; 8 or 16 are possible",
                         raw->bits_allocated);
    if (raw->bits_stored < 1 || raw->bits_stored > raw->bits_allocated)
        return error_set(err, ERROR_INVALID, "raw pixels: %d bits stored of %d allocated", raw->bits_stored,
                         raw->bits_allocated);
    if (raw->photometric != IMAGE_MONOCHROME1 && raw->photometric != IMAGE_MONOCHROME2)
        return error_set(err, ERROR_INVALID,
                         "raw pixels: the photometric interpretation must be MONOCHROME1 or MONOCHROME2");
    if (raw->is_signed && raw->bits_stored < 2)
        return error_set(err, ERROR_INVALID, "raw pixels: signed values need at least 2 bits");
    return true;
}

static bool check_raw(const struct raw_pixels *raw, const struct image_limits *limits, struct error *err) {
    if (!check_layout(raw, err) || !codec_check_size("raw pixels", raw->columns, raw->rows, limits, err))
        return false;
    size_t wanted = (size_t)raw->rows * (size_t)raw->columns * (size_t)(raw->bits_allocated / 8);
    if (!raw->data || raw->size != wanted)
        return error_set(err, ERROR_FORMAT, "raw pixels: %zu bytes, but %d x %d values of %d bits make %zu",
                         raw->size, raw->columns, raw->rows, raw->bits_allocated, wanted);
    if (raw->size > limits->max_bytes)
        return error_set(err, ERROR_TOO_LARGE, "raw pixels: %zu bytes; the limit is %zu", raw->size,
                         limits->max_bytes);
    return true;
}

/* The bits above the stored ones must be empty, or repeat the sign: else the header lies about the values. */
static bool value_fits(const struct scale *scale, uint32_t value, uint32_t allocated) {
    uint32_t above = value & allocated & ~scale->mask;
    uint32_t sign = (scale->mask >> 1) + 1;
    return above == 0 || (scale->is_signed && (value & sign) && above == (allocated & ~scale->mask));
}

static uint32_t shade(const struct scale *scale, uint32_t value) {
    uint32_t level = (value + scale->offset) & scale->mask;
    uint32_t scaled = (uint32_t)(((uint64_t)level * scale->white + scale->mask / 2) / scale->mask);
    return scale->invert ? scale->white - scaled : scaled;
}

static bool convert(const struct raw_pixels *raw, const struct scale *scale, struct image *out) {
    const uint8_t *in = raw->data;
    const uint32_t allocated = (1u << raw->bits_allocated) - 1;
    const size_t count = (size_t)raw->rows * (size_t)raw->columns;
    for (size_t i = 0; i < count; i++) {
        uint32_t value = raw->bits_allocated == 8 ? in[i] : in[2 * i] | (uint32_t)in[2 * i + 1] << 8;
        if (!value_fits(scale, value, allocated))
            return false;
        if (out->bits == 8)
            ((uint8_t *)out->pixels)[i] = (uint8_t)shade(scale, value);
        else
            ((uint16_t *)out->pixels)[i] = (uint16_t)shade(scale, value);
    }
    return true;
}

bool image_from_raw(const struct raw_pixels *raw, const struct image_limits *limits, struct image *out,
                    struct error *err) {
    *out = (struct image){0};
    struct image_limits defaults = image_limits_default();
    if (!check_raw(raw, limits ? limits : &defaults, err))
        return false;
    const int bits = raw->bits_stored <= 8 ? 8 : 16;
    if (!image_init(out, raw->columns, raw->rows, 1, bits, err))
        return false;
    const struct scale scale = {
        .mask = (1u << raw->bits_stored) - 1,
        .offset = raw->is_signed ? 1u << (raw->bits_stored - 1) : 0,
        .white = bits == 8 ? 255 : 65535,
        .is_signed = raw->is_signed,
        .invert = raw->photometric == IMAGE_MONOCHROME1,
    };
    if (convert(raw, &scale, out))
        return true;
    image_fini(out);
    return error_set(err, ERROR_FORMAT, "raw pixels: a value needs more than the %d bits stored",
                     raw->bits_stored);
}
