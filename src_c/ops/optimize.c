/* optimize.c: steps of optimizers over many parameters at once, cut into tasks. */
#include "../kernels/kernels.h"
#include "../threads.h"

enum {
    TASK = 1 << 15, /* entries per task: 4 float32 arrays of 128 KiB, about 20 us */
};

typedef struct {
    const fc_optimize_kernels *kernels;
    int64_t item;
    const fc_sgd *sgd;
    const fc_adam *adam;
    const fc_update *updates;
    int64_t count;
} step_call;

static int64_t tasks_of(const fc_update *u) { return (u->count + TASK - 1) / TASK; }

static void step_task(void *context, int64_t task, int slot)
{
    (void)slot;
    const step_call *call = context;
    int64_t low = 0, high = call->count; /* the last update whose first task is not after this one */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (call->updates[middle].first_task <= task)
            low = middle;
        else
            high = middle;
    }
    const fc_update *u = &call->updates[low];
    const int64_t begin = (task - u->first_task) * TASK, rest = u->count - begin, at = begin * call->item;
    const int64_t count = rest < TASK ? rest : TASK;
    char *data = (char *)u->data + at, *first = u->first ? (char *)u->first + at : NULL;
    if (call->sgd)
        call->kernels->sgd(count, call->sgd, u->numbers[0], data, (const char *)u->grad + at, first);
    else
        call->kernels->adam(count, call->adam, u->numbers[0], u->numbers[1], data, (const char *)u->grad + at, first,
                            (char *)u->second + at);
}

static void run(fc_dtype dtype, step_call call, fc_update *updates, int64_t count)
{
    call.kernels = fc_get_kernels(dtype)->optimize;
    call.item = dtype == FC_F32 ? 4 : 8;
    int64_t tasks = 0, used = 0;
    for (int64_t i = 0; i < count; i++)
        if (updates[i].count > 0) {
            updates[used] = updates[i];
            updates[used].first_task = tasks;
            tasks += tasks_of(&updates[used++]);
        }
    call.updates = updates;
    call.count = used;
    fc_parallel(tasks, step_task, &call);
}

void fc_sgd_step(fc_dtype dtype, const fc_sgd *sgd, fc_update *updates, int64_t count)
{
    run(dtype, (step_call){.sgd = sgd}, updates, count);
}

void fc_adam_step(fc_dtype dtype, const fc_adam *adam, fc_update *updates, int64_t count)
{
    run(dtype, (step_call){.adam = adam}, updates, count);
}
