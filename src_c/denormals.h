/* denormals.h: the two control bits of a thread that make denormals zero, as inputs and as results. */
#ifndef FC_DENORMALS_H
#define FC_DENORMALS_H
#include <stdint.h>

#if defined(__SSE2__)
enum { FC_FLUSH_BITS = 1 << 15 | 1 << 6 }; /* MXCSR: flush to zero, denormals are zero */
static inline uint64_t fc_control(void) { return __builtin_ia32_stmxcsr(); }
static inline void fc_set_control(uint64_t bits) { __builtin_ia32_ldmxcsr((unsigned)bits); }
#elif defined(__aarch64__)
enum { FC_FLUSH_BITS = 1 << 24 }; /* FPCR: flush to zero */
static inline uint64_t fc_control(void)
{
    uint64_t bits;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(bits));
    return bits;
}
static inline void fc_set_control(uint64_t bits) { __asm__ __volatile__("msr fpcr, %0" : : "r"(bits)); }
#else
enum { FC_FLUSH_BITS = 0 };
static inline uint64_t fc_control(void) { return 0; }
static inline void fc_set_control(uint64_t bits) { (void)bits; }
#endif

/* Whether the calling thread flushes denormals. */
static inline int fc_flushes(void) { return FC_FLUSH_BITS != 0 && (fc_control() & FC_FLUSH_BITS) == FC_FLUSH_BITS; }
static inline void fc_set_flush(int on)
{
    const uint64_t others = fc_control() & ~(uint64_t)FC_FLUSH_BITS;
    fc_set_control(on ? others | FC_FLUSH_BITS : others);
}
#endif
