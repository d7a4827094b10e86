#include "trainerd/dataset_zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Sizes of the fixed parts of the records, and the most that one byte of deflate unpacks to. */
enum { END_BYTES = 22, CENTRAL_BYTES = 46, LOCAL_BYTES = 30, DEFLATE_RATIO = 1032 };
static const uint32_t end_magic = 0x06054b50, central_magic = 0x02014b50, local_magic = 0x04034b50;

static uint16_t get16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t get32(const uint8_t *bytes) {
    return get16(bytes) | (uint32_t)get16(bytes + 2) << 16;
}

/* The end record is the last one; a comment of up to 65,535 bytes may follow. */
static const uint8_t *find_end(const struct file_map *map) {
    if (map->size < END_BYTES)
        return NULL;
    size_t last = map->size - END_BYTES, first = last > 65535 ? last - 65535 : 0;
    for (size_t at = last + 1; at-- > first;)
        if (get32(map->data + at) == end_magic && at + END_BYTES + get16(map->data + at + 20) == map->size)
            return map->data + at;
    return NULL;
}

/* Finds the member's bytes through its local header, whose name and extra field may differ in length. */
static bool locate(const struct file_map *map, uint32_t offset, struct zip_entry *entry, struct error *err) {
    if (offset > map->size || map->size - offset < LOCAL_BYTES || get32(map->data + offset) != local_magic)
        return error_set(err, ERROR_FORMAT, "no member where the archive's directory points");
    const uint8_t *local = map->data + offset;
    size_t start = (size_t)offset + LOCAL_BYTES + get16(local + 26) + get16(local + 28);
    if (start > map->size || map->size - start < entry->packed_bytes)
        return error_set(err, ERROR_FORMAT, "a member ends behind the archive's end");
    entry->packed = map->data + start;
    return true;
}

static bool check_entry(const struct zip_entry *entry, uint16_t flags, struct error *err) {
    if (flags & 1u || (entry->method != 0 && entry->method != 8))
        return error_set(err, ERROR_UNSUPPORTED, "a member is encrypted or packed by method %d",
                         entry->method);
    if (entry->packed_bytes == UINT32_MAX || entry->bytes == UINT32_MAX)
        return error_set(err, ERROR_UNSUPPORTED, "a member of 4 GiB or more (zip64)");
    if (entry->method == 0 && entry->packed_bytes != entry->bytes)
        return error_set(err, ERROR_FORMAT, "a stored member has two sizes");
    if (entry->bytes > (uint64_t)entry->packed_bytes * DEFLATE_RATIO + DEFLATE_RATIO)
        return error_set(err, ERROR_FORMAT, "a member claims more bytes than deflate can hold");
    return true;
}

/* Reads one record of the directory. Returns the bytes it takes, 0 on error. */
static size_t read_entry(const struct file_map *map, const uint8_t *record, size_t left,
                         struct zip_entry *entry, struct error *err) {
    size_t name_bytes = left >= CENTRAL_BYTES ? get16(record + 28) : 0;
    size_t whole =
        CENTRAL_BYTES + name_bytes + (left >= CENTRAL_BYTES ? get16(record + 30) + get16(record + 32) : 0);
    if (left < whole || get32(record) != central_magic) {
        error_set(err, ERROR_FORMAT, "the archive's directory is cut short");
        return 0;
    }
    *entry = (struct zip_entry){.method = get16(record + 10),
                                .crc32 = get32(record + 16),
                                .packed_bytes = get32(record + 20),
                                .bytes = get32(record + 24)};
    if (name_bytes == 0 || name_bytes >= ZIP_NAME_SIZE || memchr(record + CENTRAL_BYTES, 0, name_bytes)) {
        error_set(err, ERROR_FORMAT, "a member without a sensible name");
        return 0;
    }
    memcpy(entry->name, record + CENTRAL_BYTES, name_bytes);
    bool ok = check_entry(entry, get16(record + 8), err) && locate(map, get32(record + 42), entry, err);
    return ok ? whole : 0;
}

static bool read_directory(struct zip *zip, struct error *err) {
    const uint8_t *end = find_end(&zip->map);
    if (!end)
        return error_set(err, ERROR_FORMAT, "not a zip archive, or cut short");
    size_t count = get16(end + 10), size = get32(end + 12), offset = get32(end + 16);
    size_t end_offset = (size_t)(end - zip->map.data);
    if (count == UINT16_MAX || offset == UINT32_MAX)
        return error_set(err, ERROR_UNSUPPORTED, "a zip64 archive");
    if (offset > end_offset || size > end_offset - offset)
        return error_set(err, ERROR_FORMAT, "the archive's directory lies outside of it");
    if (count > ZIP_MAX_ENTRIES)
        return error_set(err, ERROR_TOO_LARGE, "%zu members, the limit is %d", count, ZIP_MAX_ENTRIES);
    const uint8_t *record = zip->map.data + offset;
    for (size_t i = 0; i < count; i++) {
        size_t whole = read_entry(&zip->map, record, size, &zip->entries[i], err);
        if (whole == 0)
            return false;
        record += whole;
        size -= whole;
    }
    zip->count = (int)count;
    return true;
}

bool zip_open(struct zip *zip, const char *path, struct error *err) {
    *zip = (struct zip){0};
    if (!file_map_open(path, &zip->map, err))
        return false;
    if (read_directory(zip, err))
        return true;
    zip_close(zip);
    return error_prefix(err, "%s", path);
}

void zip_close(struct zip *zip) {
    file_map_close(&zip->map);
    *zip = (struct zip){0};
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name) {
    for (int i = 0; i < zip->count; i++)
        if (strcmp(zip->entries[i].name, name) == 0)
            return &zip->entries[i];
    return NULL;
}

/* zlib's sizes are 32 bits wide, and so are those of an entry (no zip64): one call does it. */
static bool inflate_all(const struct zip_entry *entry, uint8_t *out) {
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)entry->packed,
                       .avail_in = (uInt)entry->packed_bytes,
                       .next_out = out,
                       .avail_out = (uInt)entry->bytes};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return false;
    int status = inflate(&stream, Z_FINISH);
    bool ok = status == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    return ok;
}

bool zip_extract(const struct zip_entry *entry, size_t limit, struct bytes *out, struct error *err) {
    *out = (struct bytes){0};
    if (entry->bytes > limit)
        return error_set(err, ERROR_TOO_LARGE, "%s: %zu bytes, the limit is %zu", entry->name, entry->bytes,
                         limit);
    uint8_t *data = malloc(entry->bytes + 1);
    if (!data)
        return error_set(err, ERROR_MEMORY, "%s: out of memory for %zu bytes", entry->name, entry->bytes);
    bool ok = true;
    if (entry->method == 0)
        memcpy(data, entry->packed, entry->bytes);
    else
        ok = inflate_all(entry, data);
    if (!ok || crc32_z(0, data, entry->bytes) != entry->crc32) {
        free(data);
        return error_set(err, ERROR_FORMAT, "%s: damaged", entry->name);
    }
    data[entry->bytes] = 0;
    *out = (struct bytes){data, entry->bytes};
    return true;
}
