#include "common/image/codec.h"

#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

/* Progressive scans multiply the work for the same pixels; cameras and archives write about ten. */
enum { MAX_SCANS = 64 };

/* What the frame header says, read before the library sees a byte. */
struct frame {
    int marker; /* SOF0 .. SOF15; 0: none seen */
    int precision, height, width;
    int scans;
    bool ended; /* EOI was there */
};

static bool is_frame_marker(int marker) {
    return (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) ||
           marker == 0xF7;
}

/* Entropy-coded data ends at the first marker that is neither stuffing, fill nor a restart. */
static size_t skip_scan(const uint8_t *data, size_t size, size_t at) {
    while (at + 1 < size) {
        const uint8_t *found = memchr(data + at, 0xFF, size - at - 1);
        if (!found)
            return size;
        at = (size_t)(found - data);
        int next = found[1];
        if (next == 0xFF) /* fill: what follows may be the marker */
            at++;
        else if (next == 0 || (next >= 0xD0 && next <= 0xD7))
            at += 2;
        else
            return at;
    }
    return size;
}

static void read_frame(const uint8_t *segment, size_t length, int marker, struct frame *frame) {
    if (frame->marker || length < 8)
        return;
    frame->marker = marker;
    frame->precision = segment[2];
    frame->height = segment[3] << 8 | segment[4];
    frame->width = segment[5] << 8 | segment[6];
}

/* Walks over the markers once, in time linear in size. Says nothing where the bytes make no sense: the
 * library does. */
static void scan_markers(const uint8_t *data, size_t size, struct frame *frame) {
    size_t at = 2;
    while (at + 4 <= size && data[at] == 0xFF) {
        int marker = data[at + 1];
        if (marker == 0xFF) {
            at++;
            continue;
        }
        if (marker == 0xD9)
            break;
        size_t length = (size_t)(data[at + 2] << 8 | data[at + 3]);
        if (length < 2 || length > size - at - 2)
            return;
        if (is_frame_marker(marker))
            read_frame(data + at + 2, length, marker, frame);
        at += 2 + length;
        if (marker == 0xDA) {
            frame->scans++;
            at = skip_scan(data, size, at);
        }
    }
    frame->ended = at + 2 <= size && data[at] == 0xFF && data[at + 1] == 0xD9;
}

static bool check_frame(const struct frame *frame, const struct image_limits *limits, struct error *err) {
    if (!frame->marker)
        return error_set(err, ERROR_FORMAT, "JPEG: no frame header before the data ends");
    if (frame->marker == 0xF7)
        return error_set(err, ERROR_UNSUPPORTED, "the picture looks like JPEG-LS; send JPEG or PNG");
    if (frame->marker > 0xC2 && frame->marker != 0xC9 && frame->marker != 0xCA)
        return error_set(err, ERROR_UNSUPPORTED,
                         "JPEG: lossless and hierarchical coding (SOF%d) cannot be read",
                         frame->marker - 0xC0);
    if (frame->precision != 8)
        return error_set(err, ERROR_UNSUPPORTED, "JPEG: %d bits a sample; only 8 can be read",
                         frame->precision);
    if (!codec_check_size("JPEG", frame->width, frame->height, limits, err))
        return false;
    if (frame->scans > MAX_SCANS)
        return error_set(err, ERROR_TOO_LARGE, "JPEG: %d scans; the limit is %d", frame->scans, MAX_SCANS);
    if (!frame->ended)
        return error_set(err, ERROR_FORMAT, "JPEG: truncated or damaged (no end marker)");
    return true;
}

static bool turbo_ok(tjhandle handle, int result, struct error *err) {
    return result == 0 || error_set(err, ERROR_FORMAT, "JPEG: %s", tjGetErrorStr2(handle));
}

/* Inverted CMYK to RGB in place, four bytes a pixel becoming three, with Pillow's arithmetic (Convert.c,
 * cmyk2rgb). */
static void cmyk_to_rgb(uint8_t *pixels, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *in = pixels + 4 * i;
        const int black = in[3];
        uint8_t colour[3];
        for (int c = 0; c < 3; c++) {
            int product = (255 - in[c]) * black + 128;
            colour[c] = (uint8_t)(black - ((product + (product >> 8)) >> 8));
        }
        memcpy(pixels + 3 * i, colour, 3);
    }
}

struct layout {
    int format, samples; /* of TurboJPEG's output */
};

static struct layout layout_of(int colourspace) {
    if (colourspace == TJCS_GRAY)
        return (struct layout){TJPF_GRAY, 1};
    if (colourspace == TJCS_CMYK || colourspace == TJCS_YCCK)
        return (struct layout){TJPF_CMYK, 4};
    return (struct layout){TJPF_RGB, 3};
}

static bool decompress(tjhandle handle, const uint8_t *data, size_t size, const struct frame *frame,
                       struct image *out, struct error *err) {
    int width = 0, height = 0, subsampling = 0, colourspace = 0;
    if (!turbo_ok(handle,
                  tjDecompressHeader3(handle, data, size, &width, &height, &subsampling, &colourspace), err))
        return false;
    if (width != frame->width || height != frame->height) /* two readers of one header must agree */
        return error_set(err, ERROR_FORMAT, "JPEG: more than one frame header");
    const struct layout layout = layout_of(colourspace);
    const size_t count = (size_t)width * (size_t)height;
    uint8_t *pixels = malloc(count * (size_t)layout.samples);
    if (!pixels)
        return error_set(err, ERROR_MEMORY, "no memory for a JPEG of %d x %d pixels", width, height);
    const int flags = TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS | TJFLAG_ACCURATEDCT;
    if (!turbo_ok(handle, tjDecompress2(handle, data, size, pixels, width, 0, height, layout.format, flags),
                  err)) {
        free(pixels);
        return false;
    }
    if (layout.samples == 4)
        cmyk_to_rgb(pixels, count);
    *out = (struct image){.width = width,
                          .height = height,
                          .channels = layout.samples == 1 ? 1 : 3,
                          .bits = 8,
                          .pixels = pixels};
    return true;
}

bool codec_decode_jpeg(const uint8_t *data, size_t size, const struct image_limits *limits, struct image *out,
                       struct error *err) {
    *out = (struct image){0};
    struct frame frame = {0};
    scan_markers(data, size, &frame);
    if (!check_frame(&frame, limits, err))
        return false;
    tjhandle handle = tjInitDecompress();
    if (!handle)
        return error_set(err, ERROR_MEMORY, "JPEG: the decoder does not start");
    bool ok = decompress(handle, data, size, &frame, out, err);
    tjDestroy(handle);
    return ok;
}
