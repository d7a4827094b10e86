/* Any bytes as a safetensors file, and its metadata as a manifest: every byte of every tensor that is handed out is there. */
#include "common/weights/manifest.h"
#include "common/weights/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(const struct safetensors_tensor *tensor) {
    struct tensor copy;
    struct error err;
    if (tensor->bytes < (1 << 20) && safetensors_copy(tensor, &copy, &err)) {
        if (tensor_bytes(&copy) != tensor->bytes)
            abort();
        tensor_fini(&copy);
    }
}

static void parse_manifest(const char *text, size_t length) {
    struct manifest manifest;
    struct error err;
    if (!manifest_parse(text, length, &manifest, &err))
        return;
    char *printed = manifest_print(&manifest, 0, &err);
    if (!printed)
        abort();
    free(printed);
    manifest_fini(&manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors file;
    struct error err;
    parse_manifest((const char *)data, size);
    if (!safetensors_parse(data, size, &file, &err))
        return 0;
    for (int i = 0; i < file.count; i++)
        touch(&file.tensors[i]);
    for (int i = 0; i < file.metadata_count; i++)
        parse_manifest(file.metadata[i].value, strlen(file.metadata[i].value));
    safetensors_fini(&file);
    return 0;
}
