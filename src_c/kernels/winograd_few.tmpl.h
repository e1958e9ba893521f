/* winograd_few.tmpl.h: the products of few tiles, whose weights are transformed on the way; included by
 * winograd.tmpl.h.
 *
 * Of few tiles the sums of a row of points at a time are registers, and u is made on the way: of 3 x 3 taps from all 9,
 * or 3 in the rows of 0 and infinity, 45 vectors read instead of 36 written and read. The points are those of a square
 * without infinity, which all tiles have, and its edges at infinity, which short tiles do not have: a column is a row
 * with the roles of rows and columns exchanged. */
#if FC_VECTOR_BYTES == 64
/* Points of `tiles` tiles in a line, a row or a column: so many, `pitch` apart. Along it a whole tile has `tile`. */
typedef struct {
    int points, tile, tiles;
    int64_t pitch;
} N(few_line);

/* What a phase adds there: v's channels times `rows` x `columns` taps, 1 to 3 of each, w[u * row + v * tap], in G w for
 * the row of points `point`, of a single row of taps as they are, then w G'. For each channel so many cache lines come
 * from `ahead` meanwhile. */
typedef struct {
    const T *v, *w;
    int64_t row, tap;
    T point;
    int rows, columns;
    const char *ahead;
    int lines;
} N(few_taps);

INLINE void N(wino_few_sum)(const fc_winograd_few *g, vec (*acc)[FC_WINOGRAD_FEW], const N(few_line) to,
                            const N(few_taps) k)
{
    const T *v = k.v, *w = k.w;
    const char *ahead = k.ahead;
    for (int64_t c = g->channels; c > 0; c -= FC_LINE, v += g->part, ahead += g->ahead_part) {
        int64_t left = c;
        FC_OPAQUE(left); /* or GCC makes two loops of this one, the last part by itself */
        const T *next = v + g->part, *end = v + (left < FC_LINE ? left : FC_LINE);
        const char *fetch = ahead;
        for (const T *p = v; p < end; p++, w += g->step, fetch += g->ahead_row) {
            vec t[3], all[6], *const r = all + 6 - to.tile;
    FC_UNROLL for (int i = 0; i < k.lines; i++) __builtin_prefetch(fetch + i * 64, 0, 2);
            const T *column = w;
            FC_UNROLL for (int j = 0; j < k.columns; j++, column += k.tap)
            {
                vec in[3], even, odd;
                FC_OPAQUE(column);
                FC_UNROLL for (int i = 0; i < k.rows; i++) in[i] = vload(column + i * k.row);
                t[j] = in[0];
                if (k.rows == 1)
                    continue;
                N(wino_g_parts)(&even, &odd, in, 1, k.rows, k.point);
                t[j] = vmuladd(vset1(k.point), odd, even);
            }
            if (k.columns > 1)
                N(wino_g)(all, t, 1, k.columns, to.tile);
            const T *point_of = p;
            FC_UNROLL for (int e = 0; e < to.points; e++, point_of += to.pitch)
            {
                FC_OPAQUE(point_of);
                FC_UNROLL for (int i = 0; i < to.tiles; i++)
                    acc[e][i] = vmuladd(vset1(point_of[i * FC_LINE]), k.columns > 1 ? r[e] : t[0], acc[e][i]);
            }
        }
        FC_UNROLL for (int e = 0; e < to.points; e++, next += to.pitch)
        {
            FC_OPAQUE(next);
            __builtin_prefetch(next);
        }
    }
}

INLINE void N(wino_few_start)(const fc_winograd_few *g, vec (*acc)[FC_WINOGRAD_FEW], const T *m, const N(few_line) from)
{
    FC_UNROLL for (int e = 0; e < from.points; e++, m += from.pitch)
    {
        FC_OPAQUE(m);
        FC_UNROLL for (int t = 0; t < from.tiles; t++) acc[e][t] = g->accumulate ? vload(m + t * FC_LINE) : (vec){0};
    }
}
INLINE void N(wino_few_end)(vec (*acc)[FC_WINOGRAD_FEW], T *m, const N(few_line) to)
{
    FC_UNROLL for (int e = 0; e < to.points; e++, m += to.pitch)
    {
        FC_OPAQUE(m);
        FC_UNROLL for (int t = 0; t < to.tiles; t++) vstore(m + t * FC_LINE, acc[e][t]);
    }
}

/* 3 x 3 taps. Of 1 or 2 tiles with the last column, which costs less than to transform weights once more. */
INLINE void N(wino_few)(const fc_winograd_few *g, const int tiles)
{
    const int tile = 6;
    const T points[] = {0, K(FC_A), -K(FC_A), K(FC_B), -K(FC_B)};
    const int columns = tiles < FC_WINOGRAD_FEW ? 6 : 5;
    const N(few_line) row = {.points = columns, .tile = tile, .tiles = tiles, .pitch = FC_POINT};
    for (int i = 0; i < 5; i++) {
        vec acc[6][FC_WINOGRAD_FEW];
        T *m = (T *)g->m + 6 * i * FC_POINT;
        N(few_taps) k = {.v = (const T *)g->v + 6 * i * FC_POINT, .w = g->w, .tap = g->tap, .rows = 1, .columns = 3};
        k.ahead = g->ahead + i * 128, k.lines = 2;
        N(wino_few_start)(g, acc, m, row);
        if (i == 0) {
            N(wino_few_sum)(g, acc, row, k);
        } else {
            k.row = g->row, k.rows = 3, k.point = points[i];
            N(wino_few_sum)(g, acc, row, k);
        }
        N(wino_few_end)(acc, m, row);
    }
}
/* Its last point is the corner, which is the row's. */
INLINE void N(wino_few_edge)(const fc_winograd_few *g, const int tiles)
{
    vec acc[6][FC_WINOGRAD_FEW] = {{{0}}};
    const N(few_line) all = {.points = 6, .tile = 6, .tiles = tiles, .pitch = g->pitch};
    const N(few_line) edge = {.points = 5, .tile = 6, .tiles = tiles, .pitch = g->pitch};
    const N(few_line) corner = {.points = 1, .tile = 6, .tiles = tiles, .pitch = g->pitch};
    const T *w = (const T *)g->w + 2 * g->row;
    T *m = g->m;
    N(wino_few_start)(g, acc, m, edge);
    if (g->corner)
        N(wino_few_start)(g, acc + 5, m + 5 * g->pitch, corner);
    const N(few_taps) k = {.v = g->v, .w = w, .tap = g->tap, .rows = 1, .columns = 3, .ahead = g->ahead};
    N(wino_few_sum)(g, acc, all, k);
    N(wino_few_end)(acc, m, edge);
    if (g->corner)
        N(wino_few_end)(acc + 5, m + 5 * g->pitch, corner);
}
#define FC_FEW_OF(name, tiles)                                                                                         \
    static void N(winograd_##name##_##tiles)(const fc_winograd_few *g) { N(wino_##name)(g, tiles); }
FC_FEW_OF(few, 1)
FC_FEW_OF(few, 2)
FC_FEW_OF(few, 4)
FC_FEW_OF(few_edge, 1)
FC_FEW_OF(few_edge, 2)
FC_FEW_OF(few_edge, 4)
#define FC_FEW_square                                                                                                  \
    .multiply_few = {[1] = N(winograd_few_1), [2] = N(winograd_few_2), [4] = N(winograd_few_4)},                       \
    .multiply_few_edge = {[1] = N(winograd_few_edge_1), [2] = N(winograd_few_edge_2), [4] = N(winograd_few_edge_4)},   \
    .multiply_few_at = N(winograd_few_at),

#if FC_F32
/* 2 x 2 taps, or the phases of 3 x 3 with stride 2: 2 x 1, 2 x 2, 1 x 2 and 1 x 1. */
INLINE void N(wino_few_small)(const fc_winograd_few *g, const int tiles)
{
    const int tile = 5;
    const T points[] = {K(FC_A), -K(FC_A), K(FC_B), -K(FC_B)};
    const N(few_line) line = {.points = 4, .tile = tile, .tiles = tiles, .pitch = FC_POINT};
    const int64_t row = g->row, tap = g->tap, phase = g->phase, step = phase ? 2 : 1;
    for (int i = 0; i < 4; i++) {
        vec acc[4][FC_WINOGRAD_FEW];
        const T *v = (const T *)g->v + 5 * i * FC_POINT, *w = g->w;
        T *m = (T *)g->m + 5 * i * FC_POINT;
        const char *ahead = g->ahead + i * (phase ? 3 * 64 : 64);
        const N(few_taps) high = {.v = v, .w = w + tap, .row = 2 * row, .point = points[i], .rows = 2, .columns = 1,
                                  .ahead = ahead + 64, .lines = 1};
        const N(few_taps) square = {.v = v + phase, .w = w, .row = step * row, .tap = step * tap, .point = points[i],
                                    .rows = 2, .columns = 2, .ahead = ahead, .lines = 1};
        const N(few_taps) wide = {.v = v + 2 * phase, .w = w + row, .tap = 2 * tap, .rows = 1, .columns = 2,
                                  .ahead = ahead + 128, .lines = 1};
        const N(few_taps) one = {.v = v + 3 * phase, .w = w + row + tap, .rows = 1, .columns = 1, .ahead = g->ahead};
        N(wino_few_start)(g, acc, m, line);
        if (phase)
            N(wino_few_sum)(g, acc, line, high);
        N(wino_few_sum)(g, acc, line, square);
        if (phase) {
            N(wino_few_sum)(g, acc, line, wide);
            N(wino_few_sum)(g, acc, line, one);
        }
        N(wino_few_end)(acc, m, line);
    }
}

/* Its phases: of a row the first two, of a column those after the first; the one with a single tap along it comes first
 * or last. */
INLINE void N(wino_few_small_edge)(const fc_winograd_few *g, const int tiles)
{
    vec acc[5][FC_WINOGRAD_FEW] = {{{0}}};
    const N(few_line) all = {.points = 5, .tile = 5, .tiles = tiles, .pitch = g->pitch};
    const N(few_line) edge = {.points = 4, .tile = 5, .tiles = tiles, .pitch = g->pitch};
    const N(few_line) corner = {.points = 1, .tile = 5, .tiles = tiles, .pitch = g->pitch};
    const int64_t phase = g->phase, step = phase ? 2 : 1;
    const T *v = g->v, *w = (const T *)g->w + step * g->row;
    const N(few_taps) pair = {.v = v + phase, .w = w, .tap = step * g->tap, .rows = 1, .columns = 2, .ahead = g->ahead};
    T *m = g->m;
    N(wino_few_start)(g, acc, m, edge);
    if (g->corner)
        N(wino_few_start)(g, acc + 4, m + 4 * g->pitch, corner);
    for (int i = 0; i < 2; i++)
        if (i == g->corner || !phase) {
            N(wino_few_sum)(g, acc, all, pair);
            if (!phase)
                break;
        } else {
            const T *from = v + 2 * i * phase;
            const N(few_taps) one = {.v = from, .w = w + g->tap, .rows = 1, .columns = 1, .ahead = g->ahead};
            N(wino_few_sum)(g, acc, edge, one);
        }
    N(wino_few_end)(acc, m, edge);
    if (g->corner)
        N(wino_few_end)(acc + 4, m + 4 * g->pitch, corner);
}
FC_FEW_OF(few_small, 4)
FC_FEW_OF(few_small_edge, 2)
#define FC_FEW_small_square                                                                                            \
    .multiply_few = {[4] = N(winograd_few_small_4)}, .multiply_few_edge = {[2] = N(winograd_few_small_edge_2)},
#else
#define FC_FEW_small_square
#endif
#undef FC_FEW_OF
/* ---- the gradient of the weight --------------------------------------------------------------------------------*/
#define FC_FEW_AT 4 /* outputs whose sums of a column of points are registers */

/* A' with the last addition in the chain of the products: of few tiles it costs nearly as much as these. */
INLINE void N(wino_few_a)(vec *r, const vec *m, int step)
{
    const int tile = 6;
    const vec sum_a = m[step] + m[2 * step], sum_b = m[3 * step] + m[4 * step];
    const vec dif_a = m[step] - m[2 * step], dif_b = m[3 * step] - m[4 * step];
    r[0] = vmuladd(vset1(K(FC_NORM_A)), sum_a, vmuladd(vset1(K(FC_NORM_B)), sum_b, m[0]));
    r[1] = vmuladd(vset1(K(FC_NORM_A * FC_A)), dif_a, vset1(K(FC_NORM_B * FC_B)) * dif_b);
    r[2] = vmuladd(vset1(K(FC_NORM_A * FC_A2)), sum_a, vmuladd(vset1(K(FC_NORM_B * FC_B2)), sum_b, m[5 * step]));
}

INLINE void N(wino_few_at_tiles)(vec (*acc)[FC_FEW_AT], const T *v, const T *d, int64_t tiles, const int rows)
{
    for (const T *end = v + tiles * FC_LINE; v < end; v += FC_LINE, d += FC_LINE)
        FC_UNROLL for (int i = 0; i < rows; i++)
        {
            const vec a = vload(v + 6 * i * FC_POINT);
            FC_UNROLL for (int k = 0; k < FC_FEW_AT; k++)
                acc[i][k] = vmuladd(vset1(d[6 * i * FC_POINT + k]), a, acc[i][k]);
        }
}

/* The sums of a column of points are transformed as soon as they are there, into 3 rows, which wait for the other
 * columns in the first-level cache. */
static __attribute__((noinline)) void N(wino_few_columns)(const fc_winograd_few_at *g, vec (*columns)[6][3])
{
    const char *ahead = g->ahead;
    for (int j = 0; j < 6; j++) {
        const int last = j == 5;
        const int64_t whole = g->whole[last] * FC_LINE, at = j * FC_POINT + g->first[last] * FC_LINE;
        const T *v = (const T *)g->v + at, *d = (const T *)g->d + at;
        for (int k = 0; k < FC_LINE; k += FC_FEW_AT, ahead += g->ahead_row) {
            vec acc[6][FC_FEW_AT] = {{{0}}};
            for (int line = 0; j < FC_FEW_AT && line < 9; line++) /* of LINE outputs, in the first of the columns */
                __builtin_prefetch(ahead + line * 64, 1, 3);
            N(wino_few_at_tiles)(acc, v, d + k, g->whole[last], 6);
            N(wino_few_at_tiles)(acc, v + whole, d + k + whole, g->others[last], 5);
            FC_UNROLL for (int i = 0; i < FC_FEW_AT; i++) N(wino_few_a)(columns[k + i][j], &acc[0][i], FC_FEW_AT);
        }
    }
}

static void N(winograd_few_at)(const fc_winograd_few_at *g)
{
    const N(zip_lanes) lanes = N(zip_lanes_of)();
    vec columns[FC_LINE][6][3];
    T *w = g->w;
    N(wino_few_columns)(g, columns);
    for (int64_t k = 0; k < g->outputs; k++, w += g->row) {
        vec m[18], r[9];
        FC_UNROLL for (int i = 0; i < 18; i++) m[i] = vrounded(columns[k][i / 3][i % 3]); /* keeps it in a register */
        FC_UNROLL for (int u = 0; u < 3; u++) N(wino_few_a)(r + 3 * u, m + u, 3);
        if (g->tap > 1) {
            FC_UNROLL for (int i = 0; i < 9; i++) vstore(w + i * g->tap, r[i]);
        } else if (g->channels == VL) {
            N(join_nine)(r, w, &lanes);
        } else {
            T joined[9 * VL];
            N(join_nine)(r, joined, &lanes);
            memcpy(w, joined, (size_t)(9 * g->channels) * sizeof(T));
        }
    }
}
#undef FC_FEW_AT
#else
#define FC_FEW_square FC_PAIRS_square
#define FC_FEW_small_square
#endif
#define FC_FEW_line
#define FC_FEW_small_line
