/* norm.tmpl.h: batch normalisation: sums over pixels, and affine maps by channel.
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
            square[s] += (a * a + b * b) + (c * c + d * d);
        }
    for (; p < pixels; p++, x += pixel)
        FC_EACH_STREAM
        {
            const vec a = FC_LOAD(x + s * VL) - pivot[s];
            sum[s] += a;
            square[s] += a * a;
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

INLINE void N(norm_grad_sums_block)(int64_t pixels, const T *g, int64_t g_pixel, const T *x, int64_t x_pixel,
                                    const T *centre_, T *sum_, T *product_, int first, const int streams,
                                    const int tail)
{
    vec sum[FC_STREAMS], product[FC_STREAMS], centre[FC_STREAMS];
    FC_EACH_STREAM
    {
        centre[s] = FC_LOAD(centre_ + s * VL);
        sum[s] = first ? (vec){0} : FC_LOAD(sum_ + s * VL);
        product[s] = first ? (vec){0} : FC_LOAD(product_ + s * VL);
    }
    int64_t p = 0;
    for (; p + 2 <= pixels; p += 2, g += 2 * g_pixel, x += 2 * x_pixel)
        FC_EACH_STREAM
        {
            const vec a = FC_LOAD(g + s * VL), b = FC_LOAD(g + g_pixel + s * VL);
            sum[s] += a + b;
            product[s] += a * (FC_LOAD(x + s * VL) - centre[s]) + b * (FC_LOAD(x + x_pixel + s * VL) - centre[s]);
        }
    for (; p < pixels; p++, g += g_pixel, x += x_pixel)
        FC_EACH_STREAM
        {
            const vec a = FC_LOAD(g + s * VL);
            sum[s] += a;
            product[s] += a * (FC_LOAD(x + s * VL) - centre[s]);
        }
    FC_EACH_STREAM
    {
        FC_STORE(sum_ + s * VL, sum[s]);
        FC_STORE(product_ + s * VL, product[s]);
    }
}

static void N(norm_grad_sums)(int64_t pixels, const void *g_, int64_t g_pixel, const void *x_, int64_t x_pixel,
                              int64_t channels, const void *centre_, void *sum_, void *product_)
{
    const T *g = g_, *x = x_, *centre = centre_;
    T *sum = sum_, *product = product_;
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_grad_sums_block)(count, g + p * g_pixel + c, g_pixel, x + p * x_pixel + c, x_pixel, centre + c, sum + c,    \
                            product + c, p == 0, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

/* ---- affine maps -------------------------------------------------------------------------------------------------*/
INLINE void N(norm_affine_block)(int64_t pixels, const T *x, int64_t x_pixel, const T *centre_, const T *scale_,
                                 const T *shift_, T *y, int64_t y_pixel, const int streams, const int tail)
{
    vec centre[FC_STREAMS], scale[FC_STREAMS], shift[FC_STREAMS];
    FC_EACH_STREAM
    {
        centre[s] = FC_LOAD(centre_ + s * VL);
        scale[s] = FC_LOAD(scale_ + s * VL);
        shift[s] = FC_LOAD(shift_ + s * VL);
    }
    for (int64_t p = 0; p < pixels; p++, x += x_pixel, y += y_pixel)
        FC_EACH_STREAM FC_STORE(y + s * VL, (FC_LOAD(x + s * VL) - centre[s]) * scale[s] + shift[s]);
}

static void N(norm_affine_last)(int64_t pixels, const void *x_, int64_t x_pixel, int64_t channels,
                                const fc_norm_affine *a, void *y_, int64_t y_pixel)
{
    const T *x = x_, *centre = a->centre, *scale = a->scale, *shift = a->shift;
    T *y = y_;
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_affine_block)(count, x + p * x_pixel + c, x_pixel, centre + c, scale + c, shift + c, y + p * y_pixel + c,   \
                         y_pixel, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

static void N(norm_affine_plane)(int64_t count, const void *x_, int64_t channel, const fc_norm_affine *a, void *y_)
{
    const T *x = x_;
    T *y = y_;
    const vec centre = vset1(((const T *)a->centre)[channel]), scale = vset1(((const T *)a->scale)[channel]);
    const vec shift = vset1(((const T *)a->shift)[channel]);
    int64_t i = 0;
    for (; i + VL <= count; i += VL)
        vstore(y + i, (vload(x + i) - centre) * scale + shift);
    const int tail = (int)(count - i);
    if (tail)
        vstore_tail(y + i, (vload_tail(x + i, tail) - centre) * scale + shift, tail);
}

INLINE void N(norm_grad_block)(int64_t pixels, const T *g, int64_t g_pixel, const T *x, int64_t x_pixel,
                               const T *centre_, const T *gain_, const T *slope_, const T *shift_, T *y,
                               int64_t y_pixel, const int streams, const int tail)
{
    vec centre[FC_STREAMS], gain[FC_STREAMS], slope[FC_STREAMS], shift[FC_STREAMS];
    FC_EACH_STREAM
    {
        centre[s] = FC_LOAD(centre_ + s * VL);
        gain[s] = FC_LOAD(gain_ + s * VL);
        slope[s] = FC_LOAD(slope_ + s * VL);
        shift[s] = FC_LOAD(shift_ + s * VL);
    }
    for (int64_t p = 0; p < pixels; p++, g += g_pixel, x += x_pixel, y += y_pixel)
        FC_EACH_STREAM
        {
            const vec rest = (FC_LOAD(x + s * VL) - centre[s]) * slope[s] + shift[s];
            FC_STORE(y + s * VL, FC_LOAD(g + s * VL) * gain[s] + rest);
        }
}

static void N(norm_grad_last)(int64_t pixels, const void *g_, int64_t g_pixel, const void *x_, int64_t x_pixel,
                              int64_t channels, const fc_norm_grad *a, void *y_, int64_t y_pixel)
{
    const T *g = g_, *x = x_, *centre = a->centre, *gain = a->gain, *slope = a->slope, *shift = a->shift;
    T *y = y_;
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_grad_block)(count, g + p * g_pixel + c, g_pixel, x + p * x_pixel + c, x_pixel, centre + c, gain + c,        \
                       slope + c, shift + c, y + p * y_pixel + c, y_pixel, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

static void N(norm_grad_plane)(int64_t count, const void *g_, const void *x_, int64_t channel, const fc_norm_grad *a,
                               void *y_)
{
    const T *g = g_, *x = x_;
    T *y = y_;
    const vec centre = vset1(((const T *)a->centre)[channel]), gain = vset1(((const T *)a->gain)[channel]);
    const vec slope = vset1(((const T *)a->slope)[channel]), shift = vset1(((const T *)a->shift)[channel]);
    int64_t i = 0;
    for (; i + VL <= count; i += VL) {
        const vec rest = (vload(x + i) - centre) * slope + shift;
        vstore(y + i, vload(g + i) * gain + rest);
    }
    const int tail = (int)(count - i);
    if (tail) {
        const vec rest = (vload_tail(x + i, tail) - centre) * slope + shift;
        vstore_tail(y + i, vload_tail(g + i, tail) * gain + rest, tail);
    }
}

static const fc_norm_kernels N(norm_table) = {
    .sums = N(norm_sums),
    .grad_sums = N(norm_grad_sums),
    .affine_last = N(norm_affine_last),
    .affine_plane = N(norm_affine_plane),
    .grad_last = N(norm_grad_last),
    .grad_plane = N(norm_grad_plane),
};
#undef FC_STREAMS
#undef FC_SUB
#undef FC_EACH_STREAM
#undef FC_LOAD
#undef FC_STORE
#undef FC_CHANNELS
