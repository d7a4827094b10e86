#pragma once
#include <stdbool.h>
#include <stddef.h>

/** Element types. The zero value is none of them. */
enum dtype { DTYPE_NONE, DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_S8, DTYPE_U8, DTYPE_S32, DTYPE_S64, DTYPE_F64, DTYPE_COUNT };

/** Bytes of one element; 0 for DTYPE_NONE. */
size_t dtype_size(enum dtype dtype);

/** Lower-case name, e.g. "f32". */
const char *dtype_name(enum dtype dtype);

/** The dtype of that name; DTYPE_NONE where there is none. */
enum dtype dtype_parse(const char *name);
