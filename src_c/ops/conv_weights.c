/* conv_weights.c: weights into the panels of the tile kernel, and their gradients out of them. */
#include "conv.h"

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

/* weight[.][c] of neighbouring output channels are runs of taps that follow each other (gradients of the input, where
 * the roles of the channels are swapped); taps may run backwards. One input channel at a time. */
static void pack_taps(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    const int64_t item = (int64_t)p->item, taps = p->kernel_h * p->kernel_w,
                  backwards = p->weight_v < 0 || p->weight_u < 0;
    const int64_t tap_pitch = channels * width;
    for (int64_t c = 0; c < channels; c++) {
        const char *f = from + (c * p->weight_c - (backwards ? taps - 1 : 0)) * item;
        char *t = to + (c * width + (backwards ? (taps - 1) * tap_pitch : 0)) * item;
        p->k->split_taps(columns, taps, f, t, backwards ? -tap_pitch : tap_pitch);
    }
}

/* Output channels lie next to each other: rows are copied. */
static void pack_rows(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    const int64_t item = (int64_t)p->item;
    for (int64_t u = 0; u < p->kernel_h; u++)
        for (int64_t v = 0; v < p->kernel_w; v++, to += channels * width * item)
            p->k->copy_rows(channels, columns, from + (u * p->weight_u + v * p->weight_v) * item, p->weight_c, to,
                            width);
}

void fc_pack_weights(const fc_problem *p, const char *from, int64_t channels, int64_t columns, char *to, int64_t width)
{
    const int64_t taps = p->kernel_h * p->kernel_w, direction = p->weight_v < 0 || p->weight_u < 0 ? -1 : 1;
    const int taps_run =
        (p->kernel_w == 1 || p->weight_v == direction) && (p->kernel_h == 1 || p->weight_u == direction * p->kernel_w);
    if (p->weight_k == 1)
        pack_rows(p, from, channels, columns, to, width);
    else if (taps_run && (direction > 0 || taps == 1) && p->weight_c == taps)
        p->k->pack_runs(columns, channels, taps, from, p->weight_k, to, width);
    else if (taps_run && p->weight_k == taps)
        pack_taps(p, from, channels, columns, to, width);
    else
        pack_any(p, from, channels, columns, to, width);
}

#define UNPACK(type)                                                                                                   \
    for (int64_t c = 0; c < channels; c++)                                                                             \
        for (int64_t u = 0; u < p->kernel_h; u++)                                                                      \
            for (int64_t v = 0; v < p->kernel_w; v++)                                                                  \
                for (int64_t k = 0; k < columns; k++)                                                                  \
                    ((type *)to)[k * p->weight_k + c * p->weight_c + u * p->weight_u + v * p->weight_v] =              \
                        ((const type *)panel)[(u * p->kernel_w + v) * tap_pitch + c * width + k];

void fc_unpack_weights(const fc_problem *p, int64_t group, int64_t k0, int64_t columns, int64_t c0, int64_t channels,
                       const char *panel, int64_t width, int64_t tap_pitch)
{
    const int64_t taps = p->kernel_h * p->kernel_w;
    char *to = (char *)p->weight + (group * p->weight_g + k0 * p->weight_k + c0 * p->weight_c) * (int64_t)p->item;
    if (p->weight_c == taps && (p->kernel_w == 1 || p->weight_v == 1) &&
        (p->kernel_h == 1 || p->weight_u == p->kernel_w))
        p->k->unpack_runs(columns, channels, taps, panel, width, tap_pitch, to, p->weight_k);
    else if (p->weight_k == 1 && taps == 1)
        p->k->copy_rows(channels, columns, panel, width, to, p->weight_c);
    else if (p->item == 4) {
        UNPACK(float)
    } else {
        UNPACK(double)
    }
}
