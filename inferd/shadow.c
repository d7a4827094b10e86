#include "inferd/shadow.h"
#include "common/base/log.h"
#include "common/base/queue.h"
#include "common/base/thread_slice.h"
#include "common/image/preprocess.h"
#include "inferd/decide.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

/* A thread that gets a hundredth of a processor where those that serve want all of it. */
enum { SHADOW_NICE = 19 };

struct shadow {
    struct shadow_spec spec;
    struct queue *queue; /* of samples whose answer is out; holds spec.limit, so that pushing never waits */
    pthread_t thread;
    bool thread_runs;
    atomic_int under_way;
    _Atomic uint64_t dropped;
    atomic_int share; /* permille; a first look without the lock */

    pthread_mutex_t mutex; /* guards all below */
    struct model *model;   /* NULL: none */
    int permille, due;     /* due: thousandths of a sample that have come together */
};

struct shadow_sample {
    struct shadow *shadow;
    struct model *model; /* referenced: the one that is to be compared */
    uint8_t *grey;       /* owned; as its recipe says */
    /* What the active model said. */
    Thorax__V1__Decision decision; /* at its default operating point */
    char label[MODEL_NAME_SIZE];   /* of that point's class, the finding */
    double probability;            /* of the finding */
};

/* ---- the shadow's thread ---- */

/** The finding's class in the shadow's own order; -1: it does not know it. */
static int finding_of(const struct model_info *info, const char *label) {
    for (int i = 0; i < info->class_count; i++) {
        if (strcasecmp(info->classes[i], label) == 0) {
            return i;
        }
    }
    return -1;
}

static bool compute(struct model *model, const uint8_t *grey, double *probabilities, struct error *err) {
    const struct model_info *info = &model->info;
    float logits[MODEL_MAX_CLASSES];
    float *images = calloc(recipe_values(&info->recipe) * (size_t)model->max_batch, sizeof *images);
    if (!images) {
        return error_set(err, ERROR_MEMORY, "no memory for a picture");
    }
    preprocess_normalise(&info->recipe, grey, images);
    bool ok = model->ops->compute(model, 0, images, 1, logits, err) &&
              decide_probabilities(logits, info->class_count, info->temperature, probabilities, err);
    free(images);
    return ok;
}

static void compare(const struct shadow_sample *sample) {
    struct model_stats *stats = sample->shadow->spec.stats;
    const struct model_info *info = &sample->model->info;
    double probabilities[MODEL_MAX_CLASSES];
    struct error err = {0};
    int finding = finding_of(info, sample->label);
    bool ok = finding >= 0 || error_set(&err, ERROR_INVALID, "the shadow does not know the finding");
    if (!ok || !compute(sample->model, sample->grey, probabilities, &err)) {
        log_error("shadow_failed", &err);
        model_stats_shadow_failed(stats, &info->digest);
        return;
    }
    bool agreed = decide_outcome(info, &info->points[0], probabilities) == sample->decision &&
                  strcasecmp(info->classes[info->points[0].class_index], sample->label) == 0;
    model_stats_compared(stats, &info->digest, agreed, probabilities[finding] - sample->probability);
}

static bool is_current(struct shadow *shadow, const struct model *model) {
    pthread_mutex_lock(&shadow->mutex);
    bool current = shadow->model == model;
    pthread_mutex_unlock(&shadow->mutex);
    return current;
}

static void *run(void *context) {
    struct shadow *shadow = context;
    struct shadow_sample *sample;
    thread_slice_set(THREAD_SLICE_NORMAL);
    setpriority(PRIO_PROCESS, 0, SHADOW_NICE); /* on Linux: of this thread, and of the team that it leads */
    while ((sample = queue_pop(shadow->queue, -1))) {
        if (is_current(shadow, sample->model)) { /* else nobody wants to know any more */
            compare(sample);
        }
        shadow_drop(sample);
    }
    return NULL;
}

/* ---- life ---- */

struct shadow *shadow_create(const struct shadow_spec *spec, struct error *err) {
    struct shadow *shadow = calloc(1, sizeof *shadow);
    if (!shadow) {
        error_set(err, ERROR_MEMORY, "no memory for the shadow");
        return NULL;
    }
    shadow->spec = *spec;
    pthread_mutex_init(&shadow->mutex, NULL);
    shadow->queue = queue_create((size_t)spec->limit);
    shadow->thread_runs = shadow->queue && pthread_create(&shadow->thread, NULL, run, shadow) == 0;
    if (!shadow->thread_runs) {
        error_set(err, ERROR_MEMORY, "the shadow's thread does not start");
        shadow_destroy(shadow);
        return NULL;
    }
    return shadow;
}

void shadow_destroy(struct shadow *shadow) {
    if (!shadow) {
        return;
    }
    shadow_set(shadow, NULL, 0);
    if (shadow->thread_runs) {
        queue_close(shadow->queue);
        pthread_join(shadow->thread, NULL);
    }
    queue_destroy(shadow->queue);
    pthread_mutex_destroy(&shadow->mutex);
    free(shadow);
}

void shadow_set(struct shadow *shadow, struct model *model, int permille) {
    pthread_mutex_lock(&shadow->mutex);
    struct model *before = shadow->model;
    shadow->model = model;
    shadow->permille = model ? permille : 0;
    shadow->due = 0;
    atomic_store(&shadow->share, shadow->permille);
    pthread_mutex_unlock(&shadow->mutex);
    model_release(before);
}

void shadow_set_share(struct shadow *shadow, int permille) {
    pthread_mutex_lock(&shadow->mutex);
    shadow->permille = shadow->model ? permille : 0;
    atomic_store(&shadow->share, shadow->permille);
    pthread_mutex_unlock(&shadow->mutex);
}

bool shadow_current(struct shadow *shadow, struct digest *out) {
    pthread_mutex_lock(&shadow->mutex);
    bool has = shadow->model != NULL;
    if (has) {
        *out = shadow->model->info.digest;
    }
    pthread_mutex_unlock(&shadow->mutex);
    return has;
}

uint64_t shadow_dropped(const struct shadow *shadow) {
    return shadow->dropped;
}

/* ---- samples ---- */

/** The shadow's model, referenced, where it is this picture's turn: evenly spread, without chance. NULL: it
 * is not. */
static struct model *take_turn(struct shadow *shadow, const struct model *active) {
    struct model *model = NULL;
    pthread_mutex_lock(&shadow->mutex);
    if (shadow->model && !digest_equal(&shadow->model->info.digest, &active->info.digest)) {
        shadow->due += shadow->permille;
        if (shadow->due >= 1000) {
            shadow->due -= 1000;
            model = model_retain(shadow->model);
        }
    }
    pthread_mutex_unlock(&shadow->mutex);
    return model;
}

static bool prepare(struct shadow_sample *sample, const struct model *active, const struct image *image,
                    const uint8_t *grey) {
    const struct recipe *recipe = &sample->model->info.recipe, *other = &active->info.recipe;
    sample->grey = malloc(recipe_pixels(recipe));
    if (!sample->grey) {
        return false;
    }
    if (recipe->width == other->width && recipe->height == other->height) {
        memcpy(sample->grey, grey, recipe_pixels(recipe)); /* the resized picture depends on nothing else */
        return true;
    }
    return preprocess_pixels(recipe, image, sample->grey, NULL);
}

struct shadow_sample *shadow_begin(struct shadow *shadow, const struct model *active,
                                   const struct image *image, const uint8_t *grey) {
    if (!shadow || atomic_load(&shadow->share) == 0) {
        return NULL;
    }
    struct model *model = take_turn(shadow, active);
    if (!model) {
        return NULL;
    }
    if (atomic_fetch_add(&shadow->under_way, 1) >= shadow->spec.limit) {
        atomic_fetch_sub(&shadow->under_way, 1);
        atomic_fetch_add(&shadow->dropped, 1);
        model_release(model);
        return NULL;
    }
    struct shadow_sample *sample = calloc(1, sizeof *sample);
    if (!sample) {
        atomic_fetch_sub(&shadow->under_way, 1);
        model_release(model);
        return NULL;
    }
    sample->shadow = shadow;
    sample->model = model;
    if (!prepare(sample, active, image, grey)) {
        shadow_drop(sample);
        return NULL;
    }
    return sample;
}

void shadow_submit(struct shadow_sample *sample, const struct model_info *active,
                   const double *probabilities) {
    const struct decision_point *point = &active->points[0];
    sample->decision = decide_outcome(active, point, probabilities);
    sample->probability = probabilities[point->class_index];
    memcpy(sample->label, active->classes[point->class_index], sizeof sample->label);
    if (!queue_push(sample->shadow->queue, sample, 0)) {
        shadow_drop(sample); /* closed: the member ends */
    }
}

void shadow_drop(struct shadow_sample *sample) {
    if (sample) {
        atomic_fetch_sub(&sample->shadow->under_way, 1);
        model_release(sample->model);
        free(sample->grey);
        free(sample);
    }
}
