#include "trainerd/dataset_build.h"
#include "trainerd/dataset_zip.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NPY_MAX_HEADER = 4096, NPY_MAX_RANK = 4, NPY_MAX_SIDE = 16384 };
static const size_t npz_max_bytes = (size_t)4 << 30; /* of all arrays together, unpacked */

/* An array of an .npy: header read, elements in place. Source: NumPy's numpy.lib.format, versions 1 to 3. */
struct npy {
    char dtype[8]; /* "|u1", "<i8", ... */
    int rank;
    int64_t dims[NPY_MAX_RANK];
    const uint8_t *data;
    size_t data_bytes;
};

/* Behind the colon of `'key':` in the header's dictionary. NULL: the key is not there. */
static const char *find_value(const char *header, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *found = strstr(header, quoted);
    if (!found)
        return NULL;
    found += strlen(quoted);
    return found + strspn(found, " ");
}

static bool parse_shape(const char *text, struct npy *npy) {
    if (!text || *text++ != '(')
        return false;
    while (*text && *text != ')') {
        char *end;
        if (!isdigit((unsigned char)*text) || npy->rank == NPY_MAX_RANK)
            return false;
        long long dim = strtoll(text, &end, 10);
        if (dim > INT32_MAX)
            return false;
        npy->dims[npy->rank++] = dim;
        text = end + strspn(end, ", ");
    }
    return *text == ')' && npy->rank > 0;
}

static bool parse_dtype(const char *text, struct npy *npy) {
    if (!text || *text != '\'')
        return false;
    size_t length = strcspn(text + 1, "'");
    if (length >= sizeof npy->dtype)
        return false;
    memcpy(npy->dtype, text + 1, length);
    npy->dtype[length] = 0;
    return true;
}

static bool parse_header(const char *header, struct npy *npy, struct error *err) {
    const char *order = find_value(header, "fortran_order");
    if (!parse_dtype(find_value(header, "descr"), npy) || !parse_shape(find_value(header, "shape"), npy) ||
        !order)
        return error_set(err, ERROR_FORMAT, "an .npy header that makes no sense");
    if (strncmp(order, "False", 5) != 0)
        return error_set(err, ERROR_UNSUPPORTED, "an array in Fortran order");
    return true;
}

static bool npy_parse(const struct bytes *bytes, struct npy *npy, struct error *err) {
    *npy = (struct npy){0};
    if (bytes->size < 12 || memcmp(bytes->data, "\x93NUMPY", 6) != 0)
        return error_set(err, ERROR_FORMAT, "not an .npy array");
    bool short_length = bytes->data[6] == 1;
    size_t start = short_length ? 10 : 12, length = bytes->data[8] | (size_t)bytes->data[9] << 8;
    if (!short_length)
        length |= (size_t)bytes->data[10] << 16 | (size_t)bytes->data[11] << 24;
    if (length > NPY_MAX_HEADER || start + length > bytes->size)
        return error_set(err, ERROR_FORMAT, "an .npy header of %zu bytes", length);
    char header[NPY_MAX_HEADER + 1];
    memcpy(header, bytes->data + start, length);
    header[length] = 0;
    npy->data = bytes->data + start + length;
    npy->data_bytes = bytes->size - start - length;
    return parse_header(header, npy, err);
}

static bool check_images(const struct npy *npy, struct error *err) {
    bool shaped = (npy->rank == 3 || (npy->rank == 4 && npy->dims[3] == 3)) && strcmp(npy->dtype, "|u1") == 0;
    if (!shaped)
        return error_set(err, ERROR_UNSUPPORTED, "images are (N, H, W) or (N, H, W, 3) of 8 bits");
    if (npy->dims[0] > DATASET_MAX_SAMPLES || npy->dims[1] < 1 || npy->dims[1] > NPY_MAX_SIDE ||
        npy->dims[2] < 1 || npy->dims[2] > NPY_MAX_SIDE)
        return error_set(err, ERROR_TOO_LARGE, "%lld images of %lldx%lld", (long long)npy->dims[0],
                         (long long)npy->dims[2], (long long)npy->dims[1]);
    /* At most 10^7 x 2^28 x 3: no overflow. */
    uint64_t bytes =
        (uint64_t)npy->dims[0] * (uint64_t)npy->dims[1] * (uint64_t)npy->dims[2] * (npy->rank == 4 ? 3 : 1);
    return bytes == npy->data_bytes ||
           error_set(err, ERROR_FORMAT, "the shape wants %llu bytes, there are %zu",
                     (unsigned long long)bytes, npy->data_bytes);
}

/* Bytes of an integer label; 0 where the type is none that labels come in. */
static size_t label_bytes(const char *dtype) {
    static const char *const types[] = {"|u1", "|i1", "<u2", "<i2", "<i4", "<u4", "<i8", "<u8"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(dtype, types[i]) == 0)
            return (size_t)(dtype[2] - '0');
    return 0;
}

static bool check_labels(const struct npy *npy, int64_t images, struct error *err) {
    size_t size = label_bytes(npy->dtype);
    bool shaped = npy->rank == 1 || (npy->rank == 2 && npy->dims[1] == 1);
    if (size == 0 || !shaped)
        return error_set(err, ERROR_UNSUPPORTED, "labels are integers of shape (N,) or (N, 1)");
    if (npy->dims[0] != images || npy->data_bytes != (size_t)images * size)
        return error_set(err, ERROR_FORMAT, "%lld labels for %lld images", (long long)npy->dims[0],
                         (long long)images);
    return true;
}

static uint64_t label_at(const struct npy *npy, int64_t index) {
    size_t size = label_bytes(npy->dtype);
    const uint8_t *bytes = npy->data + (size_t)index * size;
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value; /* a negative label becomes a huge one, which is no class either */
}

static bool add_images(struct dataset *dataset, const struct npy *images, const struct npy *labels,
                       enum dataset_part part, struct error *err) {
    struct dataset_sample sample = {.height = (int)images->dims[1],
                                    .width = (int)images->dims[2],
                                    .channels = images->rank == 4 ? 3 : 1,
                                    .part = part};
    size_t stride = (size_t)sample.height * (size_t)sample.width * (size_t)sample.channels;
    for (int64_t i = 0; i < images->dims[0]; i++) {
        uint64_t label = label_at(labels, i);
        char name[64];
        if (label >= (uint64_t)dataset->classes)
            return error_set(err, ERROR_FORMAT, "label %lld of image %lld is none of the %d classes",
                             (long long)label, (long long)i, dataset->classes);
        snprintf(name, sizeof name, "%s/%08lld", dataset_part_name(part), (long long)i);
        sample.name = name;
        sample.label = (int32_t)label;
        sample.pixels = images->data + (size_t)i * stride;
        if (!dataset_add(dataset, &sample, err))
            return false;
    }
    return true;
}

static bool extract(struct dataset *dataset, const struct zip_entry *entry, size_t *left, struct npy *npy,
                    struct error *err) {
    struct bytes bytes;
    if (!zip_extract(entry, *left, &bytes, err) || !dataset_own(dataset, bytes.data, err))
        return false;
    *left -= bytes.size;
    return npy_parse(&bytes, npy, err) || error_prefix(err, "%s", entry->name);
}

static bool read_part(struct dataset *dataset, const struct zip *zip, enum dataset_part part, size_t *left,
                      struct error *err) {
    static const char *const prefixes[DATASET_PARTS] = {"train", "val", "test"};
    char images_name[32], labels_name[32];
    snprintf(images_name, sizeof images_name, "%s_images.npy", prefixes[part]);
    snprintf(labels_name, sizeof labels_name, "%s_labels.npy", prefixes[part]);
    const struct zip_entry *images_entry = zip_find(zip, images_name),
                           *labels_entry = zip_find(zip, labels_name);
    if (!images_entry && !labels_entry && part != DATASET_TRAIN)
        return true;
    if (!images_entry || !labels_entry)
        return error_set(err, ERROR_NOT_FOUND, "%s is not in the archive",
                         images_entry ? labels_name : images_name);
    struct npy images, labels;
    return extract(dataset, images_entry, left, &images, err) &&
           extract(dataset, labels_entry, left, &labels, err) &&
           (check_images(&images, err) || error_prefix(err, "%s", images_name)) &&
           (check_labels(&labels, images.dims[0], err) || error_prefix(err, "%s", labels_name)) &&
           add_images(dataset, &images, &labels, part, err);
}

bool dataset_read_npz(struct dataset *dataset, const char *path, struct error *err) {
    struct zip zip;
    if (!zip_open(&zip, path, err))
        return false;
    bool ok = true;
    size_t left = npz_max_bytes;
    for (int part = 0; ok && part < DATASET_PARTS; part++)
        ok = read_part(dataset, &zip, (enum dataset_part)part, &left, err);
    zip_close(&zip);
    return ok || error_prefix(err, "%s", path);
}
