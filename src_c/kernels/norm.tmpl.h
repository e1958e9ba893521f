/* norm.tmpl.h: batch normalisation: sums over pixels, and (norm_map.tmpl.h) maps by channel.
 *
 * Sums go over few pixels (the driver's chunks), pixels four at a time: sum += (d0 + d1) + (d2 + d3). This order belongs
 * to a channel and not to the blocking, so any grouping of channels gives the same bits.
 */
#define FC_STREAMS 4 /* vectors of channels at a time: 4 x 2 accumulators + 4 pivots + 4 loads = 16 registers */
#define FC_SUB 16    /* pixels between two visits of the accumulators in memory: rows stay a sequential read */
#define FC_EACH_STREAM _Pragma("GCC unroll 4") for (int s = 0; s < streams; s++)
#define FC_LOAD(p) (tail ? vload_tail(p, tail) : vload(p))
#define FC_STORE(p, v)                                                                                                 \
    do {                                                                                                               \
        if (tail)                                                                                                      \
            vstore_tail(p, v, tail);                                                                                   \
        else                                                                                                           \
            vstore(p, v);                                                                                              \
    } while (0)

#define FC_STREAM(p, v)                                                                                                \
    do {                                                                                                               \
        if (stream && !tail)                                                                                           \
            vstream(p, v);                                                                                             \
        else                                                                                                           \
            FC_STORE(p, v);                                                                                            \
    } while (0)

/* Channels in groups of 4 vectors, 1 vector and a tail; BLOCK(c, streams, tail). */
#define FC_CHANNELS(BLOCK)                                                                                             \
    do {                                                                                                               \
        int64_t c = 0;                                                                                                 \
        for (; c + FC_STREAMS * VL <= channels; c += FC_STREAMS * VL)                                                  \
            BLOCK(c, FC_STREAMS, 0);                                                                                   \
        for (; c + VL <= channels; c += VL)                                                                            \
            BLOCK(c, 1, 0);                                                                                            \
        if (c < channels)                                                                                              \
            BLOCK(c, 1, (int)(channels - c));                                                                          \
    } while (0)

/* ---- statistics --------------------------------------------------------------------------------------------------*/
INLINE void N(norm_sums_block)(int64_t pixels, const T *x, int64_t pixel, const T *pivot_, T *sum_, T *square_,
                               int first, const int streams, const int tail)
{
    vec sum[FC_STREAMS], square[FC_STREAMS], pivot[FC_STREAMS];
    FC_EACH_STREAM
    {
        pivot[s] = FC_LOAD(pivot_ + s * VL);
        sum[s] = first ? (vec){0} : FC_LOAD(sum_ + s * VL);
        square[s] = first ? (vec){0} : FC_LOAD(square_ + s * VL);
    }
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4, x += 4 * pixel)
        FC_EACH_STREAM
        {
            const vec a = FC_LOAD(x + s * VL) - pivot[s], b = FC_LOAD(x + pixel + s * VL) - pivot[s];
            const vec c = FC_LOAD(x + 2 * pixel + s * VL) - pivot[s], d = FC_LOAD(x + 3 * pixel + s * VL) - pivot[s];
            sum[s] += (a + b) + (c + d);
            square[s] += vmuladd(a, a, b * b) + vmuladd(c, c, d * d);
        }
    for (; p < pixels; p++, x += pixel)
        FC_EACH_STREAM
        {
            const vec a = FC_LOAD(x + s * VL) - pivot[s];
            sum[s] += a;
            square[s] = vmuladd(a, a, square[s]);
        }
    FC_EACH_STREAM
    {
        FC_STORE(sum_ + s * VL, sum[s]);
        FC_STORE(square_ + s * VL, square[s]);
    }
}

/* The pivot: the mean of the first pixels. */
INLINE void N(norm_pivot_block)(int64_t pixels, const T *x, int64_t pixel, T *pivot_, const int streams, const int tail)
{
    vec pivot[FC_STREAMS];
    FC_EACH_STREAM pivot[s] = (vec){0};
    for (int64_t p = 0; p < pixels; p++, x += pixel)
        FC_EACH_STREAM pivot[s] += FC_LOAD(x + s * VL);
    FC_EACH_STREAM FC_STORE(pivot_ + s * VL, pivot[s] * vset1(1 / (T)pixels));
}

static void N(norm_sums)(int64_t pixels, const void *x_, int64_t pixel, int64_t channels, void *pivot_, void *sum_,
                         void *square_)
{
    const T *x = x_;
    T *pivot = pivot_, *sum = sum_, *square = square_;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_pivot_block)(pixels < FC_SUB ? pixels : FC_SUB, x + c, pixel, pivot + c, streams, tail)
    FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_sums_block)(count, x + p * pixel + c, pixel, pivot + c, sum + c, square + c, p == 0, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

/* ---- the gate of the gradient ------------------------------------------------------------------------------------*/
/* Where t <= low or t >= high; false where t or the bound is NaN. */
INLINE vmask N(norm_closed)(vec t, vec low, vec high) { return vor(vat_least(low, t), vat_least(t, high)); }

INLINE void N(norm_grad_sums_block)(int64_t pixels, const fc_norm_channels *by, fc_norm_pixels g_, fc_norm_pixels x_,
                                    fc_norm_pixels y_, fc_norm_pixels gated_, int64_t c, T *sum_, T *product_,
                                    int first, const fc_norm_gate gate, const int stream, const int streams,
                                    const int tail)
{
    vec sum[FC_STREAMS], product[FC_STREAMS], centre[FC_STREAMS], gain[FC_STREAMS], shift[FC_STREAMS];
    const vec low = vset1((T)by->low), high = vset1((T)by->high);
    FC_EACH_STREAM
    {
        centre[s] = FC_LOAD((const T *)by->centre + c + s * VL);
        gain[s] = gate == FC_GATE_INPUT ? FC_LOAD((const T *)by->gain + c + s * VL) : (vec){0};
        shift[s] = gate == FC_GATE_INPUT ? FC_LOAD((const T *)by->shift + c + s * VL) : (vec){0};
        sum[s] = first ? (vec){0} : FC_LOAD(sum_ + c + s * VL);
        product[s] = first ? (vec){0} : FC_LOAD(product_ + c + s * VL);
    }
    const T *g = (const T *)g_.data + c, *x = (const T *)x_.data + c;
    const T *y = gate == FC_GATE_OUTPUT ? (const T *)y_.data + c : NULL;
    T *gated = gate == FC_GATE_OUTPUT ? (T *)gated_.data + c : NULL;
    int64_t p = 0;
    for (; p + 2 <= pixels; p += 2, g += 2 * g_.pixel, x += 2 * x_.pixel) {
        FC_EACH_STREAM
        {
            vec a = FC_LOAD(g + s * VL), b = FC_LOAD(g + g_.pixel + s * VL);
            const vec da = FC_LOAD(x + s * VL) - centre[s], db = FC_LOAD(x + x_.pixel + s * VL) - centre[s];
            if (gate == FC_GATE_INPUT) {
                a = vpick(N(norm_closed)(vmuladd(da, gain[s], shift[s]), low, high), (vec){0}, a);
                b = vpick(N(norm_closed)(vmuladd(db, gain[s], shift[s]), low, high), (vec){0}, b);
            }
            if (gate == FC_GATE_OUTPUT) {
                a = vpick(N(norm_closed)(FC_LOAD(y + s * VL), low, high), (vec){0}, a);
                b = vpick(N(norm_closed)(FC_LOAD(y + y_.pixel + s * VL), low, high), (vec){0}, b);
                FC_STREAM(gated + s * VL, a);
                FC_STREAM(gated + gated_.pixel + s * VL, b);
            }
            sum[s] += a + b;
            product[s] += vmuladd(a, da, b * db);
        }
        if (gate == FC_GATE_OUTPUT)
            y += 2 * y_.pixel, gated += 2 * gated_.pixel;
    }
    if (p < pixels)
        FC_EACH_STREAM
        {
            vec a = FC_LOAD(g + s * VL);
            const vec da = FC_LOAD(x + s * VL) - centre[s];
            if (gate == FC_GATE_INPUT)
                a = vpick(N(norm_closed)(vmuladd(da, gain[s], shift[s]), low, high), (vec){0}, a);
            if (gate == FC_GATE_OUTPUT) {
                a = vpick(N(norm_closed)(FC_LOAD(y + s * VL), low, high), (vec){0}, a);
                FC_STREAM(gated + s * VL, a);
            }
            sum[s] += a;
            product[s] = vmuladd(a, da, product[s]);
        }
    FC_EACH_STREAM
    {
        FC_STORE(sum_ + c + s * VL, sum[s]);
        FC_STORE(product_ + c + s * VL, product[s]);
    }
}

INLINE fc_norm_pixels N(norm_from)(fc_norm_pixels v, int64_t p)
{
    return (fc_norm_pixels){v.data ? (T *)v.data + p * v.pixel : NULL, v.pixel};
}

INLINE void N(norm_grad_sums_gated)(int64_t pixels, int64_t channels, const fc_norm_channels *by,
                                    const fc_norm_gate gate, const int stream, fc_norm_pixels g, fc_norm_pixels x,
                                    fc_norm_pixels y, fc_norm_pixels gated, T *sum, T *product)
{
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_grad_sums_block)(count, by, N(norm_from)(g, p), N(norm_from)(x, p), N(norm_from)(y, p),                     \
                            N(norm_from)(gated, p), c, sum, product, p == 0, gate, stream, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

static void N(norm_grad_sums)(int64_t pixels, int64_t channels, const fc_norm_channels *by, fc_norm_gate gate,
                              fc_norm_pixels g, fc_norm_pixels x, fc_norm_pixels y, fc_norm_pixels gated, void *sum,
                              void *product)
{
    if (gate == FC_GATE_NONE)
        N(norm_grad_sums_gated)(pixels, channels, by, FC_GATE_NONE, 0, g, x, y, gated, sum, product);
    else if (gate == FC_GATE_INPUT)
        N(norm_grad_sums_gated)(pixels, channels, by, FC_GATE_INPUT, 0, g, x, y, gated, sum, product);
    else if (!by->stream)
        N(norm_grad_sums_gated)(pixels, channels, by, FC_GATE_OUTPUT, 0, g, x, y, gated, sum, product);
    else
        N(norm_grad_sums_gated)(pixels, channels, by, FC_GATE_OUTPUT, 1, g, x, y, gated, sum, product);
    if (by->stream)
        vfence();
}

#include "norm_map.tmpl.h"

static const fc_norm_kernels N(norm_table) = {
    .sums = N(norm_sums),
    .grad_sums = N(norm_grad_sums),
    .map_last = N(norm_map_last),
    .map_plane = N(norm_map_plane),
    .grad_last = N(norm_grad_last),
    .grad_plane = N(norm_grad_plane),
};
#undef FC_STREAMS
#undef FC_SUB
#undef FC_EACH_STREAM
#undef FC_LOAD
#undef FC_STORE
#undef FC_STREAM
#undef FC_CHANNELS
