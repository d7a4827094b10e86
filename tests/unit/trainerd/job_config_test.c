/* Which keys are part of a run's identity, and which every node has to have alike. */
#include "tests/unit/trainerd/folder.h"
#include "trainerd/job.h"

enum what { OF_A_NODE, OF_A_RUN, DECISIVE };

static const struct {
    const char *setting;
    enum what what;
} cases[] = {
    {"run.directory=elsewhere", OF_A_NODE},
    {"data.directory=elsewhere", OF_A_NODE},
    {"data.invalid=elsewhere", OF_A_NODE},
    {"data.validation_list=list", OF_A_NODE},
    {"data.cache_dir=elsewhere", OF_A_NODE},
    {"data.loader_threads=7", OF_A_NODE},
    {"data.prefetch=7", OF_A_NODE},
    {"device.ranks=4", OF_A_NODE},
    {"device.threads=3", OF_A_NODE},
    {"device.graphs=false", OF_A_NODE},
    {"device.augment=false", OF_A_NODE},
    {"device.algorithm_cache=file", OF_A_NODE},
    {"collective.address=127.0.0.2", OF_A_NODE},
    {"collective.timeout_seconds=5", OF_A_NODE},
    {"collective.trusted_network=true", OF_A_NODE},
    {"cluster.coordinator=127.0.0.1:5000", OF_A_NODE},
    {"cluster.restarts=1", OF_A_NODE},
    {"publish.store=elsewhere", OF_A_NODE},
    {"report.bootstrap_samples=1", OF_A_NODE},
    {"security.insecure=true", OF_A_NODE},
    {"http.bind=127.0.0.1:5", OF_A_NODE},
    {"log.level=debug", OF_A_NODE},
    {"train.parts=2", OF_A_RUN},
    {"checkpoint.every_steps=5", OF_A_RUN},
    {"checkpoint.replicate=true", OF_A_RUN},
    {"train.batch_size=32", DECISIVE},
    {"train.epochs=3", DECISIVE},
    {"optimizer.learning_rate=0.01", DECISIVE},
    {"optimizer.scaling=linear", DECISIVE},
    {"model.sync_batch_norm=true", DECISIVE},
    {"augment.gamma=0.1", DECISIVE},
    {"run.seed=5", DECISIVE},
    {"device.tf32=true", DECISIVE},
    /* How sums over ranks are rounded. */
    {"collective.gradients=bf16", DECISIVE},
    {"collective.bucket_bytes=1MiB", DECISIVE},
    {"collective.name=gloo", DECISIVE},
};

/** The decisive text, the shared one, and all. */
struct texts {
    char *decisive, *shared, *all;
};

static struct texts texts_of(struct test_folder *folder, const char *setting) {
    struct config config;
    struct trainer_config values;
    struct error err = {0};
    struct texts texts;
    size_t size;
    folder_text(folder, "run.yaml", "train: {}\ndata: {directory: here}\n");
    struct trainer_config_source source = {folder_path(folder, "run.yaml"), &setting, setting ? 1 : 0};
    folder->used = 0;
    if (!trainer_config_load(&source, &config, &values, &err))
        fail_msg("%s: %s", setting, err.message);
    free((char *)source.path);
    texts.decisive = job_decisive_config(&values, NULL);
    texts.shared = job_shared_config(&values, NULL);
    FILE *out = open_memstream(&texts.all, &size);
    schema_print_yaml(&trainer_config_schema, &values, out);
    fclose(out);
    config_fini(&config);
    assert_non_null(texts.decisive);
    assert_non_null(texts.shared);
    return texts;
}

static void texts_fini(struct texts *texts) {
    free(texts->decisive);
    free(texts->shared);
    free(texts->all);
}

static void each_key_counts_where_it_matters(void **state) {
    struct texts plain = texts_of(*state, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct texts other = texts_of(*state, cases[i].setting);
        bool decides = strcmp(other.decisive, plain.decisive) != 0, shared = strcmp(other.shared, plain.shared) != 0;
        if (strcmp(other.all, plain.all) == 0)
            fail_msg("%s is the default", cases[i].setting);
        if (decides != (cases[i].what == DECISIVE) || shared != (cases[i].what != OF_A_NODE))
            fail_msg("%s: decisive %d, shared %d", cases[i].setting, decides, shared);
        texts_fini(&other);
    }
    texts_fini(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_key_counts_where_it_matters, folder_setup, folder_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
