#include "trainerd/config.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

struct fixture {
    struct config config;
    struct trainer_config values;
    struct error err;
    char path[64];
};

static bool load(struct fixture *fixture, const char *text, const char *override) {
    snprintf(fixture->path, sizeof fixture->path, "/tmp/thorax-config-%d.yaml", (int)getpid());
    FILE *file = fopen(fixture->path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    struct trainer_config_source source = {fixture->path, &override, override ? 1 : 0};
    bool ok = trainer_config_load(&source, &fixture->config, &fixture->values, &fixture->err);
    unlink(fixture->path);
    return ok;
}

static void every_default_fits_its_row(void **state) {
    (void)state;
    struct fixture fixture;
    assert_true(load(&fixture, "publish: {enabled: true}\n", NULL));
    assert_false(fixture.values.trains);
    assert_int_equal(fixture.config.problem_count, 0);
    config_fini(&fixture.config);
}

static void augment_defaults_are_those_of_the_library(void **state) {
    (void)state;
    struct fixture fixture;
    assert_true(load(&fixture, "train: {}\ndata: {directory: x}\n", NULL));
    struct augment expected = augment_default();
    assert_memory_equal(&fixture.values.augment, &expected, sizeof expected);
    assert_ptr_equal(trainer_config_augment(&fixture.values, "NORMAL"), &fixture.values.augment);
    config_fini(&fixture.config);
}

static void a_class_changes_only_what_it_names(void **state) {
    (void)state;
    struct fixture fixture;
    const char *text = "train:\ndata: {directory: x}\naugment: {gamma: 0.2}\naugment_class: {NORMAL: "
                       "{rotation_degrees: 30}}\n";
    assert_true(load(&fixture, text, NULL));
    assert_true(fixture.values.trains);
    const struct augment *normal = trainer_config_augment(&fixture.values, "NORMAL");
    assert_true(normal->rotation_degrees == 30.0f);
    assert_true(normal->gamma == 0.2f);
    assert_true(trainer_config_augment(&fixture.values, "PNEUMONIA")->rotation_degrees == 10.0f);
    config_fini(&fixture.config);
}

static void gradients_are_added_in_f32_unless_it_says_bf16(void **state) {
    (void)state;
    const char *const texts[] = {"train: {}\ndata: {directory: x}\n",
                                 "train: {}\ndata: {directory: x}\ncollective: {gradients: bf16}\n"};
    for (int i = 0; i < 2; i++) {
        struct fixture fixture;
        assert_true(load(&fixture, texts[i], NULL));
        assert_int_equal(fixture.values.collective.gradients, i ? PRECISION_BF16 : PRECISION_F32);
        config_fini(&fixture.config);
    }
}

static void keys_are_checked_against_each_other(void **state) {
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"log: {level: info}\n", "train: nothing to do"},
        {"train: {}\n", "data.directory: no data"},
        {"train: {}\ndata: {directory: x, npz: y}\n", ":2:22: data.npz: one source of data is enough"},
        {"train: {}\ndata: {npz: y, validation_list: z}\n", "data.validation_list: goes with data.directory"},
        {"train:\n  batch_size: 33\ndata: {directory: x}\ndevice: {ranks: 2}\n",
         ":2:3: train.batch_size: 33 images cannot be shared evenly by device.ranks 2 and train.parts 1"},
        {"train: {}\ndata: {directory: x}\ndevice: {ranks: 2}\ncollective: {name: solo}\n",
         "collective.name: solo is for one"},
        {"train: {}\ndata: {directory: x}\nmodel: {freeze_batch_norm: true, sync_batch_norm: true}\n",
         ":3:34: model.sync_batch_norm: and model.freeze_batch_norm exclude each other"},
        {"train: {}\ndata: {directory: x}\ndevice: {name: cuda, ranks: 2}\ncollective: {name: gloo}\n",
         ":4:14: collective.name: gloo adds what is in the memory of the host"},
        {"train: {}\ndata: {directory: x}\ncollective: {name: nccl}\n",
         "collective.name: nccl adds what is in the memory of GPUs"},
        {"train: {}\ndata: {directory: x}\ncollective: {gradients: f16}\n", ":3:14: collective.gradients: "},
        {"train: {}\ndata: {directory: x}\ncollective: {address: 10.0.0.1}\n", "trusted_network: true"},
        {"train: {}\ndata: {directory: x}\ncluster: {nodes: 2}\n", ":3:11: cluster.nodes: goes with cluster.coordinator"},
        {"train: {}\ndata: {directory: x}\ncluster: {node: 1}\n", ":3:11: cluster.node: goes with cluster.coordinator"},
        {"train: {}\ndata: {directory: x}\ncluster: {coordinator: localhost}\n",
         ":3:11: cluster.coordinator: expected HOST:PORT, found \"localhost\""},
        {"train: {}\ndata: {directory: x}\ncluster: {coordinator: 'localhost:7', nodes: 2, node: 2}\n",
         ":3:49: cluster.node: 2, but cluster.nodes is 2"},
        {"train: {}\ndata: {directory: x}\ncluster: {coordinator: 'gpu1:7'}\n",
         ":3:11: cluster.coordinator: gradients travel in the clear: say collective.trusted_network: true"},
        {"train: {}\ndata: {directory: x}\ncluster: {coordinator: 'localhost:7', nodes: 2}\ncollective: {name: solo}\n",
         "collective.name: solo is for one rank, cluster.nodes is 2"},
        {"train: {}\ndata: {directory: x}\ncluster: {coordinator: 'localhost:7', nodes: 2, min_ranks: 5}\ndevice: {ranks: 2}\n",
         ":3:49: cluster.min_ranks: 5, but device.ranks 2 and cluster.nodes 2 are 4 in all"},
        {"train: {}\ndata: {directory: x}\ncluster: {launcher: none, min_ranks: 2}\n",
         "cluster.min_ranks: 2, but device.ranks 1"},
        {"train: {}\ndata: {directory: x}\nsecurity: {key: own.key}\ncluster: {secret: s, server_key: its.pub}\n",
         ":4:22: cluster.server_key: and cluster.secret exclude each other"},
        {"train: {}\ndata: {directory: x}\ncluster: {server_key: its.pub}\n", "cluster.server_key: it needs security.key"},
        {"train: {}\ndata: {directory: x}\nsecurity: {key: own.key}\ncluster: {coordinator: '[::1]:7', server_key: its.pub}\n",
         "cluster.server_key: the coordinator has to know the others"},
        {"train: {epochs: 2}\ndata: {directory: x}\nschedule: {warmup_epochs: 3}\n",
         "schedule.warmup_epochs: longer"},
        {"train: {}\ndata: {directory: x, classes: {A: a, PNEUMONIA: p}}\naugment_class: {B: {gamma: 0}}\n",
         ":3:1: augment_class: \"B\" is no class"},
        {"train: {}\ndata: {directory: x, classes: {A: a, B: b}}\n",
         "publish.operating_point.class: \"PNEUMONIA\" is no class"},
        {"train: {}\ndata: {directory: x, classes: {PNEUMONIA: p, N: n}, class_names: [PNEUMONIA]}\n",
         "data.class_names: does not name \"N\""},
        {"train: {}\ndata: {directory: x}\nmodel: {mean: [0.5]}\n", "go together"},
        {"train: {}\ndata: {directory: x}\nmodel: {input_channels: 3, mean: [0.5], stddev: [1, 1, 1]}\n",
         "model.mean: 1 values for 3 input channels"},
        {"train: {}\ndata: {directory: x}\nmodel: {input_channels: 2}\n", "model.input_channels: 1 or 3"},
        {"train: {}\ndata: {directory: x}\naugment: {crop_area_min: 0.9, crop_area_max: 0.5}\n",
         "crop_area_min is above"},
        {"train: {}\ndata: {directory: x}\nrun: {name: ../x}\n", ":3:7: run.name: expected 1 to 100 letters"},
        {"train: {}\ndata: {directory: x}\nrun: {name: .}\n", "run.name"},
        {"publish: {enabled: true, name: a b}\n", "publish.name"},
        {"publish: {enabled: true, blobs: 'tcp://127.0.0.1:5701'}\n",
         "publish.blobs: tcp://127.0.0.1:5701 is taken"},
        {"publish: {enabled: true}\nintended_use: {age_min_years: 7, age_max_years: 5}\n",
         "age_min_years: above age_max_years 5"},
        {"publish: {enabled: true}\nsecurity: {key: own.key}\n",
         ":2:12: security.key: tcp://127.0.0.1:5701 is bound with it: say who may talk to it"},
        {"train: {}\ndata: {directory: x}\nsecurity: {key: own.key}\npublish: {to: 'tcp://10.0.0.1:5702'}\n",
         "publish.server_key: missing: with security.key tcp://10.0.0.1:5702 is encrypted"},
        {"train: {}\ndata: {directory: x}\npublish: {to: 'tcp://10.0.0.1:5702', server_key: its.pub}\n",
         ":3:38: publish.server_key: it needs security.key"},
        {"publish: {enabled: true}\nsecurity: {allow: list}\n", ":2:12: security.allow: an allow-list needs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture fixture;
        bool ok = load(&fixture, cases[i].text, NULL);
        if (ok || fixture.config.problem_count != 1 ||
            !strstr(fixture.config.first_problem->text, cases[i].problem))
            fail_msg("case %zu: %d problems, %s", i, fixture.config.problem_count,
                     ok ? "" : fixture.err.message);
        config_fini(&fixture.config);
    }
}

static void mistakes_in_values_and_between_keys_come_together(void **state) {
    (void)state;
    struct fixture fixture;
    assert_false(load(&fixture, "train: {epochs: x}\nlog: {levle: info}\n", NULL));
    assert_int_equal(fixture.config.problem_count, 3); /* and there is no data */
    config_fini(&fixture.config);
}

static void several_nodes_may_be_described(void **state) {
    (void)state;
    static const char *const texts[] = {
        "cluster: {coordinator: 'gpu1.site:15000', nodes: 2, node: 1, min_ranks: 4}\ncollective: {trusted_network: true}\n"
        "device: {ranks: 2}\n",
        "cluster: {coordinator: '127.0.0.1:15000', nodes: 2, min_ranks: 9}\ndevice: {ranks: 0}\n",
        "cluster: {min_ranks: 9}\n", /* a launcher may have started so many */
        "cluster: {coordinator: '[::1]:7', server_key: its.pub, nodes: 2, node: 1}\nsecurity: {key: own.key}\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct fixture fixture;
        char text[400];
        snprintf(text, sizeof text, "train: {}\ndata: {directory: x}\n%s", texts[i]);
        if (!load(&fixture, text, NULL))
            fail_msg("case %zu: %s", i, fixture.err.message);
        config_fini(&fixture.config);
    }
}

static void overrides_take_part(void **state) {
    (void)state;
    struct fixture fixture;
    assert_true(load(&fixture, "train: {}\n", "data.directory=/data"));
    assert_string_equal(fixture.values.data.directory, "/data");
    config_fini(&fixture.config);
    assert_false(load(&fixture, "train: {}\ndata: {directory: x}\n", "device.ranks=3"));
    assert_non_null(
        strstr(fixture.err.message, "train.batch_size: 64 images cannot be shared evenly by device.ranks 3 and train.parts 1"));
    config_fini(&fixture.config);
    assert_false(load(&fixture, "train: {}\n", "nonsense"));
    config_fini(&fixture.config);
}

static void the_examples_are_right(void **state) {
    (void)state;
    DIR *folder = opendir("configs/trainerd");
    assert_non_null(folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strstr(entry->d_name, ".yaml"))
            continue;
        char path[400];
        snprintf(path, sizeof path, "configs/trainerd/%s", entry->d_name);
        struct fixture fixture;
        struct trainer_config_source source = {.path = path};
        if (!trainer_config_load(&source, &fixture.config, &fixture.values, &fixture.err))
            fail_msg("%s", fixture.err.message);
        config_fini(&fixture.config);
        count++;
    }
    closedir(folder);
    assert_true(count >= 4);
}

static void what_is_in_force_reads_back(void **state) {
    (void)state;
    struct fixture first, second;
    const char *text = "train: {}\ndata: {directory: '/a b/$$x', classes: {NORMAL: [n], PNEUMONIA: [p, q]}}\n"
                       "augment_class: {NORMAL: {gamma: 0.3}}\n";
    assert_true(load(&first, text, NULL));
    char *printed = NULL, *again = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&printed, &size);
    schema_print_yaml(&trainer_config_schema, &first.values, out);
    fclose(out);
    assert_true(load(&second, printed, NULL));
    out = open_memstream(&again, &size);
    schema_print_yaml(&trainer_config_schema, &second.values, out);
    fclose(out);
    assert_string_equal(printed, again);
    assert_string_equal(second.values.data.directory, "/a b/$x");
    free(printed);
    free(again);
    config_fini(&first.config);
    config_fini(&second.config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_fits_its_row),
        cmocka_unit_test(augment_defaults_are_those_of_the_library),
        cmocka_unit_test(a_class_changes_only_what_it_names),
        cmocka_unit_test(gradients_are_added_in_f32_unless_it_says_bf16),
        cmocka_unit_test(keys_are_checked_against_each_other),
        cmocka_unit_test(mistakes_in_values_and_between_keys_come_together),
        cmocka_unit_test(several_nodes_may_be_described),
        cmocka_unit_test(overrides_take_part),
        cmocka_unit_test(the_examples_are_right),
        cmocka_unit_test(what_is_in_force_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
