/* norm_map.tmpl.h: the maps of batch normalisation, and of their gradient. Included by norm.tmpl.h.
 *
 * One expression serves pixels and planes: the same operations in the same order give the same bits. */
INLINE vec N(norm_value)(vec x, vec r, vec centre, vec gain, vec shift, vec lower, vec upper, const int has_residual)
{
    const vec t = vmuladd(x - centre, gain, shift);
    return vclamp(has_residual ? t + r : t, lower, upper);
}

enum {
    N(NORM_RUN) = 2048 / sizeof(T), /* channels of a row at a time: their 5 parameters leave two thirds of the cache */
    N(NORM_SUB) = 16, /* pixels before the next channels of wider rows */
};

/* BLOCK(pixel, pixels, channel, channels): all of the array, as far as it goes in the order of memory */
#define FC_BLOCKS(BLOCK)                                                                                               \
    do {                                                                                                               \
        const int64_t sub = channels > N(NORM_RUN) ? N(NORM_SUB) : pixels;                                             \
        for (int64_t p = 0; p < pixels; p += sub)                                                                      \
            for (int64_t c = 0; c < channels; c += N(NORM_RUN))                                                        \
                BLOCK(p, (pixels - p < sub ? pixels - p : sub), c,                                                     \
                      (channels - c < N(NORM_RUN) ? channels - c : N(NORM_RUN)));                                      \
    } while (0)

INLINE vec N(norm_map_channels)(const fc_norm_channels *by, const T *x, const T *r, int64_t c, vec lower, vec upper,
                                const int tail)
{
    const vec centre = FC_LOAD((const T *)by->centre + c), gain = FC_LOAD((const T *)by->gain + c);
    const vec shift = FC_LOAD((const T *)by->shift + c);
    return N(norm_value)(FC_LOAD(x), r ? FC_LOAD(r) : (vec){0}, centre, gain, shift, lower, upper, r != NULL);
}

INLINE void N(norm_map_block)(int64_t pixels, int64_t channels, const fc_norm_channels *by, const T *x, int64_t x_pixel,
                              const T *r, int64_t r_pixel, T *y, int64_t y_pixel, int64_t c, const int has_residual,
                              const int stream)
{
    const vec lower = vset1((T)by->lower), upper = vset1((T)by->upper);
    const int tail = (int)(channels % VL);
    const int64_t whole = channels - tail;
    for (int64_t p = 0; p < pixels; p++, x += x_pixel, y += y_pixel) {
        for (int64_t i = 0; i < whole; i += VL) {
            vfetch(x + i);
            if (has_residual)
                vfetch(r + i);
            const vec value = N(norm_map_channels)(by, x + i, has_residual ? r + i : NULL, c + i, lower, upper, 0);
            if (stream)
                vstream(y + i, value);
            else
                vstore(y + i, value);
        }
        if (tail)
            vstore_tail(
                y + whole,
                N(norm_map_channels)(by, x + whole, has_residual ? r + whole : NULL, c + whole, lower, upper, tail),
                tail);
        if (has_residual)
            r += r_pixel;
    }
}

INLINE void N(norm_map_pixels)(int64_t pixels, int64_t channels, const fc_norm_channels *by_, fc_norm_pixels x,
                               fc_norm_pixels r, fc_norm_pixels y, const int has_residual, const int stream)
{
    const fc_norm_channels by = *by_; /* out of reach of the stores: pointers stay in registers */
#define FC_BLOCK(p, count, c, lanes)                                                                                   \
    N(norm_map_block)(count, lanes, &by, (const T *)x.data + (p) * x.pixel + (c), x.pixel,                             \
                      has_residual ? (const T *)r.data + (p) * r.pixel + (c) : NULL, r.pixel,                          \
                      (T *)y.data + (p) * y.pixel + (c), y.pixel, c, has_residual, stream)
    FC_BLOCKS(FC_BLOCK);
#undef FC_BLOCK
}

static void N(norm_map_last)(int64_t pixels, int64_t channels, const fc_norm_channels *by, fc_norm_pixels x,
                             fc_norm_pixels residual, fc_norm_pixels y)
{
    if (residual.data && by->stream)
        N(norm_map_pixels)(pixels, channels, by, x, residual, y, 1, 1);
    else if (residual.data)
        N(norm_map_pixels)(pixels, channels, by, x, residual, y, 1, 0);
    else if (by->stream)
        N(norm_map_pixels)(pixels, channels, by, x, residual, y, 0, 1);
    else
        N(norm_map_pixels)(pixels, channels, by, x, residual, y, 0, 0);
}

/* y[i] for i < count from WHOLE(i), a vector, and PART(i, n), n values, less than one; whole cache lines are streamed:
 * half a line written past the caches costs a read of the other half. The last vector overlaps the one before it, and
 * is found first, since y may be x: a masked store takes 12 cycles on a Zen 3, as long as the rest of 7 x 7 values. */
#define FC_VALUES(y, count, stream, WHOLE, PART)                                                                       \
    do {                                                                                                               \
        enum { LINE = 64 / sizeof(T) };                                                                                \
        if ((count) < VL) {                                                                                            \
            vstore_tail(y, PART(0, (int)(count)), (int)(count));                                                       \
            break;                                                                                                     \
        }                                                                                                              \
        const int64_t first = (int64_t)((64 - (uintptr_t)(y) % 64) % 64 / sizeof(T));                                  \
        const vec last = WHOLE((count) - VL);                                                                          \
        int64_t i = 0;                                                                                                 \
        if ((stream) && first + LINE <= (count)) {                                                                     \
            for (; i + VL <= first; i += VL)                                                                           \
                vstore((y) + i, WHOLE(i));                                                                             \
            if (i < first)                                                                                             \
                vstore_tail((y) + i, PART(i, (int)(first - i)), (int)(first - i));                                     \
            for (i = first; i + LINE <= (count); i += LINE)                                                            \
                _Pragma("GCC unroll 4") for (int j = 0; j < LINE; j += VL) vstream((y) + i + j, WHOLE(i + j));         \
        }                                                                                                              \
        for (; i + VL <= (count); i += VL)                                                                             \
            vstore((y) + i, WHOLE(i));                                                                                 \
        if (i < (count))                                                                                               \
            vstore((y) + (count) - VL, last);                                                                          \
    } while (0)

INLINE T *N(norm_plane)(const fc_norm_pixels *a, int64_t n, int64_t i)
{
    return (T *)a->data + n * a->image + i * a->pixel;
}

/* As vfetch, but of several images: their planes were read for the sums just now, and what follows them in memory was
 * not. 512 channels at 7x7, batch 16: the gradient takes 370 us with it and 316 without (channels-first, 2 MiB of
 * second-level cache). */
INLINE int64_t N(norm_ahead_of)(int64_t images) { return images > 1 ? 0 : 4096; }
INLINE void N(norm_near)(const T *p, int64_t ahead)
{
    if (ahead) /* what is read right away needs none: 512 channels at 7x7, batch 16, AVX2, the map 96 -> 76 us */
        __builtin_prefetch((const char *)p + ahead);
}

INLINE void N(norm_map_values)(int64_t images, int64_t channels, int64_t count, int64_t channel,
                               const fc_norm_channels *by, const fc_norm_pixels *x_, const fc_norm_pixels *r_,
                               const fc_norm_pixels *y_, const int has_residual)
{
    const vec lower = vset1((T)by->lower), upper = vset1((T)by->upper);
    const int64_t ahead = N(norm_ahead_of)(images);
    for (int64_t n = images - 1; n >= 0; n--) /* backwards: the last one was read last */
        for (int64_t c = 0; c < channels; c++) {
            const vec centre = vset1(((const T *)by->centre)[channel + c]);
            const vec gain = vset1(((const T *)by->gain)[channel + c]),
                      shift = vset1(((const T *)by->shift)[channel + c]);
            const T *x = N(norm_plane)(x_, n, c), *r = has_residual ? N(norm_plane)(r_, n, c) : NULL;
            T *y = N(norm_plane)(y_, n, c);
#define FC_WHOLE(i)                                                                                                    \
    (N(norm_near)(x + (i), ahead), has_residual ? N(norm_near)(r + (i), ahead) : (void)0,                              \
     N(norm_value)(vload(x + (i)), has_residual ? vload(r + (i)) : (vec){0}, centre, gain, shift, lower, upper,        \
                   has_residual))
#define FC_PART(i, tail)                                                                                               \
    N(norm_value)(vload_tail(x + (i), tail), has_residual ? vload_tail(r + (i), tail) : (vec){0}, centre, gain, shift, \
                  lower, upper, has_residual)
            FC_VALUES(y, count, by->stream, FC_WHOLE, FC_PART);
#undef FC_PART
#undef FC_WHOLE
        }
}

static void N(norm_map_plane)(int64_t images, int64_t channels, int64_t count, int64_t channel,
                              const fc_norm_channels *by, fc_norm_pixels x, fc_norm_pixels residual, fc_norm_pixels y)
{
    if (residual.data)
        N(norm_map_values)(images, channels, count, channel, by, &x, &residual, &y, 1);
    else
        N(norm_map_values)(images, channels, count, channel, by, &x, &residual, &y, 0);
}

/* ---- gradient ----------------------------------------------------------------------------------------------------*/
typedef struct {
    vec centre, gain, shift, slope, offset;
} N(norm_terms);

INLINE vec N(norm_slope)(vec g, vec x, const N(norm_terms) * t, vec low, vec high, const fc_norm_gate gate,
                         const int has_slope)
{
    const vec d = x - t->centre;
    if (gate == FC_GATE_INPUT)
        g = vpick(N(norm_closed)(vmuladd(d, t->gain, t->shift), low, high), (vec){0}, g);
    return has_slope ? vmuladd(g, t->gain, vmuladd(d, t->slope, t->offset)) : g * t->gain;
}

#define FC_TERM(name, wanted) ((wanted) ? FC_LOAD((const T *)by->name + c) : (vec){0})
INLINE vec N(norm_grad_channels)(const fc_norm_channels *by, const T *g, const T *x, int64_t c, vec low, vec high,
                                 const fc_norm_gate gate, const int has_slope, const int tail)
{
    const int reads_x = has_slope || gate != FC_GATE_NONE;
    const N(norm_terms) terms = {FC_TERM(centre, reads_x), FC_TERM(gain, 1), FC_TERM(shift, gate != FC_GATE_NONE),
                                 FC_TERM(slope, has_slope), FC_TERM(offset, has_slope)};
    return N(norm_slope)(FC_LOAD(g), reads_x ? FC_LOAD(x) : (vec){0}, &terms, low, high, gate, has_slope);
}
#undef FC_TERM

INLINE void N(norm_grad_block)(int64_t pixels, int64_t channels, const fc_norm_channels *by, const T *g,
                               int64_t g_pixel, const T *x, int64_t x_pixel, T *y, int64_t y_pixel, int64_t c,
                               const fc_norm_gate gate, const int has_slope, const int stream)
{
    const vec low = vset1((T)by->low), high = vset1((T)by->high);
    const int tail = (int)(channels % VL);
    const int64_t whole = channels - tail;
    for (int64_t p = 0; p < pixels; p++, g += g_pixel, x += x_pixel, y += y_pixel) {
        for (int64_t i = 0; i < whole; i += VL) {
            vfetch(g + i);
            if (has_slope || gate != FC_GATE_NONE)
                vfetch(x + i);
            const vec value = N(norm_grad_channels)(by, g + i, x + i, c + i, low, high, gate, has_slope, 0);
            if (stream)
                vstream(y + i, value);
            else
                vstore(y + i, value);
        }
        if (tail)
            vstore_tail(y + whole,
                        N(norm_grad_channels)(by, g + whole, x + whole, c + whole, low, high, gate, has_slope, tail),
                        tail);
    }
}

INLINE void N(norm_grad_pixels)(int64_t pixels, int64_t channels, const fc_norm_channels *by_, fc_norm_pixels g,
                                fc_norm_pixels x, fc_norm_pixels y, const fc_norm_gate gate, const int has_slope,
                                const int stream)
{
    const fc_norm_channels by = *by_; /* out of reach of the stores: pointers stay in registers */
#define FC_BLOCK(p, count, c, lanes)                                                                                   \
    N(norm_grad_block)(count, lanes, &by, (const T *)g.data + (p) * g.pixel + (c), g.pixel,                            \
                       (const T *)x.data + (p) * x.pixel + (c), x.pixel, (T *)y.data + (p) * y.pixel + (c), y.pixel,   \
                       c, gate, has_slope, stream)
    FC_BLOCKS(FC_BLOCK);
#undef FC_BLOCK
}

INLINE void N(norm_grad_values)(int64_t images, int64_t channels, int64_t count, int64_t channel,
                                const fc_norm_channels *by, const fc_norm_pixels *g_, const fc_norm_pixels *x_,
                                const fc_norm_pixels *y_, const fc_norm_gate gate, const int has_slope)
{
    const int reads_x = has_slope || gate != FC_GATE_NONE;
    const vec low = vset1((T)by->low), high = vset1((T)by->high);
    const int64_t ahead = N(norm_ahead_of)(images);
    for (int64_t n = images - 1; n >= 0; n--)
        for (int64_t c = 0; c < channels; c++) {
#define FC_NUMBER(name, wanted) ((wanted) ? vset1(((const T *)by->name)[channel + c]) : (vec){0})
            const N(norm_terms)
                terms = {FC_NUMBER(centre, reads_x), FC_NUMBER(gain, 1), FC_NUMBER(shift, gate != FC_GATE_NONE),
                         FC_NUMBER(slope, has_slope), FC_NUMBER(offset, has_slope)};
#undef FC_NUMBER
            const T *g = N(norm_plane)(g_, n, c), *x = N(norm_plane)(x_, n, c);
            T *y = N(norm_plane)(y_, n, c);
#define FC_WHOLE(i)                                                                                                    \
    (N(norm_near)(g + (i), ahead), reads_x ? N(norm_near)(x + (i), ahead) : (void)0,                                   \
     N(norm_slope)(vload(g + (i)), reads_x ? vload(x + (i)) : (vec){0}, &terms, low, high, gate, has_slope))
#define FC_PART(i, tail)                                                                                               \
    N(norm_slope)(vload_tail(g + (i), tail), reads_x ? vload_tail(x + (i), tail) : (vec){0}, &terms, low, high, gate,  \
                  has_slope)
            FC_VALUES(y, count, by->stream, FC_WHOLE, FC_PART);
#undef FC_PART
#undef FC_WHOLE
        }
}

/* FC_RUN(gate, has_slope) with both known when it is compiled */
#define FC_VARIANTS(FC_RUN)                                                                                            \
    do {                                                                                                               \
        if (gate == FC_GATE_NONE && by->slope)                                                                         \
            FC_RUN(FC_GATE_NONE, 1);                                                                                   \
        else if (gate == FC_GATE_NONE)                                                                                 \
            FC_RUN(FC_GATE_NONE, 0);                                                                                   \
        else if (by->slope)                                                                                            \
            FC_RUN(FC_GATE_INPUT, 1);                                                                                  \
        else                                                                                                           \
            FC_RUN(FC_GATE_INPUT, 0);                                                                                  \
    } while (0)

static void N(norm_grad_last)(int64_t pixels, int64_t channels, const fc_norm_channels *by, fc_norm_gate gate,
                              fc_norm_pixels g, fc_norm_pixels x, fc_norm_pixels grad_x)
{
#define FC_RUN(gate, has_slope)                                                                                        \
    do {                                                                                                               \
        if (by->stream)                                                                                                \
            N(norm_grad_pixels)(pixels, channels, by, g, x, grad_x, gate, has_slope, 1);                               \
        else                                                                                                           \
            N(norm_grad_pixels)(pixels, channels, by, g, x, grad_x, gate, has_slope, 0);                               \
    } while (0)
    FC_VARIANTS(FC_RUN);
#undef FC_RUN
}

static void N(norm_grad_plane)(int64_t images, int64_t channels, int64_t count, int64_t channel,
                               const fc_norm_channels *by, fc_norm_gate gate, fc_norm_pixels g, fc_norm_pixels x,
                               fc_norm_pixels grad_x)
{
#define FC_RUN(gate, has_slope)                                                                                        \
    N(norm_grad_values)(images, channels, count, channel, by, &g, &x, &grad_x, gate, has_slope)
    FC_VARIANTS(FC_RUN);
#undef FC_RUN
}
#undef FC_BLOCKS
#undef FC_VARIANTS
#undef FC_VALUES
