/* elementwise.c: elementwise functions over contiguous values, cut into tasks. */
#include "../kernels/kernels.h"
#include "../threads.h"
#include "windows.h"

enum {
    CHEAP = 1 << 16,     /* values per task of a comparison: 256 KiB, about 20 us */
    EXPENSIVE = 1 << 14, /* of an exponential */
};

typedef struct {
    const fc_elementwise_kernels *kernels;
    fc_elementwise function;
    int adds; /* grad_y + x instead */
    double alpha;
    int64_t count, step, item;
    const char *grad_y, *x;
    char *y;
    int stream;
} elementwise_call;

static void elementwise_task(void *context, int64_t task, int slot)
{
    (void)slot;
    const elementwise_call *call = context;
    const int64_t begin = task * call->step, rest = call->count - begin;
    const int64_t count = rest < call->step ? rest : call->step, at = begin * call->item;
    if (call->adds)
        call->kernels->add(count, call->grad_y + at, call->x + at, call->y + at);
    else if (call->grad_y)
        call->kernels->grad(call->function, count, call->alpha, call->grad_y + at, call->x + at, call->y + at,
                            call->stream);
    else
        call->kernels->map(call->function, count, call->alpha, call->x + at, call->y + at, call->stream);
}

static void run(fc_dtype dtype, elementwise_call call)
{
    call.kernels = fc_get_kernels(dtype)->elementwise;
    call.item = dtype == FC_F32 ? 4 : 8;
    call.step = call.function <= FC_LEAKY_RELU ? CHEAP : EXPENSIVE;
    const int64_t size = call.count * (int64_t)call.item;
    call.stream = call.y != call.x && call.y != call.grad_y && fc_should_stream(size, call.grad_y ? 2 * size : size) &&
                  (uintptr_t)call.y % FC_STREAM_ALIGN == 0;
    fc_parallel((call.count + call.step - 1) / call.step, elementwise_task, &call);
}

void fc_elementwise_map(fc_dtype dtype, fc_elementwise function, int64_t count, double alpha, const void *x, void *y)
{
    run(dtype, (elementwise_call){.function = function, .alpha = alpha, .count = count, .x = x, .y = y});
}

void fc_elementwise_grad(fc_dtype dtype, fc_elementwise function, int64_t count, double alpha, const void *grad_y,
                         const void *x, void *grad_x)
{
    run(dtype, (elementwise_call){
                   .function = function, .alpha = alpha, .count = count, .grad_y = grad_y, .x = x, .y = grad_x});
}

void fc_elementwise_add(fc_dtype dtype, int64_t count, const void *a, const void *b, void *y)
{
    run(dtype, (elementwise_call){.function = FC_RELU, .adds = 1, .count = count, .grad_y = a, .x = b, .y = y});
}
