/* threads.h: the worker pool. */
#ifndef FC_THREADS_H
#define FC_THREADS_H
#include <stdint.h>

typedef void fc_task(void *context, int64_t task, int slot);

/* Like
 *     for (task = 0; task < tasks; task++) run(context, task, 0);
 * but in any order and on up to fc_parallel_slots(tasks) threads. Tasks that run at the same time have different slots,
 * 0 <= slot < fc_parallel_slots(tasks). Runs serially inside another parallel call and when the pool is taken. */
void fc_parallel(int64_t tasks, fc_task *run, void *context);
int fc_parallel_slots(int64_t tasks);
#endif
