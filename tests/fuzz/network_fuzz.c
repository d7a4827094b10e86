/* Any manifest as the description of a network: what it says of 8-bit convolutions is refused or becomes a graph that holds. */
#include "common/weights/model_network.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Larger ones take a second each, and have nothing in their tables that these have not. */
static bool is_small(const struct manifest *manifest) {
    return strcmp(manifest->architecture.name, "resnet18") == 0 || strcmp(manifest->architecture.name, "efficientnet_lite0") == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct model_file file = {0}; /* without a tensor: the graph is built, and loading it fails */
    struct model_network network;
    struct error err;
    if (!manifest_parse((const char *)data, size, &file.manifest, &err))
        return 0;
    if (is_small(&file.manifest) && model_network_open(&file, &network, &err))
        abort();
    manifest_fini(&file.manifest);
    return 0;
}
