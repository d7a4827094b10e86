#pragma once
#include "common/pool/descriptor.h"
#include "trainerd/control.h"
#include "trainerd/registry.h"

/** What became of a model that was handed to a publisher. */
struct upload_done {
    char name[DESCRIPTOR_NAME_SIZE], version[DESCRIPTOR_NAME_SIZE];
    struct digest digest;
    size_t size_bytes;
    char gate[REGISTRY_TEXT_SIZE]; /**< why the publisher keeps it and does not offer it to its pool; "": it does */
};

struct upload_spec {
    const char *path;     /**< a model file */
    const char *sign_key; /**< a .key file of trainctl keygen sign: signs it; NULL or "": the publisher may */
    bool once;            /**< it may have arrived already, with the answer lost: it is not made current once more */
};

/**
 * Hands a model file to the publisher: looks into it, signs it, and sends it chunk by chunk and each only when
 * the one before it was heard, from where an earlier upload of the same file stopped. True: the publisher has
 * it, and will not lose it.
 */
bool upload_file(struct control *control, const struct upload_spec *spec, struct upload_done *done,
                 struct error *err);

/** As upload_file, of what is described: data holds descriptor->size_bytes. gate: as in upload_done. */
bool upload_model(struct control *control, const struct descriptor *descriptor, const void *data, bool once,
                  char gate[REGISTRY_TEXT_SIZE], struct error *err);
