/* threads.h: the worker pool. */
#ifndef FC_THREADS_H
#define FC_THREADS_H
#include <stdint.h>

/* Of a library that is loaded later glibc makes a thread's variables when it first touches one, and ends the process
 * where there is no memory for that. Ours are 25 bytes, which fit in what every thread has for such libraries from its
 * start. */
#ifdef __GLIBC__
#define FC_THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define FC_THREAD_LOCAL _Thread_local
#endif

typedef void fc_task(void *context, int64_t task, int slot);

/* Like
 *     for (task = 0; task < tasks; task++) run(context, task, 0);
 * but in any order and on up to `slots` threads: each begins with its own stretch of neighbouring tasks, the same for
 * every call with as many, and then helps the others. Tasks that run at the same time have different slots, 0 <= slot <
 * slots. Runs serially inside another parallel call and when the pool is taken. A driver asks fc_parallel_slots once
 * and sizes its per-thread memory by the answer: the setting may change meanwhile. */
void fc_parallel_in(int slots, int64_t tasks, fc_task *run, void *context);
/* The same, but each thread walks its share of the tasks from the end: what the call before read last is still in its
 * cache. */
void fc_parallel_back(int slots, int64_t tasks, fc_task *run, void *context);
int fc_parallel_slots(int64_t tasks);
/* Into how many tasks a driver cuts its work, if that costs little: 1 for one thread. */
int64_t fc_parallel_tasks(void);
/* The jobs of the calling thread, which works on a task itself, have one slot, and blocks for one thread, until it is
 * off. */
void fc_work_alone(int on);
/* For tasks that ignore their slot. */
void fc_parallel(int64_t tasks, fc_task *run, void *context);
#endif
