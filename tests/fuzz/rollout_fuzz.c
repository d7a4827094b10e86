/* Any bytes as the record of a rollout: it is refused, or what was read can be written, read again, ticked and told about. */
#include "trainerd/rollout.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct rollout rollout, again;
    struct members members;
    struct digest target;
    members_init(&members, &(struct members_spec){300, 5000, 0});
    struct rollout_view view = {&members, 1000, 1700000000000, true};
    if (!rollout_load(&rollout, data, size, NULL))
        return 0;
    struct packed packed = rollout_pack(&rollout);
    if (packed.data && !rollout_load(&again, packed.data, packed.size, NULL))
        abort();
    free(packed.data);
    rollout_tick(&rollout, &view);
    if (rollout_live(&rollout))
        rollout_target(&rollout, "m00", &target);
    rollout_fini(&rollout);
    rollout_fini(&again);
    return 0;
}
