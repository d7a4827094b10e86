#pragma once
#include "common/image/image.h"

/** What a synthetic picture shows. */
enum phantom_kind { PHANTOM_NORMAL, PHANTOM_PNEUMONIA, PHANTOM_INVALID, PHANTOM_KINDS };

enum { PHANTOM_MIN_SIDE = 64, PHANTOM_MAX_SIDE = 2048, PHANTOM_VIEWS = 16 };

/** "NORMAL", "PNEUMONIA", "INVALID": the classes' folder names. */
const char *phantom_name(enum phantom_kind kind);

/**
 * Draws a synthetic radiograph: for demonstrations, tests and the golden answers that travel with a model;
 * made of no patient's data and of no diagnostic worth. NORMAL: a thorax (lungs, heart, spine, ribs,
 * clavicles, vessels; varied build, exposure, noise, sharpness). PNEUMONIA: the same with one to three lung
 * opacities, from faint but certain to massive: for one seed the two differ in nothing else. INVALID: other
 * things (limb bones, a hand, a head in section, a gradient, an empty film, noise, a page of text, a
 * landscape, its negative, a negative thorax). The word SYNTHETIC stands in one place in all of them, so that
 * it tells no class. The same arguments give the same picture. Seeds that differ only in their low four bits
 * are films of one patient: same build, other exposure, position and noise. width, height: 64..2048 pixels.
 * out: grey, 8 bits, owned. Errors: INVALID, MEMORY. Thread-safe.
 */
bool phantom_draw(enum phantom_kind kind, uint64_t seed, int width, int height, struct image *out,
                  struct error *err);

/** Makes a grey 8-bit picture a coloured one (black stays black), with tints drawn from seed: as photographs
 * are. */
bool phantom_tint(struct image *image, uint64_t seed, struct error *err);
