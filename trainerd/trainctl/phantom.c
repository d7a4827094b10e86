#include "trainerd/trainctl/phantom.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "common/image/phantom.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { PARTS = 3, MAX_COUNT = 100000, MAX_FILMS = 3 };

static const char *const part_names[PARTS] = {"train", "val", "test"};

struct options {
    const char *folder;
    int64_t count;         /* images of each class, shared 70:15:15 */
    int64_t layout[PARTS]; /* images of each class in each part */
    bool has_layout;
    int64_t size;
    int64_t seed;
    bool colour_invalid;
};

static const char usage[] =
    "usage: trainctl phantom --out DIR [--count N] [--layout TRAIN,VAL,TEST] [--size PIXELS] [--seed K]\n"
    "                        [--colour-invalid]\n"
    "Draws a synthetic data set: {train,val,test}/{NORMAL,PNEUMONIA,INVALID}/phantomN-M.png, M-th film of "
    "patient N.\n"
    "  --out DIR           where to; made if it is not there; pictures of the same names are replaced\n"
    "  --count N           pictures of each class, shared 70:15:15 (default 100)\n"
    "  --layout T,V,E      pictures of each class in train, val and test, instead of --count\n"
    "  --size PIXELS       side of the pictures, 64 to 2048 (default 224)\n"
    "  --seed K            another number draws other pictures (default 1)\n"
    "  --colour-invalid    half of the INVALID pictures in colour, as photographs are\n"
    "  --help              this text\n";

static bool parse_layout(const char *text, struct options *options, struct error *err) {
    char copy[64];
    if (!text_copy(copy, sizeof copy, text))
        return error_set(err, ERROR_INVALID, "--layout: too long");
    char *rest = copy;
    for (int part = 0; part < PARTS; part++) {
        char *piece = strsep(&rest, ",");
        if (!piece || !text_to_int(piece, 0, MAX_COUNT, &options->layout[part], err))
            return error_set(err, ERROR_INVALID,
                             "--layout: three numbers from 0 to %d are wanted, not \"%s\"", MAX_COUNT, text);
    }
    options->has_layout = true;
    return !rest || error_set(err, ERROR_INVALID, "--layout: more than three numbers in \"%s\"", text);
}

static bool parse_number(const char *name, int64_t low, int64_t high, int64_t *out, struct error *err) {
    return text_to_int(optarg, low, high, out, err) || error_prefix(err, "--%s", name);
}

static bool apply_option(int letter, struct options *options, struct error *err) {
    switch (letter) {
    case 'o':
        options->folder = optarg;
        return true;
    case 'n':
        return parse_number("count", 1, MAX_COUNT, &options->count, err);
    case 'l':
        return parse_layout(optarg, options, err);
    case 's':
        return parse_number("size", PHANTOM_MIN_SIDE, PHANTOM_MAX_SIDE, &options->size, err);
    case 'k':
        return parse_number("seed", 0, INT32_MAX, &options->seed, err);
    case 'c':
        options->colour_invalid = true;
        return true;
    default:
        return error_set(err, ERROR_INVALID, "unknown option, or an option without its value");
    }
}

/* 1: go on; 0: help was asked for and given; -1: wrong usage, in err. */
static int parse_options(int argc, char **argv, struct options *options, struct error *err) {
    static const struct option longs[] = {
        {"out", required_argument, NULL, 'o'},    {"count", required_argument, NULL, 'n'},
        {"layout", required_argument, NULL, 'l'}, {"size", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'k'},   {"colour-invalid", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    optind = 0; /* glibc: start anew, whatever was parsed before */
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (letter == 'h')
            return fputs(usage, stdout) < 0 ? -1 : 0;
        if (!apply_option(letter, options, err))
            return -1;
    }
    if (optind < argc)
        return error_set(err, ERROR_INVALID, "\"%s\" was not expected", argv[optind]) - 1;
    if (!options->folder)
        return error_set(err, ERROR_INVALID, "--out DIR is missing") - 1;
    return 1;
}

static void share(struct options *options) {
    if (options->has_layout)
        return;
    options->layout[1] = options->layout[2] = options->count * 15 / 100;
    options->layout[0] = options->count - 2 * options->layout[1];
}

static bool write_film(const struct options *options, enum phantom_kind kind, uint64_t patient, int film,
                       const char *folder, struct error *err) {
    static const struct image_text texts[] = {{"Synthetic", "true"},
                                              {"Software", "Thorax trainctl phantom"},
                                              {"Comment", "Drawn by a program; shows no patient"}};
    char name[64], path[4096];
    snprintf(name, sizeof name, "phantom%llu-%d.png", (unsigned long long)patient, film + 1);
    if (!file_join(path, sizeof path, folder, name, err))
        return false;
    /* The command's seed in the upper half: no two data sets share a patient. */
    const uint64_t seed = ((uint64_t)options->seed << 32) + patient * PHANTOM_VIEWS + (uint64_t)film;
    struct image image;
    bool ok = phantom_draw(kind, seed, (int)options->size, (int)options->size, &image, err);
    if (ok && kind == PHANTOM_INVALID && options->colour_invalid && patient % 2)
        ok = phantom_tint(&image, seed, err);
    ok = ok && image_write_png(path, &image, texts, sizeof texts / sizeof *texts, err);
    image_fini(&image);
    return ok;
}

/* `count` pictures of one class for one part, by patients that are in no other: *patient is the last number
 * given out. */
static bool write_class(const struct options *options, int part, enum phantom_kind kind, uint64_t *patient,
                        struct error *err) {
    char folder[4096], above[4096];
    if (!file_join(above, sizeof above, options->folder, part_names[part], err) ||
        !file_join(folder, sizeof folder, above, phantom_name(kind), err) || !file_make_folders(folder, err))
        return false;
    for (int64_t done = 0; done < options->layout[part];) {
        const int films = 1 + (int)(++*patient % MAX_FILMS);
        for (int film = 0; film < films && done < options->layout[part]; film++, done++)
            if (!write_film(options, kind, *patient, film, folder, err))
                return false;
    }
    return true;
}

static bool write_all(const struct options *options, struct error *err) {
    uint64_t patient = 0;
    for (int part = 0; part < PARTS; part++)
        for (int kind = 0; kind < PHANTOM_KINDS; kind++)
            if (options->layout[part] > 0 &&
                !write_class(options, part, (enum phantom_kind)kind, &patient, err))
                return false;
    return true;
}

int command_phantom(int argc, char **argv) {
    struct options options = {.count = 100, .size = 224, .seed = 1};
    struct error err = {0};
    const int go_on = parse_options(argc, argv, &options, &err);
    if (go_on == 0)
        return 0;
    if (go_on < 0) {
        fprintf(stderr, "trainctl phantom: %s\n%s", err.message, usage);
        return 2;
    }
    share(&options);
    if (!write_all(&options, &err)) {
        fprintf(stderr, "trainctl phantom: %s\n", err.message);
        return 1;
    }
    printf("%lld synthetic pictures in %s\n",
           (long long)(PHANTOM_KINDS * (options.layout[0] + options.layout[1] + options.layout[2])),
           options.folder);
    return 0;
}
