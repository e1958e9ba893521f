/* spread.tmpl.h: depthwise.tmpl.h with several input and output channels per group, see fc_depthwise. A part of it.
 *
 * Lanes are output channels of several groups. A vector of x holds what they see, and is permuted so that each lane has
 * one input channel of its group: one load and one permutation per column, for up to 3 taps. Where there are registers
 * enough two input channels share the load, which straddles cache lines mostly.
 */
#define FC_INPUTS                                                                                                      \
    (FC_VECTOR_BYTES == 64 ? 2 : 1) /* 8 accumulators, 6 weights, 2 permutations, x and its 2 forms: 19 registers */

typedef struct {
    const char *x;
    int64_t pitch, pitch3; /* bytes */
    int64_t inside, columns; /* see dw_taps */
    int lanes; /* of x */
    ivec index[2];
} N(spread_columns);

INLINE N(spread_columns) N(spread_start)(const char *x, int64_t x_step, int lanes, int64_t inputs_of_vector)
{
    return (N(spread_columns)){
        .x = x, .pitch = x_step, .pitch3 = 3 * x_step, .lanes = (int)(lanes * inputs_of_vector / VL)};
}

INLINE void N(spread_set)(N(spread_columns) * t, const int32_t (*spread)[16], const int inputs)
{
    FC_UNROLL for (int i = 0; i < inputs; i++) memcpy(&t->index[i], spread[i], sizeof t->index[i]);
}

/* a[i]: column k for input i; x is at column k / 3 * 3 */
INLINE void N(spread_column)(const N(spread_columns) * t, const char **x, const int k, const int inputs,
                             const N(dw_shape) s, vec *a)
{
    vec column = {0};
    if (k && k % 3 == 0) {
        *x += t->pitch3;
        FC_OPAQUE(*x);
    }
    if (!s.edge || (uint64_t)(k - t->inside) < (uint64_t)t->columns)
        column = vload_tail((const T *)(*x + k % 3 * t->pitch), t->lanes);
    FC_UNROLL for (int i = 0; i < inputs; i++) a[i] = vrounded(__builtin_shuffle(column, t->index[i]));
}

/* w[input][tap], inputs `next` apart */
INLINE void N(spread_taps)(const N(spread_columns) * t, const T *w, int64_t next, const int taps, const int inputs,
                           const N(dw_shape) s, vec *acc)
{
    vec weight[FC_INPUTS][FC_SPREAD_TAPS], a[FC_INPUTS];
    FC_UNROLL for (int i = 0; i < inputs; i++)
        FC_UNROLL for (int j = 0; j < taps; j++) weight[i][j] = vload(w + i * next + j * FC_DEPTHWISE_ALIGN);
    const char *x = t->x;
    FC_UNROLL for (int k = 0; k < s.pixels + taps - 1; k++)
    {
        N(spread_column)(t, &x, k, inputs, s, a);
        FC_UNROLL for (int i = 0; i < inputs; i++)
            FC_UNROLL for (int j = 0; j < taps; j++)
                if (k >= j && k - j < s.pixels)
                    acc[k - j] = vmuladd(weight[i][j], a[i], acc[k - j]);
    }
}

/* f(taps) for the taps of a group */
#define FC_EACH_TAPS(f) f(1) f(2) f(3)

/* The row of taps at `x` for the next `inputs` inputs; returns where the weights go on. */
INLINE const T *N(spread_row)(const fc_depthwise *d, N(spread_columns) * t, const char *x, const T *w, int64_t first,
                              const int inputs, const N(dw_shape) s, vec *acc)
{
    const int64_t next = d->taps_w * FC_DEPTHWISE_ALIGN;
    for (const fc_depthwise_group *group = d->groups; group < d->groups + d->group_count; group++) {
        t->x = x + group->x, t->inside = group->inside - first, t->columns = group->columns;
#define FC_SPREAD_CASE(n)                                                                                              \
    case n:                                                                                                            \
        N(spread_taps)(t, w, next, n, inputs, s, acc);                                                                 \
        break;
        switch (group->taps) { FC_EACH_TAPS(FC_SPREAD_CASE) }
#undef FC_SPREAD_CASE
        w += group->taps * FC_DEPTHWISE_ALIGN;
    }
    return w + (inputs - 1) * next;
}

INLINE void N(spread_tile)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid, int64_t c,
                           const N(dw_shape) s)
{
    vec acc[FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] = (vec){0};
    const char *x = (const char *)row->x + first * d->x_step + c / VL * d->inputs_of_vector * (int64_t)sizeof(T);
    const T *weights = (const T *)row->weights + c / FC_DEPTHWISE_ALIGN * d->weight_block + c % FC_DEPTHWISE_ALIGN;
    N(spread_columns) t = N(spread_start)(x, d->x_step, s.lanes, d->inputs_of_vector);
    for (int64_t u = row->taps; u > 0; u--, x += d->x_row, weights += d->weight_row) {
        const T *w = weights;
        int64_t i = 0;
        for (; i + FC_INPUTS <= d->inputs; i += FC_INPUTS) {
            N(spread_set)(&t, d->spread + i, FC_INPUTS);
            w = N(spread_row)(d, &t, x, w, first, FC_INPUTS, s, acc);
        }
        if (FC_INPUTS > 1 && i < d->inputs) {
            N(spread_set)(&t, d->spread + i, 1);
            N(spread_row)(d, &t, x, w, first, 1, s, acc);
        }
    }
    if (d->maps)
        N(depthwise_map)(d, row, first, valid, c, s, acc);
    N(depthwise_store)(d, (char *)((T *)row->y + first * d->y_pixel + c), valid, s, acc);
}

/* ---- gradient of the weight ---------------------------------------------------------------------------------------*/
/* c[input][tap] += .., inputs `next` apart, for row u of taps, `x` bytes after where a row starts. */
INLINE void N(spread_at_group)(const fc_depthwise_at *d, int64_t u, int64_t first, int64_t valid, int64_t c,
                               N(spread_columns) * t, int64_t x, T *to, int64_t next, const int taps, const int inputs,
                               const N(dw_shape) s)
{
    vec acc[FC_INPUTS][FC_SPREAD_TAPS], g[FC_PX], a[FC_INPUTS];
    FC_UNROLL for (int i = 0; i < inputs; i++) N(depthwise_at_load)(to + i * next, taps, acc[i]);
    for (const fc_depthwise_at_row *row = d->rows; row < d->rows + d->row_count; row++) {
        if (u < row->first || u >= row->end)
            continue;
        N(depthwise_at_outputs)(d, row, first, valid, c, s, g);
        const char *at = (const char *)row->x + x;
        FC_UNROLL for (int k = 0; k < s.pixels + taps - 1; k++)
        {
            N(spread_column)(t, &at, k, inputs, s, a);
            FC_UNROLL for (int i = 0; i < inputs; i++)
                FC_UNROLL for (int j = 0; j < taps; j++)
                    if (k >= j && k - j < s.pixels)
                        acc[i][j] = vmuladd(g[k - j], a[i], acc[i][j]);
        }
    }
    FC_UNROLL for (int i = 0; i < inputs; i++) N(depthwise_at_store)(to + i * next, taps, acc[i]);
}

INLINE T *N(spread_at_row)(const fc_depthwise_at *d, int64_t u, int64_t first, int64_t valid, int64_t c,
                           N(spread_columns) * t, int64_t x, T *to, const int inputs, const N(dw_shape) s)
{
    const int64_t next = d->taps_w * FC_DEPTHWISE_ALIGN;
    for (const fc_depthwise_group *group = d->groups; group < d->groups + d->group_count; group++) {
        t->inside = group->inside - first;
        t->columns = N(depthwise_at_columns)(group, first, valid, s);
#define FC_SPREAD_CASE(n)                                                                                              \
    case n:                                                                                                            \
        N(spread_at_group)(d, u, first, valid, c, t, x + group->x, to, next, n, inputs, s);                            \
        break;
        switch (group->taps) { FC_EACH_TAPS(FC_SPREAD_CASE) }
#undef FC_SPREAD_CASE
        to += group->taps * FC_DEPTHWISE_ALIGN;
    }
    return to + (inputs - 1) * next;
}

INLINE void N(spread_at_tile)(const fc_depthwise_at *d, int64_t first, int64_t valid, int64_t c, const N(dw_shape) s)
{
    int64_t x = first * d->x_step + c / VL * d->inputs_of_vector * (int64_t)sizeof(T);
    T *to = (T *)d->c + c / FC_DEPTHWISE_ALIGN * d->c_block + c % FC_DEPTHWISE_ALIGN;
    N(spread_columns) t = N(spread_start)(NULL, d->x_step, s.lanes, d->inputs_of_vector);
    for (int64_t u = 0; u < d->taps_h; u++, x += d->x_row) {
        int64_t i = 0;
        for (; i + FC_INPUTS <= d->inputs; i += FC_INPUTS) {
            N(spread_set)(&t, d->spread + i, FC_INPUTS);
            to = N(spread_at_row)(d, u, first, valid, c, &t, x, to, FC_INPUTS, s);
        }
        if (FC_INPUTS > 1 && i < d->inputs) {
            N(spread_set)(&t, d->spread + i, 1);
            to = N(spread_at_row)(d, u, first, valid, c, &t, x, to, 1, s);
        }
    }
}

/* ---- any shape: tiles of 8 outputs, and of 4 where no more are left -----------------------------------------------*/
#define FC_SPREAD(pixels)                                                                                              \
    static void N(spread_##pixels)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid,   \
                                   int64_t begin, int64_t end)                                                         \
    {                                                                                                                  \
        for (int64_t c = begin; c < end; c += VL)                                                                      \
            N(spread_tile)(d, row, first, valid, c, (N(dw_shape)){pixels, 0, 1, 1, N(lanes_left)(end - c)});           \
    }                                                                                                                  \
    static void N(spread_at_##pixels)(const fc_depthwise_at *d, int64_t first, int64_t valid)                          \
    {                                                                                                                  \
        for (int64_t c = 0; c < d->channels; c += VL)                                                                  \
            N(spread_at_tile)(d, first, valid, c, (N(dw_shape)){pixels, 0, 1, 1, N(lanes_left)(d->channels - c)});     \
    }
FC_SPREAD(4)
FC_SPREAD(8)
#undef FC_SPREAD

static void N(spread_rows)(const fc_depthwise *d)
{
    for (int64_t begin = 0; begin < d->channels; begin += d->channel_block) {
        const int64_t end = begin + d->channel_block < d->channels ? begin + d->channel_block : d->channels;
        for (int64_t first = 0; first < d->count; first += FC_PX) {
            const int64_t left = d->count - first, valid = left < FC_PX ? left : FC_PX;
            for (int64_t r = 0; r < d->row_count; r++)
                (valid > 4 ? N(spread_8) : N(spread_4))(d, d->rows + r, first, valid, begin, end);
        }
    }
}

static void N(spread_at)(const fc_depthwise_at *d)
{
    for (int64_t first = 0; first < d->count; first += FC_PX) {
        const int64_t left = d->count - first, valid = left < FC_PX ? left : FC_PX;
        (valid > 4 ? N(spread_at_8) : N(spread_at_4))(d, first, valid);
    }
}
#define FC_SPREAD_KERNELS .spread_rows = N(spread_rows), .spread_at = N(spread_at)
#undef FC_INPUTS
#undef FC_EACH_TAPS
