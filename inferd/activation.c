#include "inferd/activation.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include <inttypes.h>
#include <sys/stat.h>

/* While it is loaded a model's weights are there up to three times (file, parameters, plan), and each instance's
 * plans have buffers. */
enum { LOADING_FACTOR = 4 };

static void drop_previous(struct slot *slot, const char *reason) {
    if (slot_drop_previous(slot)) {
        log_event(LOG_WARNING, "previous_model_dropped", "reason=\"%s\"", reason);
    }
}

static void make_room(const struct activation_spec *spec, const char *path) {
    struct stat status;
    int64_t instances = spec->load.instances ? spec->load.instances->count : 1;
    if (stat(path, &status) == 0 &&
        memory_available() / LOADING_FACTOR < status.st_size + instances * INSTANCE_BYTES / LOADING_FACTOR) {
        drop_previous(spec->slot, "little memory is available");
    }
}

static bool accept(const struct activation_spec *spec, struct model *model, struct error *err) {
    struct acceptance_result result;
    if (!spec->acceptance) {
        return true;
    }
    bool ok = acceptance_run(spec->acceptance, model, &result, err);
    log_event(ok ? LOG_INFO : LOG_WARNING, "acceptance_set",
              "accepted=%s images=%d unreadable=%d balanced_accuracy=%.4f limit=%.4f", ok ? "yes" : "no",
              result.images, result.unreadable, result.balanced_accuracy,
              spec->acceptance->min_balanced_accuracy);
    return ok;
}

struct model *activation_load(const struct activation_spec *spec, const char *path, struct error *err) {
    char hex[DIGEST_HEX_SIZE];
    int golden = 0;
    int64_t start = clock_now_ms();
    struct model *model = loaded_model_open(path, &spec->load, &golden, err);
    if (!model) {
        return NULL;
    }
    if (!accept(spec, model, err)) {
        model_release(model);
        return NULL;
    }
    log_event(golden ? LOG_INFO : LOG_WARNING, "model_loaded",
              "name=%s version=%s digest=%s device=%s golden_images=%d ms=%" PRId64, model->info.name,
              model->info.version, digest_hex(&model->info.digest, hex), spec->load.device.name, golden,
              clock_now_ms() - start);
    return model;
}

/** Releases a model that is another one than it should be. */
static bool check_digest(struct model *model, const struct digest *digest, struct error *err) {
    if (!digest_equal(&model->info.digest, digest)) {
        model_release(model);
        return error_set(err, ERROR_FORMAT, "the model file changed while it was loaded");
    }
    return true;
}

struct model *activation_load_shadow(const struct activation_spec *spec, const char *path,
                                     const struct digest *digest, struct error *err) {
    struct activation_spec small = *spec;
    small.load.max_batch = 1;
    small.load.device.index = instances_gpu(spec->load.instances, 0, spec->load.device.index);
    small.load.instances = NULL;
    small.load.device.threads = spec->shadow_threads;
    small.acceptance = NULL; /* it answers nobody; activation asks */
    make_room(&small, path);
    struct model *model = activation_load(&small, path, err);
    return model && check_digest(model, digest, err) ? model : NULL;
}

bool activation_run(const struct activation_spec *spec, const char *path, const struct digest *digest,
                    struct error *err) {
    char hex[DIGEST_HEX_SIZE];
    if (slot_activate(spec->slot, digest)) {
        log_event(LOG_INFO, "model_active", "digest=%s resident=yes", digest_hex(digest, hex));
        return true;
    }
    struct error reason = {0};
    make_room(spec, path);
    struct model *model = activation_load(spec, path, &reason);
    if (!model && reason.code == ERROR_MEMORY) {
        drop_previous(spec->slot, "memory ended");
        model = activation_load(spec, path, &reason);
    }
    if (!model) {
        return error_set(err, reason.code, "%s", reason.message);
    }
    if (!check_digest(model, digest, err)) {
        return false;
    }
    slot_swap(spec->slot, model);
    log_event(LOG_INFO, "model_active", "digest=%s resident=no", digest_hex(digest, hex));
    return true;
}
