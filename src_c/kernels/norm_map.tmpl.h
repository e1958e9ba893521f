/* norm_map.tmpl.h: the maps of batch normalisation, and of their gradient. Included by norm.tmpl.h.
 *
 * One expression serves pixels and planes: the same operations in the same order give the same bits. */
INLINE vec N(norm_value)(vec x, vec r, vec centre, vec gain, vec shift, vec lower, vec upper, const int has_residual)
{
    const vec t = vmuladd(x - centre, gain, shift);
    return vclamp(has_residual ? t + r : t, lower, upper);
}

INLINE void N(norm_map_block)(int64_t pixels, const fc_norm_channels *by, const T *x, int64_t x_pixel, const T *r,
                              int64_t r_pixel, T *y, int64_t y_pixel, int64_t c, const int has_residual,
                              const int stream, const int streams, const int tail)
{
    vec centre[FC_STREAMS], gain[FC_STREAMS], shift[FC_STREAMS];
    const vec lower = vset1((T)by->lower), upper = vset1((T)by->upper);
    FC_EACH_STREAM
    {
        centre[s] = FC_LOAD((const T *)by->centre + c + s * VL);
        gain[s] = FC_LOAD((const T *)by->gain + c + s * VL);
        shift[s] = FC_LOAD((const T *)by->shift + c + s * VL);
    }
    for (int64_t p = 0; p < pixels; p++, x += x_pixel, y += y_pixel) {
        FC_EACH_STREAM
        {
            const vec residual = has_residual ? FC_LOAD(r + s * VL) : (vec){0};
            FC_STREAM(y + s * VL, N(norm_value)(FC_LOAD(x + s * VL), residual, centre[s], gain[s], shift[s], lower,
                                                upper, has_residual));
        }
        if (has_residual)
            r += r_pixel;
    }
}

INLINE void N(norm_map_pixels)(int64_t pixels, int64_t channels, const fc_norm_channels *by, fc_norm_pixels x_,
                               fc_norm_pixels r_, fc_norm_pixels y_, const int has_residual, const int stream)
{
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
        const T *x = (const T *)x_.data + p * x_.pixel;
        const T *r = has_residual ? (const T *)r_.data + p * r_.pixel : NULL;
        T *y = (T *)y_.data + p * y_.pixel;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_map_block)(count, by, x + c, x_.pixel, has_residual ? r + c : NULL, r_.pixel, y + c, y_.pixel, c,           \
                      has_residual, stream, streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
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

/* y[i] for i < count from WHOLE(i), a vector, and PART(i, n), n values, less than one; whole cache lines are streamed: half a line
 * written past the caches costs a read of the other half. */
#define FC_VALUES(y, count, stream, WHOLE, PART)                                                                       \
    do {                                                                                                               \
        enum { LINE = 64 / sizeof(T) };                                                                                \
        const int64_t first = (int64_t)((64 - (uintptr_t)(y) % 64) % 64 / sizeof(T));                                  \
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
        const int tail = (int)((count) - i);                                                                           \
        if (tail)                                                                                                      \
            vstore_tail((y) + i, PART(i, tail), tail);                                                                 \
    } while (0)

INLINE const T *N(norm_image)(const fc_norm_pixels *a, int64_t n) { return (const T *)a->data + n * a->image; }

INLINE void N(norm_map_values)(int64_t images, int64_t count, int64_t channel, const fc_norm_channels *by,
                               const fc_norm_pixels *x_, const fc_norm_pixels *r_, const fc_norm_pixels *y_,
                               const int has_residual)
{
    const vec centre = vset1(((const T *)by->centre)[channel]), gain = vset1(((const T *)by->gain)[channel]);
    const vec shift = vset1(((const T *)by->shift)[channel]);
    const vec lower = vset1((T)by->lower), upper = vset1((T)by->upper);
    for (int64_t n = images - 1; n >= 0; n--) { /* backwards: the last one was read last */
        const T *x = N(norm_image)(x_, n), *r = has_residual ? N(norm_image)(r_, n) : NULL;
        T *y = (T *)y_->data + n * y_->image;
#define FC_WHOLE(i)                                                                                                    \
    N(norm_value)(vload(x + (i)), has_residual ? vload(r + (i)) : (vec){0}, centre, gain, shift, lower, upper,         \
                  has_residual)
#define FC_PART(i, tail)                                                                                               \
    N(norm_value)(vload_tail(x + (i), tail), has_residual ? vload_tail(r + (i), tail) : (vec){0}, centre, gain, shift, \
                  lower, upper, has_residual)
        FC_VALUES(y, count, by->stream, FC_WHOLE, FC_PART);
#undef FC_PART
#undef FC_WHOLE
    }
}

static void N(norm_map_plane)(int64_t images, int64_t count, int64_t channel, const fc_norm_channels *by,
                              fc_norm_pixels x, fc_norm_pixels residual, fc_norm_pixels y)
{
    if (residual.data)
        N(norm_map_values)(images, count, channel, by, &x, &residual, &y, 1);
    else
        N(norm_map_values)(images, count, channel, by, &x, &residual, &y, 0);
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

#define FC_TERM(name, wanted) ((wanted) ? FC_LOAD((const T *)by->name + c + s * VL) : (vec){0})

INLINE void N(norm_grad_block)(int64_t pixels, const fc_norm_channels *by, const T *g, int64_t g_pixel, const T *x,
                               int64_t x_pixel, T *y, int64_t y_pixel, int64_t c, const fc_norm_gate gate,
                               const int has_slope, const int stream, const int streams, const int tail)
{
    N(norm_terms) terms[FC_STREAMS];
    const vec low = vset1((T)by->low), high = vset1((T)by->high);
    const int reads_x = has_slope || gate != FC_GATE_NONE;
    FC_EACH_STREAM terms[s] =
        (N(norm_terms)){FC_TERM(centre, reads_x), FC_TERM(gain, 1), FC_TERM(shift, gate != FC_GATE_NONE),
                        FC_TERM(slope, has_slope), FC_TERM(offset, has_slope)};
    for (int64_t p = 0; p < pixels; p++, g += g_pixel, y += y_pixel) {
        FC_EACH_STREAM
        {
            const vec value = reads_x ? FC_LOAD(x + s * VL) : (vec){0};
            FC_STREAM(y + s * VL, N(norm_slope)(FC_LOAD(g + s * VL), value, &terms[s], low, high, gate, has_slope));
        }
        if (reads_x)
            x += x_pixel;
    }
}

INLINE void N(norm_grad_pixels)(int64_t pixels, int64_t channels, const fc_norm_channels *by, fc_norm_pixels g_,
                                fc_norm_pixels x_, fc_norm_pixels y_, const fc_norm_gate gate, const int has_slope,
                                const int stream)
{
    for (int64_t p = 0; p < pixels; p += FC_SUB) {
        const int64_t count = pixels - p < FC_SUB ? pixels - p : FC_SUB;
        const T *g = (const T *)g_.data + p * g_.pixel, *x = (const T *)x_.data + p * x_.pixel;
        T *y = (T *)y_.data + p * y_.pixel;
#define FC_BLOCK(c, streams, tail)                                                                                     \
    N(norm_grad_block)(count, by, g + c, g_.pixel, x + c, x_.pixel, y + c, y_.pixel, c, gate, has_slope, stream,       \
                       streams, tail)
        FC_CHANNELS(FC_BLOCK);
#undef FC_BLOCK
    }
}

INLINE void N(norm_grad_values)(int64_t images, int64_t count, int64_t channel, const fc_norm_channels *by,
                                const fc_norm_pixels *g_, const fc_norm_pixels *x_, const fc_norm_pixels *y_,
                                const fc_norm_gate gate, const int has_slope)
{
    const int reads_x = has_slope || gate != FC_GATE_NONE;
#define FC_NUMBER(name, wanted) ((wanted) ? vset1(((const T *)by->name)[channel]) : (vec){0})
    const N(norm_terms) terms = {FC_NUMBER(centre, reads_x), FC_NUMBER(gain, 1), FC_NUMBER(shift, gate != FC_GATE_NONE),
                                 FC_NUMBER(slope, has_slope), FC_NUMBER(offset, has_slope)};
#undef FC_NUMBER
    const vec low = vset1((T)by->low), high = vset1((T)by->high);
    for (int64_t n = images - 1; n >= 0; n--) {
        const T *g = N(norm_image)(g_, n), *x = reads_x ? N(norm_image)(x_, n) : NULL;
        T *y = (T *)y_->data + n * y_->image;
#define FC_WHOLE(i)                                                                                                    \
    N(norm_slope)(vload(g + (i)), reads_x ? vload(x + (i)) : (vec){0}, &terms, low, high, gate, has_slope)
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

static void N(norm_grad_plane)(int64_t images, int64_t count, int64_t channel, const fc_norm_channels *by,
                               fc_norm_gate gate, fc_norm_pixels g, fc_norm_pixels x, fc_norm_pixels grad_x)
{
#define FC_RUN(gate, has_slope) N(norm_grad_values)(images, count, channel, by, &g, &x, &grad_x, gate, has_slope)
    FC_VARIANTS(FC_RUN);
#undef FC_RUN
}
#undef FC_TERM
#undef FC_VARIANTS
#undef FC_VALUES
