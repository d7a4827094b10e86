#pragma once
#include "common/image/image.h"

/* Between the files of common/image only: the decoders behind image_decode. Each leaves out empty where it
 * fails. */

/** Checks width x height against the limits; `what` ("JPEG") starts the message. Errors: FORMAT for a size
 * below 1, TOO_LARGE. */
bool codec_check_size(const char *what, int64_t width, int64_t height, const struct image_limits *limits,
                      struct error *err);

/** data starts with FF D8 FF. */
bool codec_decode_jpeg(const uint8_t *data, size_t size, const struct image_limits *limits, struct image *out,
                       struct error *err);

/** data starts with PNG's signature. */
bool codec_decode_png(const uint8_t *data, size_t size, const struct image_limits *limits, struct image *out,
                      struct error *err);

/** The name of the format that the bytes look like ("TIFF", "DICOM"), or NULL. */
const char *codec_guess(const uint8_t *data, size_t size);
