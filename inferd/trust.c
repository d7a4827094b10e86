#include "inferd/trust.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/secret_file.h"
#include "common/base/text.h"
#include "common/models/registry.h"
#include "inferd/instances.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { LIST_LIMIT_BYTES = 1 << 20, KEY_ID_DIGITS = SIGNATURE_ID_SIZE - 1 };

/** What a list of revocations says. */
struct revocations {
    struct digest *models; /* owned */
    size_t model_count;
    char (*keys)[SIGNATURE_ID_SIZE]; /* owned: ids */
    size_t key_count;
};

struct trust {
    int key_count;
    uint8_t keys[TRUST_MAX_KEYS][SIGNATURE_PUBLIC_SIZE];
    int64_t oldest_ms, max_memory_bytes;
    int precision_count;
    char precisions[TRUST_MAX_PRECISIONS][8];
    char *list_path;       /* owned; NULL: none */
    pthread_mutex_t mutex; /* guards what follows */
    struct stat list_status;
    struct revocations revoked;
};

/* ---- the list of revocations ---- */

static void revocations_fini(struct revocations *revoked) {
    free(revoked->models);
    free(revoked->keys);
    *revoked = (struct revocations){0};
}

static bool add_model(struct revocations *revoked, const char *hex, struct error *err) {
    struct digest *models = realloc(revoked->models, (revoked->model_count + 1) * sizeof *models);
    if (!models)
        return error_set(err, ERROR_MEMORY, "out of memory");
    revoked->models = models;
    return digest_parse(hex, &models[revoked->model_count], err) && ++revoked->model_count;
}

/** A key by its id or by all of its digits. */
static bool add_key(struct revocations *revoked, const char *hex, struct error *err) {
    size_t length = strlen(hex);
    char(*keys)[SIGNATURE_ID_SIZE] = realloc(revoked->keys, (revoked->key_count + 1) * sizeof *keys);
    if (!keys)
        return error_set(err, ERROR_MEMORY, "out of memory");
    revoked->keys = keys;
    if ((length != KEY_ID_DIGITS && length != 2 * SIGNATURE_PUBLIC_SIZE) ||
        strspn(hex, "0123456789abcdef") != length)
        return error_set(err, ERROR_FORMAT, "a key is 16 or 64 hexadecimal digits");
    memcpy(keys[revoked->key_count], hex, KEY_ID_DIGITS);
    keys[revoked->key_count++][KEY_ID_DIGITS] = '\0';
    return true;
}

static bool parse_line(struct revocations *revoked, char *line, struct error *err) {
    line[strcspn(line, "#")] = '\0';
    char *word = strsep(&line, " \t"), *value = line ? line + strspn(line, " \t") : NULL;
    if (!*word && !value)
        return true;
    if (value)
        value[strcspn(value, " \t\r")] = '\0';
    if (value && strcmp(word, "model") == 0)
        return add_model(revoked, value, err);
    if (value && strcmp(word, "key") == 0)
        return add_key(revoked, value, err);
    return error_set(err, ERROR_FORMAT, "expected \"model DIGEST\" or \"key DIGITS\"");
}

static bool parse_list(const char *path, struct revocations *out, struct error *err) {
    struct bytes bytes;
    *out = (struct revocations){0};
    if (!file_read(path, LIST_LIMIT_BYTES, &bytes, err))
        return false;
    char *rest = (char *)bytes.data;
    bool ok = !memchr(bytes.data, 0, bytes.size) || error_set(err, ERROR_FORMAT, "%s: not a text", path);
    for (int number = 1; ok && rest; number++) {
        char *line = strsep(&rest, "\n");
        ok = parse_line(out, line, err) || error_prefix(err, "%s:%d", path, number);
    }
    free(bytes.data);
    if (!ok)
        revocations_fini(out);
    return ok;
}

static bool unchanged(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/** Reads the list where it is not the one that was read before. A new one that cannot be read leaves the old
 * one in force. Locked. */
static bool refresh(struct trust *trust, struct error *err) {
    struct stat status;
    struct revocations fresh;
    if (!trust->list_path)
        return true;
    if (stat(trust->list_path, &status) != 0)
        return error_set_errno(err, "%s", trust->list_path);
    if (unchanged(&status, &trust->list_status))
        return true;
    if (!parse_list(trust->list_path, &fresh, err))
        return false;
    revocations_fini(&trust->revoked);
    trust->revoked = fresh;
    trust->list_status = status;
    return true;
}

/* ---- making ---- */

static bool load_key(struct trust *trust, const char *text, struct error *err) {
    uint8_t *key = trust->keys[trust->key_count++];
    size_t size = 0;
    if (strlen(text) == 2 * SIGNATURE_PUBLIC_SIZE &&
        sodium_hex2bin(key, SIGNATURE_PUBLIC_SIZE, text, strlen(text), NULL, &size, NULL) == 0 &&
        size == SIGNATURE_PUBLIC_SIZE)
        return true;
    return signature_public_load(text, key, err);
}

static bool parse_oldest(struct trust *trust, const char *text, struct error *err) {
    struct tm time = {0};
    if (!*text)
        return true;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &time);
    if (!end || *end)
        return error_set(err, ERROR_INVALID, "%.60s: expected a time such as 2026-11-24T00:00:00Z", text);
    trust->oldest_ms = (int64_t)timegm(&time) * 1000;
    return true;
}

static bool prepare(struct trust *trust, const struct trust_spec *spec, struct error *err) {
    if (spec->key_count > TRUST_MAX_KEYS)
        return error_set(err, ERROR_INVALID, "%d trusted keys: at most %d", spec->key_count, TRUST_MAX_KEYS);
    for (int i = 0; i < spec->key_count; i++) {
        if (!load_key(trust, spec->keys[i], err))
            return false;
    }
    for (int i = 0; i < spec->precision_count && trust->precision_count < TRUST_MAX_PRECISIONS; i++) {
        char *to = trust->precisions[trust->precision_count];
        trust->precision_count += text_copy(to, sizeof *trust->precisions, spec->precisions[i]);
    }
    trust->max_memory_bytes = spec->max_memory_bytes ? spec->max_memory_bytes : memory_limit_bytes();
    if (spec->instances > 1) { /* what a model says that it needs is for one */
        int64_t more = (spec->instances - 1) * (int64_t)INSTANCE_BYTES;
        trust->max_memory_bytes = trust->max_memory_bytes > more ? trust->max_memory_bytes - more : 0;
    }
    if (spec->revoked && *spec->revoked && !(trust->list_path = strdup(spec->revoked)))
        return error_set(err, ERROR_MEMORY, "out of memory");
    return parse_oldest(trust, spec->oldest ? spec->oldest : "", err) && refresh(trust, err);
}

struct trust *trust_create(const struct trust_spec *spec, struct error *err) {
    struct trust *trust = calloc(1, sizeof *trust);
    if (!trust) {
        error_set(err, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&trust->mutex, NULL);
    if (prepare(trust, spec, err))
        return trust;
    trust_destroy(trust);
    return NULL;
}

void trust_destroy(struct trust *trust) {
    if (!trust)
        return;
    pthread_mutex_destroy(&trust->mutex);
    revocations_fini(&trust->revoked);
    free(trust->list_path);
    free(trust);
}

/* ---- checking ---- */

static bool key_revoked(const struct revocations *revoked, const uint8_t *key) {
    char id[SIGNATURE_ID_SIZE];
    signature_key_id(key, id);
    for (size_t i = 0; i < revoked->key_count; i++) {
        if (strcmp(revoked->keys[i], id) == 0)
            return true;
    }
    return false;
}

static bool key_trusted(const struct trust *trust, const uint8_t *key) {
    for (int i = 0; i < trust->key_count; i++) {
        if (memcmp(trust->keys[i], key, SIGNATURE_PUBLIC_SIZE) == 0)
            return true;
    }
    return false;
}

/** One good signature by a trusted key that is not revoked is enough. Locked. */
static bool check_signatures(const struct trust *trust, const struct descriptor *descriptor,
                             struct error *err) {
    int count = descriptor_signature_count(descriptor);
    const char *reason = "it is not signed";
    for (int i = 0; i < count; i++) {
        const uint8_t *key = descriptor_signer(descriptor, i);
        if (!key_trusted(trust, key))
            reason = "it is signed by a key that is not trusted here";
        else if (key_revoked(&trust->revoked, key))
            reason = "the key that signed it is revoked";
        else if (!descriptor_signature_good(descriptor, i))
            reason = "its signature is wrong";
        else
            return true;
    }
    return trust->key_count == 0 || error_set(err, ERROR_INVALID, "the model is refused: %s", reason);
}

/** Locked. */
static bool check_revoked(const struct trust *trust, const struct descriptor *descriptor, struct error *err) {
    for (size_t i = 0; i < trust->revoked.model_count; i++) {
        if (digest_equal(&trust->revoked.models[i], &descriptor->digest))
            return error_set(err, ERROR_INVALID, "the model is refused: it is revoked here");
    }
    return true;
}

static bool check_age(const struct trust *trust, const struct descriptor *descriptor, struct error *err) {
    char then[32], floor[32];
    time_t made = (time_t)(descriptor->created_ms / 1000), oldest = (time_t)(trust->oldest_ms / 1000);
    struct tm utc;
    if (descriptor->created_ms >= trust->oldest_ms)
        return true;
    strftime(then, sizeof then, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&made, &utc));
    strftime(floor, sizeof floor, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&oldest, &utc));
    return error_set(err, ERROR_INVALID, "the model is refused: it is of %s, nothing before %s is taken",
                     then, floor);
}

/** Whether one of the precisions that would do is one that is here. */
static bool has_precision(const struct trust *trust, const Thorax__V1__ModelNeeds *needs) {
    for (size_t i = 0; i < needs->n_precisions; i++) {
        if (strcmp(needs->precisions[i], "f32") == 0)
            return true;
        for (int k = 0; k < trust->precision_count; k++) {
            if (strcmp(needs->precisions[i], trust->precisions[k]) == 0)
                return true;
        }
    }
    return needs->n_precisions == 0;
}

static bool check_needs(const struct trust *trust, const struct descriptor *descriptor, struct error *err) {
    const Thorax__V1__ModelNeeds *needs = descriptor->message->needs;
    if (!needs)
        return true;
    if (*needs->architecture && !model_find(needs->architecture, NULL))
        return error_set(err, ERROR_UNSUPPORTED,
                         "the model cannot run here: this program has no network %.60s", needs->architecture);
    if (!has_precision(trust, needs))
        return error_set(err, ERROR_UNSUPPORTED, "the model cannot run here: it needs the precision %.20s",
                         needs->precisions[0]);
    if (needs->memory_bytes > (uint64_t)trust->max_memory_bytes)
        return error_set(
            err, ERROR_UNSUPPORTED, "the model cannot run here: it needs %llu MiB of memory, there are %lld",
            (unsigned long long)(needs->memory_bytes >> 20), (long long)(trust->max_memory_bytes >> 20));
    return true;
}

bool trust_check(struct trust *trust, const struct descriptor *descriptor, struct error *err) {
    struct error reason = {0};
    if (!descriptor)
        return trust->key_count == 0 ||
               error_set(err, ERROR_INVALID, "the model is refused: it is not known who signed it");
    pthread_mutex_lock(&trust->mutex);
    bool read = refresh(trust, &reason);
    bool ok = check_revoked(trust, descriptor, err) && check_signatures(trust, descriptor, err);
    pthread_mutex_unlock(&trust->mutex);
    if (!read)
        log_error("revocations_unreadable", &reason); /* the list that was read last stays in force */
    return ok && check_age(trust, descriptor, err) && check_needs(trust, descriptor, err);
}
