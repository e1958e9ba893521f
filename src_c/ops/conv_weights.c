/* conv_weights.c: weights into the panels of the tile kernel. */
#include "conv.h"

#include <string.h>

enum { PIECE = 64 /* columns transposed at a time: 64 x 32 floats = 8 KiB, a quarter of L1 */ };

/* One copy per element size; the compiler cannot vectorise the gather, so 8 columns at a time keep 8 lines in use. */
#define PACK(type)                                                                                                     \
    for (int64_t k0 = 0; k0 < columns; k0 += 8)                                                                        \
        for (int64_t c = 0; c < channels; c++)                                                                         \
            for (int64_t u = 0; u < p->kernel_h; u++)                                                                  \
                for (int64_t v = 0; v < p->kernel_w; v++) {                                                            \
                    const type *f = (const type *)from + c * p->weight_c + u * p->weight_u + v * p->weight_v;          \
                    type *t = (type *)to + ((u * p->kernel_w + v) * channels + c) * width;                             \
                    for (int64_t k = k0; k < fc_min(k0 + 8, columns); k++)                                             \
                        t[k] = f[k * p->weight_k];                                                                     \
                }

static void pack_any(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    if (p->item == 4) {
        PACK(uint32_t)
    } else {
        PACK(uint64_t)
    }
}

/* weight[k] is one run over (c, u, v): transpose pieces of it in registers, then put each row where its tap belongs. */
static void pack_runs(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    const int64_t item = (int64_t)p->item, taps = p->kernel_h * p->kernel_w, length = channels * taps;
    if (taps == 1) {
        p->k->transpose(columns, channels, from, p->weight_k, to, width);
        return;
    }
    _Alignas(64) char piece[PIECE * 32 * sizeof(double)];
    for (int64_t j0 = 0; j0 < length; j0 += PIECE) {
        const int64_t count = fc_min(PIECE, length - j0);
        p->k->transpose(columns, count, from + j0 * item, p->weight_k, piece, width);
        int64_t c = j0 / taps, tap = j0 % taps;
        for (int64_t j = 0; j < count; j++) {
            memcpy(to + (tap * channels + c) * width * item, piece + j * width * item, (size_t)(columns * item));
            if (++tap == taps)
                tap = 0, c++;
        }
    }
}

void fc_pack_weights(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    const int run = (p->kernel_w == 1 || p->weight_v == 1) && (p->kernel_h == 1 || p->weight_u == p->kernel_w) &&
                    p->weight_c == p->kernel_h * p->kernel_w;
    if (run && columns >= 4)
        pack_runs(p, from, channels, columns, to, width);
    else
        pack_any(p, from, channels, columns, to, width);
}
