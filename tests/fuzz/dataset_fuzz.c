#include "common/base/file.h"
#include "trainerd/dataset.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LARGEST_INPUT = 65536 };

/* A little-endian zip record under construction. */
struct record {
    uint8_t *bytes;
    size_t size;
};

static void put(struct record *record, uint32_t value, int width) {
    for (int i = 0; i < width; i++)
        record->bytes[record->size++] = (uint8_t)(value >> 8 * i);
}

static void put_bytes(struct record *record, const void *data, size_t size) {
    memcpy(record->bytes + record->size, data, size);
    record->size += size;
}

/* What local and central header have in common, from the version on. */
static void put_member(struct record *record, const char *name, const uint8_t *data, size_t size) {
    const uint32_t fields[] = {20, 0, 0, 0, 0}; /* version, flags, stored, time, date */
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        put(record, fields[i], 2);
    put(record, (uint32_t)crc32_z(0, data, size), 4);
    put(record, (uint32_t)size, 4);
    put(record, (uint32_t)size, 4);
    put(record, (uint32_t)strlen(name), 2);
    put(record, 0, 2);
}

/* An archive with right checksums around arrays that the fuzzer makes up: else it would never get past the
 * CRC. */
static size_t wrap(const uint8_t *data, size_t size, uint8_t *out) {
    static const char *const names[2] = {"train_images.npy", "train_labels.npy"};
    struct record zip = {out, 0};
    size_t half = size / 2, offsets[2];
    const uint8_t *members[2] = {data, data + half};
    const size_t sizes[2] = {half, size - half};
    for (int i = 0; i < 2; i++) {
        offsets[i] = zip.size;
        put(&zip, 0x04034b50, 4);
        put_member(&zip, names[i], members[i], sizes[i]);
        put_bytes(&zip, names[i], strlen(names[i]));
        put_bytes(&zip, members[i], sizes[i]);
    }
    size_t directory = zip.size;
    for (int i = 0; i < 2; i++) {
        put(&zip, 0x02014b50, 4);
        put(&zip, 20, 2);
        put_member(&zip, names[i], members[i], sizes[i]);
        put(&zip, 0, 4); /* comment, disk */
        put(&zip, 0, 2);
        put(&zip, 0, 4);
        put(&zip, (uint32_t)offsets[i], 4);
        put_bytes(&zip, names[i], strlen(names[i]));
    }
    size_t directory_size = zip.size - directory;
    put(&zip, 0x06054b50, 4);
    put(&zip, 0, 4);
    put(&zip, 2 | 2u << 16, 4);
    put(&zip, (uint32_t)directory_size, 4);
    put(&zip, (uint32_t)directory, 4);
    put(&zip, 0, 2);
    return zip.size;
}

/* The first byte says what the rest is: z an archive, n two arrays of one, anything else a manifest. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t archive[LARGEST_INPUT + 1024];
    if (size < 1 || size > LARGEST_INPUT)
        return 0;
    uint8_t kind = data[0];
    int descriptor = memfd_create("dataset", MFD_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    bool ok = kind == 'n' ? file_write_all(descriptor, archive, wrap(data + 1, size - 1, archive), NULL)
                          : file_write_all(descriptor, data + 1, size - 1, NULL);
    struct dataset_spec spec = {.npz = kind == 'z' || kind == 'n' ? path : NULL};
    spec.manifest = spec.npz ? NULL : path;
    struct dataset dataset;
    if (ok && dataset_open(&dataset, &spec, NULL))
        dataset_close(&dataset);
    close(descriptor);
    return 0;
}
