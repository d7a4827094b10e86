#pragma once
#include "common/base/error.h"
#include "common/base/file.h"

enum { ZIP_MAX_ENTRIES = 64, ZIP_NAME_SIZE = 64 };

/** One member of an archive, as its central directory describes it. */
struct zip_entry {
    char name[ZIP_NAME_SIZE];
    uint16_t method; /**< 0: stored, 8: deflate */
    uint32_t crc32;
    size_t packed_bytes, bytes;
    const uint8_t *packed; /**< in the mapped archive */
};

/** A mapped .zip whose directory has been read and checked against the file's size. */
struct zip {
    struct file_map map;
    int count;
    struct zip_entry entries[ZIP_MAX_ENTRIES];
};

/**
 * Reads the directory of an archive of at most ZIP_MAX_ENTRIES members. Everything in it is checked: offsets
 * and sizes lie in the file, deflated members claim no more than deflate can hold. Errors: FORMAT,
 * UNSUPPORTED (zip64, encryption, other methods), TOO_LARGE. zip_close frees. Source: PKWARE's APPNOTE 6.3.
 */
bool zip_open(struct zip *zip, const char *path, struct error *err);
void zip_close(struct zip *zip);

/** The member of that name; NULL where there is none. Borrows. */
const struct zip_entry *zip_find(const struct zip *zip, const char *name);

/** Unpacks a member of at most limit bytes into owned memory (free) and checks its CRC. */
bool zip_extract(const struct zip_entry *entry, size_t limit, struct bytes *out, struct error *err);
