#pragma once
#include "common/image/image.h"
#include "inferd/model.h"

/**
 * A site's own labelled pictures, which a model has to judge well enough here before it may serve: other
 * machines, other patients than where it was trained. The pictures never leave the member, and no file is
 * ever named, in errors neither.
 */
struct acceptance_spec {
    const char *folder; /**< CLASS/FILE, the classes named as the model's are; NULL or "": see manifest */
    const char *
        manifest; /**< CSV with the columns path (relative to its folder) and class; NULL or "": see folder */
    double min_balanced_accuracy; /**< mean of the classes' recalls, 0 to 1 */
    int max_images; /**< of more, as many of each class, spread evenly over their names' order */
    struct image_limits limits;
};

struct acceptance_result {
    int images;     /**< judged */
    int unreadable; /**< passed over */
    double balanced_accuracy;
};

/**
 * Judges the pictures by the most probable class. False where the model is below the limit (ERROR_INVALID,
 * with both figures), or where the set says nothing: it cannot be read, has a class that the model has not,
 * or fewer than two classes. The model is computed by the caller's thread.
 */
bool acceptance_run(const struct acceptance_spec *spec, struct model *model, struct acceptance_result *out,
                    struct error *err);
