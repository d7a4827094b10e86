#pragma once
#include "common/base/file.h"

/**
 * Files that security rests on: keys, and lists of keys. They are taken only where nobody but us or root can
 * have written them: a regular file (no symbolic link is followed at the end of the path) that belongs to the
 * user of this process or to root. Errors name the file and say what to do; they never show what is in it.
 */
enum secret_access {
    SECRET_PRIVATE, /**< a secret key: only its owner may read it (mode 0600 or 0400) */
    SECRET_TRUSTED, /**< public, but only its owner may write it (mode 0644) */
};

/** Reads a whole file of at most limit bytes; a NUL follows the last byte. secret_wipe it. */
bool secret_file_read(const char *path, enum secret_access access, size_t limit, struct bytes *out,
                      struct error *err);

/** Overwrites with zeros, then frees. Takes an empty one. */
void secret_wipe(struct bytes *bytes);

/**
 * Writes NAME.key (mode 0600) and NAME.pub (mode 0644) with the texts given. Never overwrites: where either
 * is there, it is ERROR_STATE, and neither is written.
 */
bool secret_file_write_pair(const char *name, const char *secret_text, const char *public_text,
                            struct error *err);

/** Writes one new file with the text given, mode 0600. Never overwrites (ERROR_STATE). */
bool secret_file_write(const char *path, const char *text, struct error *err);

/** One `NAME VALUE` line of a key file: its value is copied to value. */
struct key_line {
    const char *name;
    char *value;
    size_t size; /**< of value, final NUL included; the value in the file has exactly size - 1 characters */
};

/**
 * Parses the text of a key file: its first line is title, then come the lines wanted in any order, each once.
 * Empty lines and those that start with "# " are comments. text ends with NUL. where: the file's name, for
 * errors.
 */
bool key_text_parse(const char *text, const char *where, const char *title, const struct key_line *lines,
                    int count, struct error *err);
