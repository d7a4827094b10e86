/* A part answered by one rank and by three: the same answers, each image once. */
#include "trainerd/evaluate.h"
#include "common/base/digest.h"
#include "tests/unit/graph/network.h"
#include "tests/unit/trainerd/pictures.h"
#include "tests/unit/trainerd/ranks.h"

#include <math.h>

/** Made before the ranks are forked, which inherit it. */
static struct scene {
    struct test_folder *folder;
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct recipe recipe;
    struct dataset dataset;
    struct image_cache cache;
} scene;

/** One picture more than pictures_write makes, so that three ranks do not share the training part evenly. */
static void write_one_more(const struct test_folder *folder) {
    char name[128];
    struct image image = picture_draw(PICTURES);
    struct bytes png;
    picture_name(name, sizeof name, PICTURES);
    assert_true(image_encode_png(&image, NULL, 0, &png, NULL));
    folder_write(folder, name, png.data, png.size);
    free(png.data);
    image_fini(&image);
}

static int setup(void **state) {
    struct error err = {0};
    if (folder_setup(state) != 0)
        return -1;
    scene.folder = *state;
    scene.device = network_device();
    scene.graph = graph_create();
    struct layers layers = {scene.graph, &err, 1e-5f};
    struct convolution convolution = {4, 3, 2, 1, false};
    int x = graph_add_input(scene.graph, 1, PICTURE_SIDE, PICTURE_SIDE, &err);
    x = layer_batch_norm(&layers, "bn1", layer_convolution(&layers, "conv1", x, &convolution));
    layer_head(&layers, "fc", layer_activation(&layers, "relu1", x, ACTIVATION_RELU), 2, 0);
    scene.parameters = network_parameters(scene.graph, 4);
    scene.recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    pictures_write(scene.folder);
    write_one_more(scene.folder);
    scene.dataset = pictures_open(scene.folder);
    scene.cache = pictures_cache(scene.folder, &scene.dataset, &scene.recipe);
    return 0;
}

static int teardown(void **state) {
    image_cache_close(&scene.cache);
    dataset_close(&scene.dataset);
    parameters_destroy(scene.parameters);
    graph_destroy(scene.graph);
    device_close(scene.device);
    return folder_teardown(state);
}

static struct evaluate_spec spec_of(enum dataset_part part, int batch_size, struct collective *collective) {
    return (struct evaluate_spec){.graph = scene.graph, .parameters = scene.parameters, .device = scene.device,
                                  .dataset = &scene.dataset, .cache = &scene.cache, .recipe = &scene.recipe, .part = part,
                                  .batch_size = batch_size, .loader_threads = 1, .collective = collective};
}

static struct evaluation evaluate(enum dataset_part part, int batch_size) {
    struct evaluate_spec spec = spec_of(part, batch_size, NULL);
    struct evaluation evaluation;
    struct error err = {0};
    if (!evaluate_part(&spec, &evaluation, &err))
        fail_msg("%s", err.message);
    return evaluation;
}

static uint64_t hash(const void *data, size_t size) {
    struct digest digest = digest_of(data, size);
    uint64_t first;
    memcpy(&first, digest.bytes, sizeof first);
    return first;
}

static void leave_hashes(const struct evaluation *evaluation, uint64_t *out) {
    size_t count = (size_t)evaluation->count;
    out[0] = hash(evaluation->logits, count * (size_t)evaluation->classes * sizeof(float));
    out[1] = hash(evaluation->labels, count * sizeof(int32_t));
    out[2] = hash(evaluation->groups, count * sizeof(int32_t));
    out[3] = count;
}

static void answer_together(struct job *job, struct collective *collective) {
    struct evaluate_spec spec = spec_of(DATASET_TRAIN, 2 + job->rank, collective);
    struct evaluation evaluation;
    CHECK(evaluate_part(&spec, &evaluation, NULL));
    leave_hashes(&evaluation, job->board->hash[job->rank]);
    evaluation_fini(&evaluation);
}

static void three_ranks_answer_as_one(void **state) {
    (void)state;
    uint64_t expected[4];
    struct evaluation alone = evaluate(DATASET_TRAIN, 4);
    assert_true(alone.count % 3 != 0); /* uneven shards */
    leave_hashes(&alone, expected);
    evaluation_fini(&alone);
    for (int ranks = 1; ranks <= 3; ranks += 2) {
        struct board *board = run_well(ranks, answer_together);
        for (int rank = 0; rank < ranks; rank++)
            assert_memory_equal(board->hash[rank], expected, sizeof expected);
        board_destroy(board);
    }
}

static void answers_do_not_depend_on_the_batch_size(void **state) {
    (void)state;
    struct evaluation one = evaluate(DATASET_TRAIN, 1), many = evaluate(DATASET_TRAIN, 7);
    assert_int_equal(one.count, many.count);
    assert_memory_equal(one.logits, many.logits, (size_t)one.count * 2 * sizeof(float));
    bool differ = false;
    for (int64_t i = 2; i < one.count * 2; i += 2)
        differ |= one.logits[i] != one.logits[0];
    assert_true(differ);
    evaluation_fini(&one);
    evaluation_fini(&many);
}

static void rows_are_in_the_data_sets_order(void **state) {
    (void)state;
    struct evaluation evaluation = evaluate(DATASET_VALIDATION, 3);
    int64_t row = 0;
    for (int64_t i = 0; i < scene.dataset.count; i++) {
        if (scene.dataset.samples[i].part != DATASET_VALIDATION)
            continue;
        assert_int_equal(evaluation.labels[row], scene.dataset.samples[i].label);
        assert_int_equal(evaluation.groups[row++], scene.dataset.samples[i].group);
    }
    assert_int_equal(row, evaluation.count);
    evaluation_fini(&evaluation);
}

static void an_empty_part_is_an_error(void **state) {
    (void)state;
    struct evaluate_spec spec = spec_of(DATASET_TEST, 3, NULL);
    struct evaluation evaluation;
    struct error err = {0};
    assert_false(evaluate_part(&spec, &evaluation, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(evaluation.logits);
}

static void probabilities_are_the_softmax_at_that_temperature(void **state) {
    (void)state;
    struct evaluation evaluation = evaluate(DATASET_VALIDATION, 3);
    double *probabilities = calloc((size_t)evaluation.count * 2, sizeof *probabilities);
    struct predictions predictions = evaluation_predictions(&evaluation, 2.5, probabilities);
    assert_int_equal(predictions.count, evaluation.count);
    for (int64_t i = 0; i < evaluation.count; i++) {
        double gap = ((double)evaluation.logits[2 * i + 1] - evaluation.logits[2 * i]) / 2.5;
        assert_true(fabs(probabilities[2 * i + 1] - 1 / (1 + exp(-gap))) < 1e-9);
    }
    free(probabilities);
    evaluation_fini(&evaluation);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(three_ranks_answer_as_one), WITH(answers_do_not_depend_on_the_batch_size), WITH(rows_are_in_the_data_sets_order),
        WITH(an_empty_part_is_an_error), WITH(probabilities_are_the_softmax_at_that_temperature),
    };
    return digest_start(NULL) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
