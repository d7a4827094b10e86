#include "trainerd/publisher_inspect.h"

#include "common/base/text.h"
#include "common/weights/model_file.h"

bool publisher_inspect_model(void *context, const char *path, char name[DESCRIPTOR_NAME_SIZE],
                             char version[DESCRIPTOR_NAME_SIZE], struct error *err) {
    (void)context;
    struct model_file file;
    if (!model_file_open(path, &file, err))
        return false;
    bool ok = text_copy(name, DESCRIPTOR_NAME_SIZE, file.manifest.name) &&
              text_copy(version, DESCRIPTOR_NAME_SIZE, file.manifest.version) && descriptor_name_ok(name) &&
              descriptor_name_ok(version);
    if (!ok)
        error_set(err, ERROR_INVALID,
                  "%s: its name and version must be 1 to 100 of [A-Za-z0-9._-], a letter or digit first", path);
    model_file_close(&file);
    return ok;
}
