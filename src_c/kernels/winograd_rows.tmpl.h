/* winograd_rows.tmpl.h: sums of lines, F(4, 3) and F(2, 5) along a row, over rows of taps and few channels; included by
 * winograd.tmpl.h.
 *
 * The sum of a point is short, rows of taps times channels, so what it is stored and loaded for counts. With 32
 * registers all 6 points of 5 tiles are sums in them, of one vector of outputs, and are transformed there. With 16 it
 * is one point of 6 tiles and two vectors, for which a step loads 8 times and not 18, and sums go through memory: 0.87
 * of the speed (Zen 4, 3 -> 64 channels). Fewer tiles than the smallest group has, 4 or 3, are multiplied with what
 * lies behind them (FC_WINOGRAD_ROWS_SLACK). */
#if FC_F32 && FC_VECTOR_BYTES >= 32
#if FC_VECTOR_BYTES == 64
#define FC_ROWS_POINTS 6
#define FC_ROWS_TILES 5
#define FC_ROWS_VECTORS 1
#else
#define FC_ROWS_POINTS 1
#define FC_ROWS_TILES 6
#define FC_ROWS_VECTORS 2
#endif
#define FC_ROWS_M (FC_ROWS_TILES * FC_ROWS_VECTORS * 6)

static void N(winograd_row_inputs)(const void *x_, int64_t step, int64_t channels, int64_t tiles, void *v_)
{
    const T *x = x_;
    T *v = v_;
    for (int64_t t = 0; t < tiles; t++, x += step, v += 6 * FC_LINE)
        for (int64_t c = 0; c < channels; c += VL) {
            vec d[6];
    FC_UNROLL for (int j = 0; j < 6; j++) d[j] = vload(x + j * channels + c);
            N(wino_store_b)(d, v + c, FC_LINE, 6, 1);
        }
}

/* m[tile][vector][point] */
INLINE void N(wino_rows_sum)(const fc_winograd_lines *g, const T *v, vec *m, const int tiles, const int vectors)
{
    const int step = 6 * vectors * VL;
    const T *from = g->u;
    for (int e = 0; e < 6; e += FC_ROWS_POINTS, v += FC_LINE, from += vectors * VL, m++) {
        const T *row = v, *u = from;
        vec acc[FC_ROWS_POINTS][FC_ROWS_TILES][FC_ROWS_VECTORS] = {{{{0}}}};
        for (int64_t r = 0; r < g->rows; r++, row += g->row)
            for (const T *a = row; a < row + g->channels; a++, u += step)
                FC_UNROLL for (int i = 0; i < FC_ROWS_POINTS; i++)
                {
                    vec w[FC_ROWS_VECTORS];
                    FC_UNROLL for (int j = 0; j < vectors; j++)
                        w[j] = vrounded(vload(u + (i * vectors + j) * VL)); /* once */
                    FC_UNROLL for (int t = 0; t < tiles; t++)
                    {
                        const vec pixel = vset1(a[(t * 6 + i) * FC_LINE]);
                        FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][t][j] = vmuladd(pixel, w[j], acc[i][t][j]);
                    }
                }
        FC_UNROLL for (int t = 0; t < tiles; t++)
            FC_UNROLL for (int j = 0; j < vectors; j++)
                FC_UNROLL for (int i = 0; i < FC_ROWS_POINTS; i++) m[(t * vectors + j) * 6 + i] = acc[i][t][j];
    }
}

/* r = A' m, said operation by operation: whether a result streams past the caches, so how it is stored, depends on the
 * batch, its bits must not. */
INLINE void N(wino_rows_a)(vec *r, const vec *m, const int size)
{
    const int tile = 6;
    const vec sum_a = m[1] + m[2], dif_a = m[1] - m[2], sum_b = m[3] + m[4], dif_b = m[3] - m[4], last = m[5];
    r[0] = vmuladd(vset1(K(FC_NORM_A)), sum_a, vmuladd(vset1(K(FC_NORM_B)), sum_b, m[0]));
    if (size == 2) {
        r[1] = vmuladd(vset1(K(FC_NORM_A * FC_A)), dif_a, vmuladd(vset1(K(FC_NORM_B * FC_B)), dif_b, last));
        return;
    }
    r[1] = vmuladd(vset1(K(FC_NORM_A * FC_A)), dif_a, vset1(K(FC_NORM_B * FC_B)) * dif_b);
    r[2] = vmuladd(vset1(K(FC_NORM_A * FC_A2)), sum_a, vset1(K(FC_NORM_B * FC_B2)) * sum_b);
    r[3] = vmuladd(vset1(K(FC_NORM_A * FC_A * FC_A2)), dif_a, vmuladd(vset1(K(FC_NORM_B * FC_B * FC_B2)), dif_b, last));
}

/* A whole tile and vector of outputs that have no more than a bias and bounds. */
INLINE void N(wino_rows_plain)(const vec *m, T *y, int64_t pixel, vec bias, vec lower, vec upper, const int size)
{
    vec out[4];
    N(wino_rows_a)(out, m, size);
    FC_UNROLL for (int i = 0; i < size; i++, y += pixel) vstore(y, vclamp(out[i] + bias, lower, upper));
}

/* Any others: `columns` outputs of some tiles. */
INLINE void N(wino_rows_tiles)(const fc_winograd_output *o, const vec *m, int vectors, const T *residual, T *y,
                               int64_t columns, const int size)
{
    const T *scale = o->scale, *bias = o->bias;
    for (; columns > 0; columns -= size, y += size * o->y_pixel) {
        for (int64_t k = 0; k < vectors * VL; k += VL, m += 6) {
            const int count = o->channels - k < VL ? (int)(o->channels - k) : VL;
            const T *rest = residual ? residual + k : NULL;
            vec out[4];
            N(wino_rows_a)(out, m, size);
            if (scale) {
                const vec s = N(wino_load)(scale + k, count);
                FC_UNROLL for (int i = 0; i < size; i++) out[i] = vrounded(out[i] * s);
            }
            const vec b = bias ? N(wino_load)(bias + k, count) : (vec){0};
            FC_UNROLL for (int i = 0; i < size; i++) out[i] += b;
            if (columns >= size && count == VL) {
                N(wino_store_tile)(o, out, rest, y + k, size, size);
            } else {
                T part[4 * VL];
                FC_UNROLL for (int i = 0; i < size; i++) vstore(part + i * VL, out[i]);
                N(wino_store_part)(o, part, rest, y + k, 1, columns < size ? (int)columns : size, count, size);
            }
        }
        if (residual)
            residual += size * o->residual_pixel;
    }
}

#if FC_ROWS_POINTS == 6
static __attribute__((noinline)) void N(wino_rows_tiles_3)(const fc_winograd_output *o, const vec *m,
                                                           const T *residual, T *y, int64_t columns)
{
    N(wino_rows_tiles)(o, m, 1, residual, y, columns, 4);
}
static __attribute__((noinline)) void N(wino_rows_tiles_5)(const fc_winograd_output *o, const vec *m,
                                                           const T *residual, T *y, int64_t columns)
{
    N(wino_rows_tiles)(o, m, 1, residual, y, columns, 2);
}

/* What is plain stays in registers. */
INLINE void N(wino_rows_group)(const fc_winograd_lines *g, const fc_winograd_output *o, const T *v, const T *residual,
                               T *y, int64_t columns, const int tiles, const int size)
{
    vec m[FC_ROWS_M];
    N(wino_rows_sum)(g, v, m, tiles, 1);
    if (columns < tiles * size || o->channels < VL || residual || o->scale || o->stream) {
        vec stored[FC_ROWS_M];
        FC_UNROLL for (int i = 0; i < 6 * tiles; i++) stored[i] = m[i];
        (size == 4 ? N(wino_rows_tiles_3) : N(wino_rows_tiles_5))(o, stored, residual, y, columns);
        return;
    }
    const vec bias = o->bias ? vload(o->bias) : (vec){0}, lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    const int64_t pixel = o->y_pixel;
    FC_UNROLL for (int t = 0; t < tiles; t++)
        N(wino_rows_plain)(m + 6 * t, y + t * size * pixel, pixel, bias, lower, upper, size);
}

#define FC_GROUP(r, tiles, size)                                                                                       \
    static void N(wino_rows_##r##_##tiles)(const fc_winograd_lines *g, const fc_winograd_output *o, const T *v,        \
                                           const T *residual, T *y, int64_t columns)                                   \
    {                                                                                                                  \
        N(wino_rows_group)(g, o, v, residual, y, columns, tiles, size);                                                \
    }
#define FC_GROUPS(r, size) FC_GROUP(r, 4, size) FC_GROUP(r, 5, size)
FC_GROUPS(3, 4) FC_GROUPS(5, 2)
#undef FC_GROUPS
#undef FC_GROUP
typedef void N(wino_rows_fn)(const fc_winograd_lines *, const fc_winograd_output *, const T *v, const T *residual, T *y,
                             int64_t columns);
/* [5 taps][tiles] */
#define FC_FOUR(r) N(wino_rows_##r##_4)
#define FC_GROUPS(r) {0, FC_FOUR(r), FC_FOUR(r), FC_FOUR(r), FC_FOUR(r), N(wino_rows_##r##_5)}
static N(wino_rows_fn) *const N(wino_rows_groups)[2][FC_ROWS_TILES + 1] = {FC_GROUPS(3), FC_GROUPS(5)};
#undef FC_GROUPS
#undef FC_FOUR

INLINE void N(wino_rows_some)(const fc_winograd_lines *g, const fc_winograd_output *o, const T *v, const T *residual,
                              T *y, int64_t columns, int64_t tiles, const int size)
{
    N(wino_rows_groups)[size == 2][tiles](g, o, v, residual, y, columns);
}
#else
#define FC_SUM(vectors, tiles)                                                                                         \
    static void N(wino_rows_##vectors##_##tiles)(const fc_winograd_lines *g, const T *v, vec *m)                       \
    {                                                                                                                  \
        N(wino_rows_sum)(g, v, m, tiles, vectors);                                                                     \
    }
FC_SUM(1, 3) FC_SUM(1, 6) FC_SUM(2, 3) FC_SUM(2, 4) FC_SUM(2, 5) FC_SUM(2, 6)
#undef FC_SUM
typedef void N(wino_rows_fn)(const fc_winograd_lines *, const T *v, vec *m);
/* [vectors - 1][tiles] */
static N(wino_rows_fn) *const N(wino_rows_sums)[FC_ROWS_VECTORS][FC_ROWS_TILES + 1] = {
    {0, N(wino_rows_1_3), N(wino_rows_1_3), N(wino_rows_1_3), N(wino_rows_1_6), N(wino_rows_1_6), N(wino_rows_1_6)},
    {0, N(wino_rows_2_3), N(wino_rows_2_3), N(wino_rows_2_3), N(wino_rows_2_4), N(wino_rows_2_5), N(wino_rows_2_6)},
};

INLINE void N(wino_rows_some)(const fc_winograd_lines *g, const fc_winograd_output *o, const T *v, const T *residual,
                              T *y, int64_t columns, int64_t tiles, const int size)
{
    const vec lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    const int64_t vectors = g->vectors, pixel = o->y_pixel;
    vec sums[FC_ROWS_M], *m = sums;
    N(wino_rows_sums)[vectors - 1][tiles](g, v, m);
    if (!residual && !o->scale && !o->stream && o->channels == vectors * VL)
        for (; columns >= size; columns -= size, y += size * pixel)
            for (int64_t k = 0; k < vectors * VL; k += VL, m += 6) {
                const vec bias = o->bias ? vload((const T *)o->bias + k) : (vec){0};
                N(wino_rows_plain)(m, y + k, pixel, bias, lower, upper, size);
            }
    N(wino_rows_tiles)(o, m, (int)vectors, residual, y, columns, size);
}
#endif

/* Near-equal groups of tiles */
INLINE void N(wino_rows)(const fc_winograd_lines *g, const fc_winograd_output *o, const void *residual_, void *y_,
                         int64_t columns, const int size)
{
    const T *v = g->v, *residual = residual_;
    T *y = y_;
    int64_t tiles = (columns + size - 1) / size;
    for (int64_t groups = (tiles + FC_ROWS_TILES - 1) / FC_ROWS_TILES, count; groups > 0; groups--, tiles -= count) {
        count = (tiles + groups - 1) / groups;
        N(wino_rows_some)(g, o, v, residual, y, columns < count * size ? columns : count * size, count, size);
        columns -= count * size;
        v += count * 6 * FC_LINE;
        y += count * size * o->y_pixel;
        if (residual)
            residual += count * size * o->residual_pixel;
    }
}
static void N(winograd_rows_3)(const fc_winograd_lines *g, const fc_winograd_output *o, const void *residual, void *y,
                               int64_t columns)
{
    N(wino_rows)(g, o, residual, y, columns, 4);
}
static void N(winograd_rows_5)(const fc_winograd_lines *g, const fc_winograd_output *o, const void *residual, void *y,
                               int64_t columns)
{
    N(wino_rows)(g, o, residual, y, columns, 2);
}
#define FC_ROWS_line                                                                                                   \
    .row_inputs = N(winograd_row_inputs), .rows = {[3] = N(winograd_rows_3), [5] = N(winograd_rows_5)},                \
    .rows_vectors = FC_ROWS_VECTORS,
#undef FC_ROWS_POINTS
#undef FC_ROWS_TILES
#undef FC_ROWS_M
#else
#define FC_ROWS_line
#endif
#define FC_ROWS_square
