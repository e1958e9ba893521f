/* winograd_pairs.tmpl.h: the products of few tiles with 16 registers, through the first-level cache; included by
 * winograd.tmpl.h.
 *
 * u is four times the weight, and to write it to the second-level cache and read it again takes longer than the
 * products of few tiles. The sums of a row of points, as in winograd_few.tmpl.h, have no room in 16 registers beside
 * the weights. So u is made of two rows of points at a time, which share what a point and its negative do, of so few
 * channels that it stays in the first-level cache until all tiles are multiplied. The operations and their order are
 * those of the other schedules, so the bits are the same. */
#if FC_VECTOR_BYTES < 64
/* Pitch of a point of u: constants of the compiler are no instructions. */
#define FC_PAIR_POINT(vectors) (FC_WINOGRAD_PAIR_CHANNELS * (vectors) * VL + FC_LINE)

INLINE void N(wino_pair)(const fc_winograd_pair *g, const int pair, const int vectors)
{
    enum { LINES = 10 }; /* 9 of taps, which begin anywhere; of double twice as many, of which half are fetched */
    const int tile = 6, first = LINES * pair / 3, lines = LINES * (pair + 1) / 3 - first;
    const T point = pair == 1 ? K(FC_A) : K(FC_B);
    const int64_t row = g->row, tap = g->tap, step = g->step - (vectors - 1) * VL, ahead_row = g->ahead_row;
    const char *ahead = g->ahead + first * 64;
    const T *w0 = g->w, *w1 = w0 + row, *w2 = w1 + row;
    T *u = g->u;
    for (int64_t c = g->channels; c > 0; c--, ahead += ahead_row) {
    FC_UNROLL for (int i = 0; i < lines; i++) __builtin_prefetch(ahead + i * 64, 0, 2);
        FC_UNROLL for (int j = 0; j < vectors; j++, u += VL)
        {
            vec low[3], high[3], r[6];
            FC_UNROLL for (int i = 0; i < 3; i++)
            {
                if (pair == 0) {
                    low[i] = vload(w0 + i * tap), high[i] = vload(w2 + i * tap);
                    continue;
                }
                const vec in[3] = {vload(w0 + i * tap), vload(w1 + i * tap), vload(w2 + i * tap)};
                vec even, odd;
                N(wino_g_parts)(&even, &odd, in, 1, 3, point);
                low[i] = vmuladd(vset1(point), odd, even);
                high[i] = vmuladd(vset1(-point), odd, even);
            }
            N(wino_g)(r, low, 1, 3, tile);
            FC_UNROLL for (int i = 0; i < 6; i++) vstore(u + i * FC_PAIR_POINT(vectors), r[i]);
            N(wino_g)(r, high, 1, 3, tile);
            FC_UNROLL for (int i = 0; i < 6; i++) vstore(u + (6 + i) * FC_PAIR_POINT(vectors), r[i]);
            const int64_t next = j + 1 < vectors ? VL : step;
            w0 += next, w1 += next, w2 += next;
        }
    }
}

typedef void N(wino_weights_pair_fn)(const fc_winograd_pair *);
#define FC_PAIR_WEIGHTS(pair, vectors)                                                                                 \
    static void N(wino_weights_##pair##_##vectors)(const fc_winograd_pair *g) { N(wino_pair)(g, pair, vectors); }
FC_PAIR_WEIGHTS(0, 1)
FC_PAIR_WEIGHTS(0, 2)
FC_PAIR_WEIGHTS(1, 1)
FC_PAIR_WEIGHTS(1, 2)
FC_PAIR_WEIGHTS(2, 1)
FC_PAIR_WEIGHTS(2, 2)
#undef FC_PAIR_WEIGHTS
static void N(winograd_weights_pair)(const fc_winograd_pair *g)
{
    static N(wino_weights_pair_fn) *const kernels[3][2] = {{N(wino_weights_0_1), N(wino_weights_0_2)},
                                                           {N(wino_weights_1_1), N(wino_weights_1_2)},
                                                           {N(wino_weights_2_1), N(wino_weights_2_2)}};
    kernels[g->pair][g->vectors - 1](g);
}

/* One step of the sums. */
#define FC_PAIR_STEP                                                                                                   \
    FC_UNROLL for (int q = 0; q < points; q++)                                                                         \
    {                                                                                                                  \
        const vec u0 = vload(u[q]), u1 = vectors > 1 ? vload(u[q] + VL) : u0;                                          \
        FC_UNROLL for (int i = 0; i < tiles; i++)                                                                      \
        {                                                                                                              \
            const vec a = vset1(v[q][i * FC_LINE]);                                                                    \
            acc[q][i][0] = vmuladd(a, u0, acc[q][i][0]);                                                               \
            if (vectors > 1)                                                                                           \
                acc[q][i][1] = vmuladd(a, u1, acc[q][i][1]);                                                           \
        }                                                                                                              \
        v[q]++, u[q] += vectors * VL;                                                                                  \
    }

/* `tiles` of a brick at `points` points of the list from index e on; the points `next` come into the first-level cache
 * meanwhile. */
INLINE void N(wino_pair_tiles)(const fc_winograd_pair_product *g, int e, int next, const T *v_, T *m_, const int tiles,
                               const int points, const int vectors)
{
    const int64_t part = g->part;
    const T *v[3], *u[3];
    T *m[3];
    vec acc[3][FC_WINO_ROWS][2];
    FC_UNROLL for (int q = 0; q < points; q++)
    {
        v[q] = v_ + g->at[e + q] * FC_POINT, m[q] = m_ + g->at[e + q] * FC_POINT;
        u[q] = (const T *)g->u + g->from[e + q] * FC_PAIR_POINT(vectors);
        FC_UNROLL for (int i = 0; i < tiles; i++)
            FC_UNROLL for (int j = 0; j < vectors; j++)
                acc[q][i][j] = g->accumulate ? vload(m[q] + i * FC_LINE + FC_VECTOR(j)) : (vec){0};
        const int64_t then = g->at[next + q] * FC_POINT;
        FC_UNROLL for (int i = 0; i < tiles; i++)
        {
            __builtin_prefetch(v_ + then + i * FC_LINE);
            __builtin_prefetch(m_ + then + i * FC_LINE, 1);
        }
    }
    for (int64_t c = g->channels; c > 0; c -= FC_LINE) {
        if (c >= FC_LINE) {
            _Pragma("GCC unroll 4") for (int k = 0; k < FC_LINE; k++) FC_PAIR_STEP
        } else {
            for (int k = 0; k < (int)c; k++)
                FC_PAIR_STEP
        }
        FC_UNROLL for (int q = 0; q < points; q++) v[q] += part - FC_LINE;
    }
    FC_UNROLL for (int q = 0; q < points; q++)
        FC_UNROLL for (int i = 0; i < tiles; i++)
            FC_UNROLL for (int j = 0; j < vectors; j++) vstore(m[q] + i * FC_LINE + FC_VECTOR(j), acc[q][i][j]);
}
#undef FC_PAIR_STEP

/* As many points at a time as there are registers for, so that no sum waits for the one before it. */
INLINE void N(wino_pair_group)(const fc_winograd_pair_product *g, int e, int end, const T *v, T *m, const int tiles,
                               const int vectors)
{
    const int most = FC_WINO_ROWS / tiles, points = most < 3 ? most : 3;
    for (; e + points <= end; e += points)
        N(wino_pair_tiles)(g, e, e + 2 * points <= end ? e + points : e, v, m, tiles, points, vectors);
    if (points > 2 && e + 2 == end)
        N(wino_pair_tiles)(g, e, e, v, m, tiles, 2, vectors);
    else if (points > 1 && e < end)
        N(wino_pair_tiles)(g, e, e, v, m, tiles, 1, vectors);
}

typedef void N(wino_pair_fn)(const fc_winograd_pair_product *, int e, int end, const T *v, T *m);
#define FC_PAIR(tiles, vectors)                                                                                        \
    static void N(wino_pair_##vectors##_##tiles)(const fc_winograd_pair_product *g, int e, int end, const T *v, T *m)  \
    {                                                                                                                  \
        N(wino_pair_group)(g, e, end, v, m, tiles, vectors);                                                           \
    }
#define FC_PAIRS(tiles) FC_PAIR(tiles, 1) FC_PAIR(tiles, 2)
FC_PAIRS(1) FC_PAIRS(2) FC_PAIRS(3) FC_PAIRS(4) FC_PAIRS(5) FC_PAIRS(6)
#undef FC_PAIRS
#undef FC_PAIR
#define FC_BOTH(tiles) {N(wino_pair_1_##tiles), N(wino_pair_2_##tiles)}
static N(wino_pair_fn) *const N(wino_pairs)[FC_WINO_ROWS + 1][2] = {{0, 0},     FC_BOTH(1), FC_BOTH(2), FC_BOTH(3),
                                                                    FC_BOTH(4), FC_BOTH(5), FC_BOTH(6)};
#undef FC_BOTH

static void N(winograd_multiply_pair)(const fc_winograd_pair_product *g)
{
    for (int i = 0, e = 0; i < g->runs; e += g->run[i++].points) {
        const int64_t skipped = g->run[i].first / g->share, first = g->run[i].first - skipped * g->share;
        const T *v = (const T *)g->v + skipped * g->v_brick;
        T *m = (T *)g->m + skipped * g->m_brick;
        int64_t at = first * FC_LINE, brick = g->share - first;
        for (int64_t left = g->run[i].tiles; left > 0;
             left -= brick, brick = g->share, at = 0, v += g->v_brick, m += g->m_brick) {
            const int64_t rows = left < brick ? left : brick, groups = (rows + FC_WINO_ROWS - 1) / FC_WINO_ROWS;
            for (int64_t k = 0, row = 0; k < groups; k++) {
                const int64_t count = (rows - row + groups - k - 1) / (groups - k);
                N(wino_pairs)[count][g->vectors - 1](g, e, e + g->run[i].points, v + at, m + at);
                row += count, at += count * FC_LINE;
            }
        }
    }
}
#undef FC_PAIR_POINT
#define FC_PAIRS_square .weights_pair = N(winograd_weights_pair), .multiply_pair = N(winograd_multiply_pair),
#endif
