#include "common/image/codec.h"

#include <spng.h>
#include <stdlib.h>
#include <string.h>

/* Metadata beside the picture: enough for colour profiles, too little for a bomb. */
enum { MAX_CHUNK_BYTES = 4 << 20, MAX_CACHE_BYTES = 16 << 20 };

static bool spng_ok(int code, struct error *err) {
    if (code == 0)
        return true;
    if (code == SPNG_EMEM)
        return error_set(err, ERROR_MEMORY, "PNG: no memory");
    if (code == SPNG_ECHUNK_LIMITS)
        return error_set(err, ERROR_TOO_LARGE, "PNG: metadata over the limit of %d bytes", MAX_CHUNK_BYTES);
    if (code == SPNG_IO_EOF || code == SPNG_EOF || code == SPNG_EIDAT_TOO_SHORT)
        return error_set(err, ERROR_FORMAT, "PNG: truncated");
    return error_set(err, ERROR_FORMAT, "PNG: %s", spng_strerror(code));
}

/* What the library is asked for, and how many samples a pixel then has (alpha is the last and dropped later).
 */
struct layout {
    int format, samples, channels;
};

static struct layout layout_of(const struct spng_ihdr *header) {
    switch (header->color_type) {
    case SPNG_COLOR_TYPE_INDEXED:
        return (struct layout){SPNG_FMT_RGB8, 3, 3};
    case SPNG_COLOR_TYPE_GRAYSCALE:
        return (struct layout){header->bit_depth < 8 ? SPNG_FMT_G8 : SPNG_FMT_PNG, 1, 1};
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
        return (struct layout){SPNG_FMT_PNG, 2, 1};
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA:
        return (struct layout){SPNG_FMT_PNG, 4, 3};
    default:
        return (struct layout){SPNG_FMT_PNG, 3, 3};
    }
}

/* Moves the colour samples of each pixel together, in place. bytes: of one sample. */
static void drop_alpha(uint8_t *pixels, size_t count, const struct layout *layout, size_t bytes) {
    const size_t from = (size_t)layout->samples * bytes, to = (size_t)layout->channels * bytes;
    for (size_t i = 1; i < count && from != to; i++)
        memmove(pixels + i * to, pixels + i * from, to);
}

static bool decode(spng_ctx *context, const struct image_limits *limits, struct image *out,
                   struct error *err) {
    struct spng_ihdr header;
    if (!spng_ok(spng_get_ihdr(context, &header), err) ||
        !codec_check_size("PNG", header.width, header.height, limits, err))
        return false;
    const struct layout layout = layout_of(&header);
    const size_t bytes = header.bit_depth == 16 ? 2 : 1, count = (size_t)header.width * header.height;
    const size_t size = count * (size_t)layout.samples * bytes;
    size_t wanted = 0;
    if (!spng_ok(spng_decoded_image_size(context, layout.format, &wanted), err))
        return false;
    if (wanted != size)
        return error_set(err, ERROR_INTERNAL, "PNG: the library wants %zu bytes where %zu are right", wanted,
                         size);
    uint8_t *pixels = malloc(size);
    if (!pixels)
        return error_set(err, ERROR_MEMORY, "no memory for a PNG of %u x %u pixels", header.width,
                         header.height);
    /* The chunks after the picture are read too: a file without its end is a file with a story. */
    if (!spng_ok(spng_decode_image(context, pixels, size, layout.format, 0), err) ||
        !spng_ok(spng_decode_chunks(context), err)) {
        free(pixels);
        return false;
    }
    drop_alpha(pixels, count, &layout, bytes);
    *out = (struct image){.width = (int)header.width,
                          .height = (int)header.height,
                          .channels = layout.channels,
                          .bits = (int)bytes * 8,
                          .pixels = pixels};
    return true;
}

bool codec_decode_png(const uint8_t *data, size_t size, const struct image_limits *limits, struct image *out,
                      struct error *err) {
    static const char end[] = "\0\0\0\0IEND\xAE\x42\x60\x82";
    *out = (struct image){0};
    if (!memmem(data, size, end,
                sizeof end - 1)) /* the library takes a file that stops within the end's checksum */
        return error_set(err, ERROR_FORMAT, "PNG: truncated (no end)");
    spng_ctx *context = spng_ctx_new(0);
    if (!context)
        return error_set(err, ERROR_MEMORY, "PNG: no memory");
    bool ok = spng_ok(spng_set_chunk_limits(context, MAX_CHUNK_BYTES, MAX_CACHE_BYTES), err) &&
              spng_ok(spng_set_png_buffer(context, data, size), err) && decode(context, limits, out, err);
    spng_ctx_free(context);
    return ok;
}

static bool set_texts(spng_ctx *context, const struct image_text *texts, size_t text_count,
                      struct error *err) {
    if (text_count == 0)
        return true;
    struct spng_text *chunks = calloc(text_count, sizeof *chunks);
    if (!chunks)
        return error_set(err, ERROR_MEMORY, "PNG: no memory");
    bool ok = true;
    for (size_t i = 0; ok && i < text_count; i++) {
        chunks[i].type = SPNG_TEXT;
        chunks[i].text = (char *)(uintptr_t)texts[i].value; /* the library takes char * and does not write */
        chunks[i].length = strlen(texts[i].value);
        size_t key = strlen(texts[i].key);
        if (key < 1 || key >= sizeof chunks[i].keyword)
            ok = error_set(err, ERROR_INVALID, "PNG: a text key of %zu characters", key);
        else
            memcpy(chunks[i].keyword, texts[i].key, key + 1);
    }
    ok = ok && spng_ok(spng_set_text(context, chunks, (uint32_t)text_count), err);
    free(chunks);
    return ok;
}

static bool encode(spng_ctx *context, const struct image *image, struct bytes *out, struct error *err) {
    struct spng_ihdr header = {
        .width = (uint32_t)image->width,
        .height = (uint32_t)image->height,
        .bit_depth = (uint8_t)image->bits,
        .color_type = image->channels == 3 ? SPNG_COLOR_TYPE_TRUECOLOR : SPNG_COLOR_TYPE_GRAYSCALE,
    };
    const size_t size =
        (size_t)image->width * (size_t)image->height * (size_t)(image->channels * image->bits / 8);
    if (!spng_ok(spng_set_option(context, SPNG_ENCODE_TO_BUFFER, 1), err) ||
        !spng_ok(spng_set_ihdr(context, &header), err) ||
        !spng_ok(spng_encode_image(context, image->pixels, size, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), err))
        return false;
    int code = 0;
    out->data = spng_get_png_buffer(context, &out->size, &code);
    return out->data != NULL || spng_ok(code ? code : SPNG_EMEM, err);
}

bool image_encode_png(const struct image *image, const struct image_text *texts, size_t text_count,
                      struct bytes *out, struct error *err) {
    *out = (struct bytes){0};
    if (!image->pixels)
        return error_set(err, ERROR_INVALID, "an empty picture cannot be written");
    spng_ctx *context = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!context)
        return error_set(err, ERROR_MEMORY, "PNG: no memory");
    bool ok = set_texts(context, texts, text_count, err) && encode(context, image, out, err);
    spng_ctx_free(context);
    return ok;
}

bool image_write_png(const char *path, const struct image *image, const struct image_text *texts,
                     size_t text_count, struct error *err) {
    struct bytes png;
    if (!image_encode_png(image, texts, text_count, &png, err))
        return false;
    bool ok = file_write_atomic(path, png.data, png.size, err);
    free(png.data);
    return ok;
}
