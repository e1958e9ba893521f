/* dispatch.c: which instruction set runs: the first of the list that the machine has, or the one asked for. */
#include "../fastconv.h"
#include "../kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

static bool always(void) { return true; }
#if defined(__x86_64__)
/* GCC's and clang's checks include the operating system's support (XCR0). */
static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
/* clang 14 does not know "f16c" */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
           has_f16c();
}
#endif

typedef struct {
    const char *name;
    const fc_kernels *by_dtype[2]; /* indexed by fc_dtype */
    bool (*available)(void);
} candidate;

static const candidate candidates[] = {
#if defined(__x86_64__)
    {"avx512", {&fc_kernels_avx512_f32, &fc_kernels_avx512_f64}, has_avx512},
    {"avx2", {&fc_kernels_avx2_f32, &fc_kernels_avx2_f64}, has_avx2},
#endif
    {"generic", {&fc_kernels_generic_f32, &fc_kernels_generic_f64}, always},
};
enum { CANDIDATES = sizeof candidates / sizeof candidates[0] };

static _Atomic(const candidate *) current;

static const candidate *best(void)
{
    int i = 0;
    while (!candidates[i].available())
        i++;
    return &candidates[i];
}

static const candidate *selected(void)
{
    const candidate *isa = atomic_load_explicit(&current, memory_order_acquire);
    if (!isa) {
        isa = best();
        atomic_store_explicit(&current, isa, memory_order_release);
    }
    return isa;
}

const fc_kernels *fc_get_kernels(fc_dtype dtype) { return selected()->by_dtype[dtype]; }
const char *fc_isa(void) { return selected()->name; }

const char *const *fc_isa_names(int *count)
{
    static const char *names[CANDIDATES];
    int found = 0;
    for (int i = 0; i < CANDIDATES; i++)
        if (candidates[i].available())
            names[found++] = candidates[i].name;
    *count = found;
    return names;
}

int fc_use_isa(const char *name)
{
    for (int i = 0; i < CANDIDATES; i++)
        if (strcmp(name, candidates[i].name) == 0 && candidates[i].available()) {
            atomic_store_explicit(&current, &candidates[i], memory_order_release);
            return 0;
        }
    return -1;
}
