#pragma once
#include "inferd/acceptance.h"

/** Which pictures an acceptance set has. Zeroed is empty. */
struct acceptance_set {
    int count;
    struct acceptance_picture {
        char *path; /**< owned */
        int label;  /**< the model's class */
    } * pictures;   /**< owned, (count), by class and name */
};

/** Lists the pictures, at most spec->max_images, whatever they hold. Errors name no file, but a manifest's
 * line. */
bool acceptance_set_open(const struct acceptance_spec *spec, const struct model_info *info,
                         struct acceptance_set *out, struct error *err);
void acceptance_set_close(struct acceptance_set *set);
