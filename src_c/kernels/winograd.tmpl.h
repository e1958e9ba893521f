/* winograd.tmpl.h: 6-point transforms with the points 0, +-a, +-b, infinity, a = 5/8, b = 3/2, and those of 5 points without 0,
 * a = 1/2, b = 5/4.
 *
 * With the polynomials M_j(x) = prod_{l != j} (x - p_l) over the finite points and M(x) = prod_l (x - p_l):
 *     B' row j = coefficients of M_j (row 0 divided by M_0(0)),   row 5 = coefficients of M
 *     G  row j = (1, p_j, p_j^2, ..),   row 5 = (.., 0, 1)
 *     A' row i = (p_0^i, p_1^i / M_1(p_1), .., p_4^i / M_4(p_4), i == last)
 * The divisions by M_j(p_j) may stand in any of the three; in A' (and for 0, whose M_0 has a coefficient to spare, in B')
 * they cost no operation. Without the point 0 M_j and M lose a factor x: the rows of B' are the same ones a place further left,
 * A' begins with what was its row 1, G is the same.
 * The points decide the rounding error: the root mean square error of F(4x4, 3x3) is 1.75 times that of a direct sum with
 * these, 4 times with the textbook points 0, +-1, +-2 (docs/accuracy.md).
 */
/* Of the tile that the function around them names `tile`. */
#define FC_A (tile == 6 ? 0.625 : 0.5)
#define FC_B (tile == 6 ? 1.5 : 1.25)
#define FC_A2 (FC_A * FC_A)
#define FC_B2 (FC_B * FC_B)
#define FC_NORM_A (1 / (2 * FC_A2 * (FC_A2 - FC_B2))) /* 1 / M_1(a) = 1 / M_2(-a) of 6 points; of 5, +-a times that */
#define FC_NORM_B (1 / (2 * FC_B2 * (FC_B2 - FC_A2)))
#define FC_UNROLL _Pragma("GCC unroll 28")
#define K(x) ((T)(x))

/* Register tiles of the products: 2 x FC_WINO_ROWS accumulators, one vector of twice as many tiles or two vectors of them; with 2 of
 * u and 1 broadcast they take 31 of 32 registers, or 15 of 16. A brick is the larger of the two. Its pitch has a cache line more,
 * so that the 36 streams of a transform fall into different L1 sets. */
#if FC_VECTOR_BYTES == 64
#define FC_WINO_ROWS 14
#else
#define FC_WINO_ROWS 6
#endif
#define FC_BRICK (2 * FC_WINO_ROWS)
#define FC_LINE (64 / (int)sizeof(T))
#define FC_POINT (FC_BRICK * FC_LINE + FC_LINE)
/* Points along an axis, of squares or lines. */
#define FC_WINO_TILE (points % 6 == 0 ? 6 : 5)
/* Where channel c, the first of a vector, is in a brick of `points` points. */
#define FC_CHANNEL(c) ((c) / FC_LINE * (points * FC_POINT) + (c) % FC_LINE)

INLINE vec N(wino_load)(const T *p, int count) { return count >= VL ? vload(p) : vload_tail(p, count); }

/* B' d, row by row; rows 1 and 2, and 3 and 4, share their even and odd parts. Said operation by operation: the kernels of inner
 * tiles and of border tiles must round alike. */
INLINE vec N(wino_b0)(vec d0, vec d2, vec d4)
{
    const int tile = 6;
    return vmuladd(vset1(K(1 / (FC_A2 * FC_B2))), d4, vmuladd(vset1(-K(1 / FC_A2 + 1 / FC_B2)), d2, d0));
}
INLINE vec N(wino_b5)(vec d1, vec d3, vec d5, const int tile)
{
    return vmuladd(vset1(K(FC_A2 * FC_B2)), d1, vmuladd(vset1(-K(FC_A2 + FC_B2)), d3, d5));
}
INLINE void N(wino_b12)(vec *r1, vec *r2, vec d1, vec d2, vec d3, vec d4, const int tile)
{
    const vec even = vmuladd(vset1(-K(FC_B2)), d2, d4), odd = vmuladd(vset1(-K(FC_B2)), d1, d3);
    *r1 = vmuladd(vset1(K(FC_A)), odd, even);
    *r2 = vmuladd(vset1(-K(FC_A)), odd, even);
}
INLINE void N(wino_b34)(vec *r3, vec *r4, vec d1, vec d2, vec d3, vec d4, const int tile)
{
    const vec even = vmuladd(vset1(-K(FC_A2)), d2, d4), odd = vmuladd(vset1(-K(FC_A2)), d1, d3);
    *r3 = vmuladd(vset1(K(FC_B)), odd, even);
    *r4 = vmuladd(vset1(-K(FC_B)), odd, even);
}

/* v[j * pitch] = (B' d)[j]; the last one only if it is wanted */
INLINE void N(wino_store_b)(const vec *d, T *v, const int64_t pitch, const int tile, int last)
{
    vec r1, r2, r3, r4;
    if (tile == 6) {
        vstore(v, N(wino_b0)(d[0], d[2], d[4]));
        v += pitch;
        d++;
    }
    N(wino_b12)(&r1, &r2, d[0], d[1], d[2], d[3], tile);
    N(wino_b34)(&r3, &r4, d[0], d[1], d[2], d[3], tile);
    vstore(v, r1);
    vstore(v + pitch, r2);
    vstore(v + 2 * pitch, r3);
    vstore(v + 3 * pitch, r4);
    if (last)
        vstore(v + 4 * pitch, N(wino_b5)(d[0], d[2], d[4], tile));
}

/* even + point^2 (..) and odd + .. of 2 to 5 taps g[0], g[step], ..: what a point and its negative share. Said operation by operation:
 * all kernels that transform weights must round alike. */
INLINE void N(wino_g_parts)(vec *even, vec *odd, const vec *g, int step, const int taps, T point)
{
    const vec square = vset1(point * point);
    *even = g[0], *odd = g[step];
    if (taps > 2)
        *even = vmuladd(square, taps > 4 ? vmuladd(square, g[4 * step], g[2 * step]) : g[2 * step], *even);
    if (taps > 3)
        *odd = vmuladd(square, g[3 * step], *odd);
}

/* r = G g */
INLINE void N(wino_g)(vec *r, const vec *g, int step, const int taps, const int tile)
{
    vec even, odd;
    r[0] = g[0];
    N(wino_g_parts)(&even, &odd, g, step, taps, K(FC_A));
    r[1] = vmuladd(vset1(K(FC_A)), odd, even);
    r[2] = vmuladd(vset1(-K(FC_A)), odd, even);
    N(wino_g_parts)(&even, &odd, g, step, taps, K(FC_B));
    r[3] = vmuladd(vset1(K(FC_B)), odd, even);
    r[4] = vmuladd(vset1(-K(FC_B)), odd, even);
    r[5] = g[(taps - 1) * step];
}

/* r = A' m, 2 to 5 outputs */
INLINE void N(wino_a)(vec *r, const vec *m, int step, const int outputs, const int tile)
{
    if (tile == 6)
        m += step;
    const vec sum_a = m[0] + m[step], dif_a = m[0] - m[step];
    const vec sum_b = m[2 * step] + m[3 * step], dif_b = m[2 * step] - m[3 * step], last = m[4 * step];
    if (tile == 6)
        *r++ = m[-step] + K(FC_NORM_A) * sum_a + K(FC_NORM_B) * sum_b;
    const int others = tile == 6 ? outputs - 1 : outputs;
    r[0] = K(FC_NORM_A * FC_A) * dif_a + K(FC_NORM_B * FC_B) * dif_b;
    if (others > 1)
        r[1] = K(FC_NORM_A * FC_A2) * sum_a + K(FC_NORM_B * FC_B2) * sum_b;
    if (others > 2)
        r[2] = K(FC_NORM_A * FC_A * FC_A2) * dif_a + K(FC_NORM_B * FC_B * FC_B2) * dif_b;
    if (others > 3)
        r[3] = K(FC_NORM_A * FC_A2 * FC_A2) * sum_a + K(FC_NORM_B * FC_B2 * FC_B2) * sum_b;
    r[others - 1] += last;
}

/* One vector of channels of a tile. Row by row of B' over the columns first: 12 vectors are alive at a time, while all 36
 * would be stored and loaded once more. FC_X(i, j) loads pixel (i, j), rows of tiles of 5 being 1 to 5; their last row and column
 * are read only where the last row or column of points is wanted. */
#define FC_WINO_SQUARE                                                                                                 \
    {                                                                                                                  \
        vec t[6] = {{0}}, q[6] = {{0}};                                                                                \
        if (tile == 6) {                                                                                               \
            FC_UNROLL for (int j = 0; j < 6; j++) t[j] = N(wino_b0)(FC_X(0, j), FC_X(2, j), FC_X(4, j));               \
            N(wino_store_b)(t, v, FC_POINT, tile, 1);                                                                  \
            v += 6 * FC_POINT;                                                                                         \
        }                                                                                                              \
        FC_UNROLL for (int j = 0; j < tile; j++) if (j < 4 || columns)                                                 \
            N(wino_b12)(t + j, q + j, FC_X(1, j), FC_X(2, j), FC_X(3, j), FC_X(4, j), tile);                           \
        N(wino_store_b)(t, v, FC_POINT, tile, columns);                                                                \
        N(wino_store_b)(q, v + tile * FC_POINT, FC_POINT, tile, columns);                                              \
        FC_UNROLL for (int j = 0; j < tile; j++) if (j < 4 || columns)                                                 \
            N(wino_b34)(t + j, q + j, FC_X(1, j), FC_X(2, j), FC_X(3, j), FC_X(4, j), tile);                           \
        N(wino_store_b)(t, v + 2 * tile * FC_POINT, FC_POINT, tile, columns);                                          \
        N(wino_store_b)(q, v + 3 * tile * FC_POINT, FC_POINT, tile, columns);                                          \
        if (rows) {                                                                                                    \
            FC_UNROLL for (int j = 0; j < tile; j++) if (j < 4 || columns) t[j] =                                      \
                N(wino_b5)(FC_X(1, j), FC_X(3, j), FC_X(5, j), tile);                                                  \
            N(wino_store_b)(t, v + 4 * tile * FC_POINT, FC_POINT, tile, columns);                                      \
        }                                                                                                              \
    }
#define FC_WINO_LINE                                                                                                   \
    {                                                                                                                  \
        vec t[6];                                                                                                      \
        FC_UNROLL for (int j = 0; j < tile; j++) t[j] = tile == 6 ? FC_X(0, j) : FC_X(1, j);                           \
        N(wino_store_b)(t, v, FC_POINT, tile, 1);                                                                      \
    }
#define FC_WINO_INPUT                                                                                                  \
    {                                                                                                                  \
        T *v = (T *)v_ + FC_CHANNEL(c);                                                                                \
        if (points == tile)                                                                                            \
            FC_WINO_LINE                                                                                               \
        else                                                                                                           \
            FC_WINO_SQUARE                                                                                             \
    }
#define FC_WINO_CHANNELS (last & FC_WHOLE_PARTS ? (channels + FC_LINE - 1) / FC_LINE * FC_LINE : channels)
/* Whether the last row and column of points are wanted; tiles of 6 are always written whole: a test costs more than the lines. */
#define FC_WINO_WANTED                                                                                                 \
    const int tile = FC_WINO_TILE, rows = tile == 6 || last & FC_LAST_ROW, columns = tile == 6 || last & FC_LAST_COLUMN

INLINE void N(wino_input)(const void *x_, int64_t row, int64_t pixel, int64_t channels, int last, void *v_,
                          const int points)
{
    FC_WINO_WANTED;
    const T *x0 = x_, *x1 = tile == 6 ? x0 + row : x0, *x2 = x1 + row, *x3 = x2 + row, *x4 = x3 + row, *x5 = x4 + row;
    int64_t c = 0;
#define FC_X(i, j) vload(x##i + (j) * pixel)
    for (; c + VL <= channels; c += VL, x0 += VL, x1 += VL, x2 += VL, x3 += VL, x4 += VL, x5 += VL)
        FC_WINO_INPUT
#undef FC_X
#define FC_X(i, j) vload_tail(x##i + (j) * pixel, (int)(channels - c))
    for (; c < FC_WINO_CHANNELS; c += VL)
        FC_WINO_INPUT
#undef FC_X
}

INLINE void N(wino_input_border)(const void *const *x, int64_t channels, int last, void *v_, const int points)
{
    FC_WINO_WANTED;
    int64_t c = 0;
#define FC_AT(i, j) ((const T *)x[tile * (tile == 6 ? (i) : (i) - 1) + (j)] + c)
#define FC_X(i, j) vload(FC_AT(i, j))
    for (; c + VL <= channels; c += VL)
        FC_WINO_INPUT
#undef FC_X
#define FC_X(i, j) vload_tail(FC_AT(i, j), (int)(channels - c))
    for (; c < FC_WINO_CHANNELS; c += VL)
        FC_WINO_INPUT
#undef FC_X
#undef FC_AT
}
#undef FC_WINO_WANTED
#undef FC_WINO_CHANNELS
#undef FC_WINO_INPUT
#undef FC_WINO_LINE
#undef FC_WINO_SQUARE

INLINE void N(wino_weights)(const void *w_, int64_t row, int64_t tap, int64_t count, void *u_, int64_t pitch,
                            const int taps, const int points)
{
    const int tile = FC_WINO_TILE, lines = points == tile ? 1 : taps;
    const T *w = w_;
    T *u = u_;
    for (int64_t c = 0; c < count; c += VL) {
        vec g[25], t[30], all[6], *const r = all + 6 - tile;
    FC_UNROLL for (int i = 0; i < lines; i++)
            FC_UNROLL for (int j = 0; j < taps; j++) g[taps * i + j] = vload(w + i * row + j * tap + c);
        if (lines == 1) {
            N(wino_g)(all, g, 1, taps, tile);
            FC_UNROLL for (int j = 0; j < tile; j++) vstore(u + j * pitch + c, r[j]);
            continue;
        }
        FC_UNROLL for (int j = 0; j < taps; j++)
        {
            N(wino_g)(all, g + j, taps, taps, tile);
            FC_UNROLL for (int i = 0; i < tile; i++) t[taps * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < tile; i++)
        {
            N(wino_g)(all, t + taps * i, 1, taps, tile);
            FC_UNROLL for (int j = 0; j < tile; j++) vstore(u + (tile * i + j) * pitch + c, r[j]);
        }
    }
}

/* ---- products --------------------------------------------------------------------------------------------------------*/
/* They serve squares and lines: the pitch of a part is their argument. FC_VECTOR(j): where vector j of channels is.
 * FC_OPAQUE: or GCC keeps an address for every row, more than there are registers. */
#define FC_VECTOR(j) ((j) * VL / FC_LINE * part + (j) * VL % FC_LINE)
#define FC_OPAQUE(p) __asm__("" : "+r"(p))

/* A step of the sum costs `rows` broadcasts and one or two loads for rows * vectors fused multiply-adds. */
INLINE void N(wino_product)(const T *v, const T *u, const T *const *phase, T *m, const T *after,
                            const fc_winograd_product *g, const int rows, const int vectors)
{
    const int64_t part = g->part;
    T *m1 = m + FC_VECTOR(1);
    FC_OPAQUE(m1);
    vec acc[FC_BRICK][2];
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++)
            acc[i][j] = g->accumulate ? vload((j ? m1 : m) + i * FC_LINE) : (vec){0};
    for (int64_t c = g->channels, next_phase = c - g->phase_channels; c > 0; c -= FC_LINE) {
        if (c == next_phase) {
            u = *++phase;
            next_phase -= g->phase_channels;
        }
        const T *end = v + (c < FC_LINE ? c : FC_LINE), *next = c > FC_LINE ? v + part : after, *fetch = next;
        for (const T *p = v; p < end; p++, u += vectors * VL, fetch += FC_LINE) {
            __builtin_prefetch(fetch); /* too far for a stream */
            const vec u0 = vload(u), u1 = vectors > 1 ? vload(u + VL) : u0;
            FC_UNROLL for (int i = 0; i < rows; i++)
            {
                const vec a = vset1(p[i * FC_LINE]);
                acc[i][0] = vmuladd(a, u0, acc[i][0]);
                if (vectors > 1)
                    acc[i][1] = vmuladd(a, u1, acc[i][1]);
            }
        }
        v = next;
    }
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++) vstore((j ? m1 : m) + i * FC_LINE, acc[i][j]);
}

typedef void N(wino_product_fn)(const T *v, const T *u, const T *const *phase, T *m, const T *after,
                                const fc_winograd_product *);
#define FC_PRODUCT_OF(name, rows, vectors)                                                                             \
    static void N(name)(const T *v, const T *u, const T *const *phase, T *m, const T *after,                           \
                        const fc_winograd_product *g)                                                                  \
    {                                                                                                                  \
        N(wino_product)(v, u, phase, m, after, g, rows, vectors);                                                      \
    }
#define FC_PRODUCT(n) FC_PRODUCT_OF(wino_product_1_##n, 2 * n, 1) FC_PRODUCT_OF(wino_product_2_##n, n, 2)
FC_PRODUCT(1) FC_PRODUCT(2) FC_PRODUCT(3) FC_PRODUCT(4) FC_PRODUCT(5) FC_PRODUCT(6)
#if FC_WINO_ROWS == 14
FC_PRODUCT(7) FC_PRODUCT(8) FC_PRODUCT(9) FC_PRODUCT(10) FC_PRODUCT(11) FC_PRODUCT(12) FC_PRODUCT(13) FC_PRODUCT(14)
#endif
#undef FC_PRODUCT
#undef FC_PRODUCT_OF

/* [n]: one vector of 2 n tiles; two vectors of n */
#define FC_BOTH(n) {N(wino_product_1_##n), N(wino_product_2_##n)}
static N(wino_product_fn) *const N(wino_products)[FC_WINO_ROWS + 1][2] = {
    {0, 0}, FC_BOTH(1), FC_BOTH(2), FC_BOTH(3), FC_BOTH(4), FC_BOTH(5), FC_BOTH(6),
#if FC_WINO_ROWS == 14
    FC_BOTH(7), FC_BOTH(8), FC_BOTH(9), FC_BOTH(10), FC_BOTH(11), FC_BOTH(12), FC_BOTH(13), FC_BOTH(14),
#endif
};
#undef FC_BOTH

/* Tiles of a brick in near-equal groups; one vector: in pairs, of which the last may be half nothing. */
static void N(winograd_multiply)(const fc_winograd_product *g)
{
    const int step = g->vectors > 1 ? 1 : 2;
    const char *ahead = g->ahead;
    for (int e = 0; e < g->points; e++) {
        for (int64_t i = 0; i < g->ahead_lines; i++, ahead += 64)
            __builtin_prefetch(ahead, 0, 2);
        const T *v = (const T *)g->v + e * FC_POINT, *next = v + g->first * FC_LINE + FC_POINT;
        const T *u[FC_WINOGRAD_PHASES];
        for (int f = 0; f < g->phases; f++)
            u[f] = (const T *)g->u[f] + e * g->u_point;
        T *m = (T *)g->m + e * FC_POINT;
        int64_t at = g->first * FC_LINE, brick = g->share - g->first;
        for (int64_t left = g->tiles; left > 0; left -= brick, brick = g->share, at = 0, v += g->v_brick, m += g->m_brick) {
            const int64_t rows = ((left < brick ? left : brick) + step - 1) / step;
            const int64_t groups = (rows + FC_WINO_ROWS - 1) / FC_WINO_ROWS;
            for (int64_t i = 0, row = 0; i < groups; i++) {
                const int64_t count = (rows - row + groups - i - 1) / (groups - i), to = at + count * step * FC_LINE;
                row += count;
                const T *after = i + 1 < groups ? v + to : left > brick ? v + g->v_brick : next;
                N(wino_products)[count][g->vectors - 1](v + at, u[0], u, m + at, after, g);
                at = to;
            }
        }
    }
}

/* The sum over tiles. Channels are rows here, those of a part in equal groups: 8 by two vectors or 16 by one (AVX-512), 6 by two
 * or 8 by one. */
#define FC_AT_TWO (FC_WINO_ROWS > 6 ? 8 : 6)
#define FC_AT_ONE (FC_WINO_ROWS > 6 ? 16 : 8)
INLINE void N(wino_product_at)(const fc_winograd_product_at *g, const T *v, const T *d, T *sum, const int rows, const int vectors)
{
    const int64_t row = g->sum_row, part = g->part;
    vec acc[FC_AT_ONE][2];
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = g->accumulate ? vload(sum + i * row + j * VL) : (vec){0};
    _Pragma("GCC unroll 1") for (int i = rows; i < 2 * rows; i++) /* of the next channels: a line or two of each row is no stream */
        for (int j = 0; j < vectors * VL; j += FC_LINE)
            __builtin_prefetch(sum + i * row + j);
    int64_t at = g->first * FC_LINE, brick = g->share - g->first;
    for (int64_t left = g->tiles; left > 0; left -= brick, brick = g->share, at = 0, v += g->v_brick, d += g->d_brick) {
        const T *p = v + at, *q = d + at, *end = p + (left < brick ? left : brick) * FC_LINE;
        for (; p < end; p += FC_LINE, q += FC_LINE) {
            __builtin_prefetch(p + part); /* too far for a stream */
            const vec d0 = vload(q), d1 = vectors > 1 ? vload(q + FC_VECTOR(1)) : d0;
            FC_UNROLL for (int i = 0; i < rows; i++)
            {
                const vec a = vset1(p[i]);
                acc[i][0] = vmuladd(a, d0, acc[i][0]);
                if (vectors > 1)
                    acc[i][1] = vmuladd(a, d1, acc[i][1]);
            }
        }
    }
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++) vstore(sum + i * row + j * VL, acc[i][j]);
}

typedef void N(wino_product_at_fn)(const fc_winograd_product_at *, const T *v, const T *d, T *sum);
#define FC_PRODUCT_AT(rows, vectors)                                                                                   \
    static void N(wino_product_at_##vectors##_##rows)(const fc_winograd_product_at *g, const T *v, const T *d, T *sum) \
    {                                                                                                                  \
        N(wino_product_at)(g, v, d, sum, rows, vectors);                                                               \
    }
#define FC_BOTH(rows) FC_PRODUCT_AT(rows, 1) FC_PRODUCT_AT(rows, 2)
FC_BOTH(1) FC_BOTH(2) FC_BOTH(3) FC_BOTH(4) FC_BOTH(5) FC_BOTH(6) FC_PRODUCT_AT(7, 1) FC_PRODUCT_AT(8, 1)
#if FC_WINO_ROWS > 6
FC_PRODUCT_AT(7, 2) FC_PRODUCT_AT(8, 2) FC_PRODUCT_AT(9, 1) FC_PRODUCT_AT(10, 1) FC_PRODUCT_AT(11, 1) FC_PRODUCT_AT(12, 1)
FC_PRODUCT_AT(13, 1) FC_PRODUCT_AT(14, 1) FC_PRODUCT_AT(15, 1) FC_PRODUCT_AT(16, 1)
#endif
#undef FC_BOTH
#undef FC_PRODUCT_AT

#define FC_AT(vectors, rows) N(wino_product_at_##vectors##_##rows)
static N(wino_product_at_fn) *const N(wino_products_at_one)[FC_AT_ONE + 1] = {
    0, FC_AT(1, 1), FC_AT(1, 2), FC_AT(1, 3), FC_AT(1, 4), FC_AT(1, 5), FC_AT(1, 6), FC_AT(1, 7), FC_AT(1, 8),
#if FC_WINO_ROWS > 6
    FC_AT(1, 9), FC_AT(1, 10), FC_AT(1, 11), FC_AT(1, 12), FC_AT(1, 13), FC_AT(1, 14), FC_AT(1, 15), FC_AT(1, 16),
#endif
};
static N(wino_product_at_fn) *const N(wino_products_at_two)[FC_AT_TWO + 1] = {
    0, FC_AT(2, 1), FC_AT(2, 2), FC_AT(2, 3), FC_AT(2, 4), FC_AT(2, 5), FC_AT(2, 6),
#if FC_WINO_ROWS > 6
    FC_AT(2, 7), FC_AT(2, 8),
#endif
};
#undef FC_AT

static void N(winograd_multiply_at)(const fc_winograd_product_at *g)
{
    const int64_t part = g->part;
    for (int e = 0; e < g->points; e++)
        for (int64_t k = 0; k < g->vectors; k += 2) {
            const T *v = (const T *)g->v + e * FC_POINT, *d = (const T *)g->d + e * FC_POINT + FC_VECTOR(k);
            T *sum = (T *)g->sum + e * g->sum_point + k * VL;
            const int two = g->vectors - k > 1, most = two ? FC_AT_TWO : FC_AT_ONE;
            N(wino_product_at_fn) *const *products = two ? N(wino_products_at_two) : N(wino_products_at_one);
            for (int64_t c = 0; c < g->channels; v += part) {
                const int64_t end = g->channels - c < FC_LINE ? g->channels : c + FC_LINE;
                const int64_t groups = (end - c + most - 1) / most;
                for (int64_t i = 0, row = 0; i < groups; i++) {
                    const int64_t count = (end - c + groups - i - 1) / (groups - i);
                    products[count](g, v + row, d, sum + c * g->sum_row);
                    row += count;
                    c += count;
                }
            }
        }
}

/* Of few tiles the sums of a row of points at a time are registers, and u is made on the way: of 3 x 3 taps from all 9, or 3 in the rows
 * of 0 and infinity, 45 vectors read instead of 36 written and read. The points are those of a square without infinity, which all tiles
 * have, and its edges at infinity, which short tiles do not have: a column is a row with the roles of rows and columns exchanged. */
#if FC_VECTOR_BYTES == 64
/* Adds channels of a phase of `rows` x `columns` taps, 1 to 3, at `point` along the rows and `points` of the columns, `pitch` apart. */
INLINE void N(wino_few_sum)(const fc_winograd_few *g, vec (*acc)[FC_WINOGRAD_FEW], const T *v, const T *w, int64_t row, int64_t tap,
                            const char *ahead, T point, const int rows, const int columns, const int points,
                            const int64_t pitch, const int tile, const int tiles, const int lines)
{
    for (int64_t c = g->channels; c > 0; c -= FC_LINE, v += g->part, ahead += g->ahead_part) {
        int64_t left = c;
        FC_OPAQUE(left); /* or GCC makes two loops of this one, the last part by itself */
        const T *next = v + g->part, *end = v + (left < FC_LINE ? left : FC_LINE);
        const char *fetch = ahead;
        for (const T *p = v; p < end; p++, w += g->step, fetch += g->ahead_row) {
            vec t[3], all[6], *const r = all + 6 - tile;
            FC_UNROLL for (int i = 0; i < lines; i++) __builtin_prefetch(fetch + i * 64, 0, 2);
            const T *column = w;
            FC_UNROLL for (int j = 0; j < columns; j++, column += tap)
            {
                vec in[3], even, odd;
                FC_OPAQUE(column);
                FC_UNROLL for (int i = 0; i < rows; i++) in[i] = vload(column + i * row);
                t[j] = in[0];
                if (rows == 1)
                    continue;
                N(wino_g_parts)(&even, &odd, in, 1, rows, point);
                t[j] = vmuladd(vset1(point), odd, even);
            }
            if (columns > 1)
                N(wino_g)(all, t, 1, columns, tile);
            const T *point_of = p;
            FC_UNROLL for (int e = 0; e < points; e++, point_of += pitch)
            {
                FC_OPAQUE(point_of);
                FC_UNROLL for (int i = 0; i < tiles; i++)
                    acc[e][i] = vmuladd(vset1(point_of[i * FC_LINE]), columns > 1 ? r[e] : t[0], acc[e][i]);
            }
        }
        FC_UNROLL for (int e = 0; e < points; e++, next += pitch)
        {
            FC_OPAQUE(next);
            __builtin_prefetch(next);
        }
    }
}

INLINE void N(wino_few_start)(const fc_winograd_few *g, vec (*acc)[FC_WINOGRAD_FEW], const T *m, const int points, const int64_t pitch,
                              const int tiles)
{
    FC_UNROLL for (int e = 0; e < points; e++, m += pitch)
    {
        FC_OPAQUE(m);
        FC_UNROLL for (int t = 0; t < tiles; t++) acc[e][t] = g->accumulate ? vload(m + t * FC_LINE) : (vec){0};
    }
}
INLINE void N(wino_few_end)(vec (*acc)[FC_WINOGRAD_FEW], T *m, const int points, const int64_t pitch, const int tiles)
{
    FC_UNROLL for (int e = 0; e < points; e++, m += pitch)
    {
        FC_OPAQUE(m);
        FC_UNROLL for (int t = 0; t < tiles; t++) vstore(m + t * FC_LINE, acc[e][t]);
    }
}

/* 3 x 3 taps. Of 1 or 2 tiles with the last column, which costs less than to transform weights once more. */
INLINE void N(wino_few)(const fc_winograd_few *g, const int tiles)
{
    const int tile = 6, count = tiles < FC_WINOGRAD_FEW ? 6 : 5;
    const T points[] = {0, K(FC_A), -K(FC_A), K(FC_B), -K(FC_B)};
    for (int i = 0; i < 5; i++) {
        vec acc[6][FC_WINOGRAD_FEW];
        const T *v = (const T *)g->v + 6 * i * FC_POINT, *w = g->w;
        T *m = (T *)g->m + 6 * i * FC_POINT;
        const char *ahead = g->ahead + i * 128;
        N(wino_few_start)(g, acc, m, count, FC_POINT, tiles);
        if (i == 0)
            N(wino_few_sum)(g, acc, v, w, 0, g->tap, ahead, 0, 1, 3, count, FC_POINT, tile, tiles, 2);
        else
            N(wino_few_sum)(g, acc, v, w, g->row, g->tap, ahead, points[i], 3, 3, count, FC_POINT, tile, tiles, 2);
        N(wino_few_end)(acc, m, count, FC_POINT, tiles);
    }
}
/* Its last point is the corner, which is the row's. */
INLINE void N(wino_few_edge)(const fc_winograd_few *g, const int tiles)
{
    vec acc[6][FC_WINOGRAD_FEW] = {{{0}}};
    const int64_t pitch = g->pitch;
    T *m = g->m;
    N(wino_few_start)(g, acc, m, 5, pitch, tiles);
    if (g->corner)
        N(wino_few_start)(g, acc + 5, m + 5 * pitch, 1, pitch, tiles);
    N(wino_few_sum)(g, acc, g->v, (const T *)g->w + 2 * g->row, 0, g->tap, g->ahead, 0, 1, 3, 6, pitch, 6, tiles, 0);
    N(wino_few_end)(acc, m, 5, pitch, tiles);
    if (g->corner)
        N(wino_few_end)(acc + 5, m + 5 * pitch, 1, pitch, tiles);
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
    const int64_t row = g->row, tap = g->tap, phase = g->phase, step = phase ? 2 : 1;
    for (int i = 0; i < 4; i++) {
        vec acc[4][FC_WINOGRAD_FEW];
        const T *v = (const T *)g->v + 5 * i * FC_POINT, *w = g->w;
        T *m = (T *)g->m + 5 * i * FC_POINT;
        const char *ahead = g->ahead + i * (phase ? 3 * 64 : 64);
        N(wino_few_start)(g, acc, m, 4, FC_POINT, tiles);
        if (phase)
            N(wino_few_sum)(g, acc, v, w + tap, 2 * row, 0, ahead + 64, points[i], 2, 1, 4, FC_POINT, tile, tiles, 1);
        N(wino_few_sum)(g, acc, v + phase, w, step * row, step * tap, ahead, points[i], 2, 2, 4, FC_POINT, tile, tiles, 1);
        if (phase) {
            N(wino_few_sum)(g, acc, v + 2 * phase, w + row, 0, 2 * tap, ahead + 128, 0, 1, 2, 4, FC_POINT, tile, tiles, 1);
            N(wino_few_sum)(g, acc, v + 3 * phase, w + row + tap, 0, 0, g->ahead, 0, 1, 1, 4, FC_POINT, tile, tiles, 0);
        }
        N(wino_few_end)(acc, m, 4, FC_POINT, tiles);
    }
}

/* Its phases: of a row the first two, of a column those after the first; the one with a single tap along it comes first or last. */
INLINE void N(wino_few_small_edge)(const fc_winograd_few *g, const int tiles)
{
    vec acc[5][FC_WINOGRAD_FEW] = {{{0}}};
    const int64_t pitch = g->pitch, phase = g->phase, step = phase ? 2 : 1;
    const T *v = g->v, *w = (const T *)g->w + step * g->row;
    T *m = g->m;
    N(wino_few_start)(g, acc, m, 4, pitch, tiles);
    if (g->corner)
        N(wino_few_start)(g, acc + 4, m + 4 * pitch, 1, pitch, tiles);
    for (int i = 0; i < 2; i++)
        if (i == g->corner || !phase) {
            N(wino_few_sum)(g, acc, v + phase, w, 0, step * g->tap, g->ahead, 0, 1, 2, 5, pitch, 5, tiles, 0);
            if (!phase)
                break;
        } else {
            N(wino_few_sum)(g, acc, v + 2 * i * phase, w + g->tap, 0, 0, g->ahead, 0, 1, 1, 4, pitch, 5, tiles, 0);
        }
    N(wino_few_end)(acc, m, 4, pitch, tiles);
    if (g->corner)
        N(wino_few_end)(acc + 4, m + 4 * pitch, 1, pitch, tiles);
}
FC_FEW_OF(few_small, 4)
FC_FEW_OF(few_small_edge, 2)
#define FC_FEW_small_square .multiply_few = {[4] = N(winograd_few_small_4)}, .multiply_few_edge = {[2] = N(winograd_few_small_edge_2)},
#else
#define FC_FEW_small_square
#endif
#undef FC_FEW_OF
#define FC_FEW_AT 4 /* channels whose sums of a column of points are registers */

INLINE void N(wino_few_at_tiles)(vec (*acc)[FC_FEW_AT], const T *v, const T *d, int64_t tiles, const int rows)
{
    for (const T *end = v + tiles * FC_LINE; v < end; v += FC_LINE, d += FC_LINE)
        FC_UNROLL for (int i = 0; i < rows; i++)
        {
            const vec a = vload(d + 6 * i * FC_POINT);
            FC_UNROLL for (int c = 0; c < FC_FEW_AT; c++) acc[i][c] = vmuladd(vset1(v[6 * i * FC_POINT + c]), a, acc[i][c]);
        }
}

/* The sums of a column of points are transformed as soon as they are there, into 3 rows, which wait for the other columns in the
 * first-level cache. */
static void N(winograd_few_at)(const fc_winograd_few_at *g)
{
    const int tile = 6;
    vec columns[6][3][FC_LINE];
    const char *ahead = g->ahead;
    for (int j = 0; j < 6; j++) {
        const int last = j == 5;
        const int64_t whole = g->whole[last], at = j * FC_POINT + g->first[last] * FC_LINE;
        const T *v = (const T *)g->v + at, *d = (const T *)g->d + at;
        for (int c = 0; c < FC_LINE; c += FC_FEW_AT, ahead += g->ahead_row) {
            vec acc[6][FC_FEW_AT] = {{{0}}};
            for (int b = 0; j * FC_LINE / FC_FEW_AT + c / FC_FEW_AT < VL && b < 9; b++)
                __builtin_prefetch(ahead + b * 64, 1, 3);
            N(wino_few_at_tiles)(acc, v + c, d, whole, 6);
            N(wino_few_at_tiles)(acc, v + c + whole * FC_LINE, d + whole * FC_LINE, g->others[last], 5);
            FC_UNROLL for (int i = 0; i < FC_FEW_AT; i++)
            {
                vec r[3];
                N(wino_a)(r, &acc[0][i], FC_FEW_AT, 3, tile);
                FC_UNROLL for (int u = 0; u < 3; u++) columns[j][u][c + i] = r[u];
            }
        }
    }
    for (int c = 0; c < g->channels; c++)
        FC_UNROLL for (int u = 0; u < 3; u++)
        {
            vec r[3];
            N(wino_a)(r, &columns[0][u][c], 3 * FC_LINE, 3, tile);
            FC_UNROLL for (int i = 0; i < 3; i++) vstore((T *)g->w + (3 * u + i) * g->tap + c * VL, r[i]);
        }
}
#undef FC_FEW_AT
#else
#define FC_FEW_square
#define FC_FEW_small_square
#endif
#define FC_FEW_line
#define FC_FEW_small_line

/* ---- outputs ---------------------------------------------------------------------------------------------------------*/
/* Points that a tile does not have, of one vector of channels: the last row where `rows` is 0, the last column where `columns` is. */
static __attribute__((noinline)) void N(wino_clear)(T *m, int tile, int points, int rows, int columns)
{
    for (int e = tile - 1; !columns && e < points; e += tile) vstore(m + e * FC_POINT, (vec){0});
    for (int e = points - tile; !rows && e < points; e++) vstore(m + e * FC_POINT, (vec){0});
}

INLINE void N(wino_output_tile)(const T *m, vec *y, const int size, const int points)
{
    const int tile = FC_WINO_TILE;
    vec t[24];
    if (points == tile) {
        FC_UNROLL for (int i = 0; i < tile; i++) t[i] = vload(m + i * FC_POINT);
        N(wino_a)(y, t, 1, size, tile);
        return;
    }
    FC_UNROLL for (int j = 0; j < tile; j++)
    {
        vec in[6], r[4];
        FC_UNROLL for (int i = 0; i < tile; i++) in[i] = vload(m + (tile * i + j) * FC_POINT);
        N(wino_a)(r, in, 1, size, tile);
        FC_UNROLL for (int i = 0; i < size; i++) t[tile * i + j] = r[i];
    }
    FC_UNROLL for (int i = 0; i < size; i++) N(wino_a)(y + size * i, t + tile * i, 1, size, tile);
}

/* clamp(out + residual), out already scaled, of a whole tile and vector: `count` outputs, `size` in a row */
INLINE void N(wino_store_tile)(const fc_winograd_output *o, vec *out, const T *residual, T *y, const int count, const int size)
{
    const vec lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    if (residual)
        FC_UNROLL for (int i = 0; i < count; i++)
            out[i] += vload(residual + i / size * o->residual_row + i % size * o->residual_pixel);
    FC_UNROLL for (int i = 0; i < count; i++) out[i] = vclamp(out[i], lower, upper);
    FC_UNROLL for (int i = 0; i < count / size; i++, y += o->y_row)
        FC_UNROLL for (int j = 0; j < size; j++)
            if (o->stream)
                vstream(y + j * o->y_pixel, out[size * i + j]);
            else
                vstore(y + j * o->y_pixel, out[size * i + j]);
}

/* The same of a part of it, through memory: out would not stay in registers if loop counters indexed it. */
static __attribute__((noinline)) void N(wino_store_part)(const fc_winograd_output *o, const T *out, const T *residual, T *y,
                                                         int rows, int columns, int count, int size)
{
    const vec lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            vec a = vload(out + (size * i + j) * VL);
            if (residual)
                a += N(wino_load)(residual + i * o->residual_row + j * o->residual_pixel, count);
            a = vclamp(a, lower, upper);
            if (count == VL)
                vstore(y + i * o->y_row + j * o->y_pixel, a);
            else
                vstore_tail(y + i * o->y_row + j * o->y_pixel, a, count);
        }
}

INLINE void N(wino_output)(const fc_winograd_output *o, void *m_, const void *residual_, void *y_, int rows, int columns,
                          const int size, const int points)
{
    const int outputs = points == FC_WINO_TILE ? size : size * size;
    const int last_row = rows == outputs / size, last_column = columns == size;
    const T *scale = o->scale, *bias = o->bias, *residual = residual_;
    T *m = m_, *y = y_;
    for (int64_t k = 0; k < o->channels; k += VL) {
        if (!last_row || !last_column)
            N(wino_clear)(m + FC_CHANNEL(k), FC_WINO_TILE, points, last_row, last_column);
        const int count = o->channels - k < VL ? (int)(o->channels - k) : VL;
        vec out[16];
        N(wino_output_tile)(m + FC_CHANNEL(k), out, size, points);
        if (o->check && k == 0) { /* x * 0 is NaN for NaN and infinite x; two chains of sums, so that none is waited for */
            vec even = vload(o->check), odd = out[outputs - 1] * (T)0;
            FC_UNROLL for (int i = 0; i + 1 < outputs; i += 2)
            {
                even += out[i] * (T)0;
                odd += out[i + 1] * (T)0;
            }
            vstore(o->check, even + odd);
        }
        const vec s = scale ? N(wino_load)(scale + k, count) : vset1(1), t = bias ? N(wino_load)(bias + k, count) : (vec){0};
        FC_UNROLL for (int i = 0; i < outputs; i++) out[i] = vmuladd(out[i], s, t);
        if (last_row && last_column && count == VL) {
            N(wino_store_tile)(o, out, residual ? residual + k : NULL, y + k, outputs, size);
        } else {
            T part[16 * VL];
            FC_UNROLL for (int i = 0; i < outputs; i++) vstore(part + i * VL, out[i]);
            N(wino_store_part)(o, part, residual ? residual + k : NULL, y + k, rows, columns, count, size);
        }
    }
}

#if FC_F32 && FC_VECTOR_BYTES >= 32
/* ---- few input channels ---------------------------------------------------------------------------------------------*/
/* Of a vector of tiles d[j] = column j of each, where a[i] are 5 vectors of their neighbouring columns. */
INLINE void N(wino_tile_columns)(vec *d, const vec *a)
{
    const vec even[] = {N(evens)(a[0], a[1]), N(evens)(a[2], a[3])}, odd[] = {N(odds)(a[0], a[1]), N(odds)(a[2], a[3])};
    d[0] = N(evens)(even[0], even[1]), d[2] = N(odds)(even[0], even[1]);
    d[1] = N(evens)(odd[0], odd[1]), d[3] = N(odds)(odd[0], odd[1]);
    d[4] = N(shifted_down)(d[0], a[4]), d[5] = N(shifted_down)(d[1], N(odds)(a[4], a[4]));
}

/* The columns of B' first, while lanes are still the columns of x: 5 vectors instead of 6. */
static void N(winograd_input_thin)(const void *x_, int64_t row, void *v_, void *check_)
{
    const int tile = 6;
    const T *x = x_;
    T *v = v_, *check = check_;
    for (int t = 0; t < FC_LINE; t += VL, x += 4 * VL, v += VL, check += VL) {
        T rows[6 * 5 * VL] __attribute__((aligned(64)));
        vec a[5], d[6], even = vload(check), odd = {0};
        _Pragma("GCC unroll 1") for (int j = 0; j < 5; j++) {
            FC_UNROLL for (int i = 0; i < 6; i++) d[i] = vload(x + i * row + j * VL);
            N(wino_store_b)(d, rows + j * VL, 5 * VL, tile, 1);
        }
        _Pragma("GCC unroll 1") for (int i = 0; i < 6; i++) {
            FC_UNROLL for (int j = 0; j < 5; j++) a[j] = vload(rows + (5 * i + j) * VL);
            N(wino_tile_columns)(d, a);
            FC_UNROLL for (int j = 0; j < 6; j += 2) even += d[j] * (T)0, odd += d[j + 1] * (T)0;
            N(wino_store_b)(d, v + 6 * i * FC_POINT, FC_POINT, tile, 1);
        }
        vstore(check, even + odd);
    }
}

/* m = sum over channels of u v, of two tiles, and A' m column by column: columns[column of points][row of outputs]. Two, or loading u
 * would take as long as multiplying: 0.54 cycles of a load for each multiplication instead of 1.8 (Zen 4). */
#define FC_THIN_POINT ((FC_WINOGRAD_THIN + 1) * VL)
#define FC_THIN_COLUMNS (6 * 4 * VL)
INLINE void N(wino_thin_columns)(T *columns, const T *v, const T *u, int64_t channels)
{
    const int tile = 6;
    for (int j = 0; j < 6; j++, columns += 4 * VL, v += FC_POINT, u += FC_THIN_POINT) {
        vec m[2][6] = {{{0}}}, r[4];
        const T *p = v, *q = u;
        _Pragma("GCC unroll 1") for (int64_t c = 0; c < channels; c++, p += FC_LINE, q += VL)
            FC_UNROLL for (int i = 0; i < 6; i++)
            {
                vec a = vload(q + 6 * i * FC_THIN_POINT);
                __asm__("" : "+v"(a)); /* or GCC loads it twice */
                m[0][i] = vmuladd(vset1(p[6 * i * FC_POINT]), a, m[0][i]);
                m[1][i] = vmuladd(vset1(p[6 * i * FC_POINT + 1]), a, m[1][i]);
            }
        FC_UNROLL for (int t = 0; t < 2; t++)
        {
            N(wino_a)(r, m[t], 1, 4, tile);
            FC_UNROLL for (int i = 0; i < 4; i++) vstore(columns + t * FC_THIN_COLUMNS + i * VL, r[i]);
        }
    }
}

static void N(winograd_thin)(const fc_winograd_thin *g)
{
    const int tile = 6;
    const fc_winograd_output *o = g->output;
    const int count = o->channels < VL ? (int)o->channels : VL, clamps = o->lower > -INFINITY || o->upper < INFINITY;
    const vec bias = o->bias ? N(wino_load)(o->bias, count) : (vec){0}, lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    for (int64_t t = 0; t < g->tiles; t++) {
        T columns[2 * FC_THIN_COLUMNS] __attribute__((aligned(64)));
        if (t % 2 == 0)
            N(wino_thin_columns)(columns, (const T *)g->v + t, g->u, g->channels);
        const T *residual = g->residual ? (const T *)g->residual + 4 * t * o->residual_pixel : NULL, *in = columns + t % 2 * FC_THIN_COLUMNS;
        T *y = (T *)g->y + 4 * t * o->y_pixel;
        const int width = t + 1 < g->tiles ? 4 : g->columns, plain = width == 4 && !residual && !o->scale;
        for (int h = 0; h < g->rows; h++, in += VL, y += o->y_row, residual += residual ? o->residual_row : 0) {
            vec m[6], r[4];
            FC_UNROLL for (int j = 0; j < 6; j++) m[j] = vload(in + 4 * j * VL);
            N(wino_a)(r, m, 1, 4, tile);
            if (!plain) {
                T part[4 * VL];
                const vec scale = o->scale ? N(wino_load)(o->scale, count) : vset1(1);
                FC_UNROLL for (int j = 0; j < 4; j++) vstore(part + j * VL, vmuladd(r[j], scale, bias));
                N(wino_store_part)(o, part, residual, y, 1, width, count, 4);
                continue;
            }
            FC_UNROLL for (int j = 0; j < 4; j++) r[j] += bias;
            if (clamps)
                FC_UNROLL for (int j = 0; j < 4; j++) r[j] = vclamp(r[j], lower, upper);
            FC_UNROLL for (int j = 0; j < 4; j++)
                if (o->stream)
                    vstream(y + j * o->y_pixel, r[j]);
                else if (count == VL)
                    vstore(y + j * o->y_pixel, r[j]);
                else
                    vstore_tail(y + j * o->y_pixel, r[j], count);
        }
    }
}
#undef FC_THIN_COLUMNS
#undef FC_THIN_POINT
#define FC_THIN_square .input_thin = N(winograd_input_thin), .thin = N(winograd_thin),
#else
#define FC_THIN_square
#endif
#define FC_THIN_line

INLINE void N(wino_gradient)(const void *const *dy, int64_t channels, void *d_, const int size, const int points)
{
    const int tile = FC_WINO_TILE, lines = points == tile ? 1 : size;
    for (int64_t k = 0; k < channels; k += VL) {
        T *const d = (T *)d_ + FC_CHANNEL(k);
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec g[16], t[24], all[6], *const r = all + 6 - tile;
        FC_UNROLL for (int e = 0; e < lines * size; e++) g[e] = N(wino_load)((const T *)dy[e] + k, count);
        if (lines == 1) {
            N(wino_g)(all, g, 1, size, tile);
            FC_UNROLL for (int j = 0; j < tile; j++) vstore(d + j * FC_POINT, r[j]);
            continue;
        }
        FC_UNROLL for (int j = 0; j < size; j++)
        {
            N(wino_g)(all, g + j, size, size, tile);
            FC_UNROLL for (int i = 0; i < tile; i++) t[size * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < tile; i++)
        {
            N(wino_g)(all, t + size * i, 1, size, tile);
            FC_UNROLL for (int j = 0; j < tile; j++) vstore(d + (tile * i + j) * FC_POINT, r[j]);
        }
    }
}

INLINE void N(wino_weight_gradient)(const void *u_, int64_t pitch, int last, int64_t channels, void *w_, int64_t row,
                                   int64_t tap, const int taps, const int points)
{
    const int tile = FC_WINO_TILE, lines = points == tile ? 1 : taps;
    const int rows = tile == 6 || last & FC_LAST_ROW, columns = tile == 6 || last & FC_LAST_COLUMN;
    const T *u = u_;
    T *w = w_;
    for (int64_t k = 0; k < channels; k += VL) {
        vec in[36], t[30], r[5];
        FC_UNROLL for (int e = 0; e < points; e++)
            in[e] = (e < points - tile || rows || lines == 1) && (e % tile < tile - 1 || columns) ? vload(u + e * pitch + k)
                                                                                                  : (vec){0};
        FC_UNROLL for (int j = 0; j < tile; j++)
        {
            if (lines == 1) {
                t[j] = in[j];
                continue;
            }
            N(wino_a)(r, in + j, tile, taps, tile);
            FC_UNROLL for (int i = 0; i < taps; i++) t[tile * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < lines; i++)
            if (i == 0 || rows) {
                N(wino_a)(r, t + tile * i, 1, taps, tile);
                FC_UNROLL for (int j = 0; j < taps; j++)
                    if (j == 0 || columns)
                        vstore(w + i * row + j * tap + k, r[j]);
            }
    }
}

/* r taps, m outputs */
#define FC_FORWARD(shape, points, r, m)                                                                                \
    static void N(winograd_weights_##shape##r)(const void *w, int64_t row, int64_t tap, int64_t count, void *u,        \
                                               int64_t pitch)                                                          \
    {                                                                                                                  \
        N(wino_weights)(w, row, tap, count, u, pitch, r, points);                                                      \
    }                                                                                                                  \
    static void N(winograd_output_##shape##r)(const fc_winograd_output *o, void *x, const void *residual, void *y,     \
                                              int rows, int columns)                                                   \
    {                                                                                                                  \
        N(wino_output)(o, x, residual, y, rows, columns, m, points);                                                   \
    }
#define FC_GRADIENT(shape, points, r, m)                                                                               \
    static void N(winograd_gradient_##shape##r)(const void *const *dy, int64_t channels, void *d)                      \
    {                                                                                                                  \
        N(wino_gradient)(dy, channels, d, m, points);                                                                  \
    }                                                                                                                  \
    static void N(winograd_weight_gradient_##shape##r)(const void *u, int64_t pitch, int last, int64_t channels,       \
                                                       void *w, int64_t row, int64_t tap)                              \
    {                                                                                                                  \
        N(wino_weight_gradient)(u, pitch, last, channels, w, row, tap, r, points);                                     \
    }
#define FC_INPUT(shape, points)                                                                                        \
    static void N(winograd_input_##shape)(const void *x, int64_t row, int64_t pixel, int64_t channels, int last,       \
                                          void *v)                                                                     \
    {                                                                                                                  \
        N(wino_input)(x, row, pixel, channels, last, v, points);                                                       \
    }                                                                                                                  \
    static void N(winograd_input_border_##shape)(const void *const *x, int64_t channels, int last, void *v)            \
    {                                                                                                                  \
        N(wino_input_border)(x, channels, last, v, points);                                                            \
    }
#define FC_SHARED(shape)                                                                                               \
    .brick = FC_BRICK, .line = FC_LINE, .point = FC_POINT, .input = N(winograd_input_##shape),                         \
    .input_border = N(winograd_input_border_##shape), .multiply = N(winograd_multiply),                                \
    .multiply_at = N(winograd_multiply_at)
#define FC_BY_KERNEL(name) {[3] = N(name##3), [4] = N(name##4), [5] = N(name##5)}
#define FC_SIX(shape, points)                                                                                          \
    FC_INPUT(shape, points)                                                                                            \
    FC_FORWARD(shape, points, 3, 4)                                                                                    \
    FC_FORWARD(shape, points, 4, 3)                                                                                    \
    FC_FORWARD(shape, points, 5, 2)                                                                                    \
    FC_GRADIENT(shape, points, 3, 4)                                                                                   \
    FC_GRADIENT(shape, points, 4, 3)                                                                                   \
    FC_GRADIENT(shape, points, 5, 2)                                                                                   \
    static const fc_winograd_kernels N(winograd_##shape) = {                                                           \
        FC_SHARED(shape), FC_FEW_##shape FC_THIN_##shape                                                                               \
        .weights = FC_BY_KERNEL(winograd_weights_##shape),                                                             \
        .output = FC_BY_KERNEL(winograd_output_##shape),                                                               \
        .gradient = FC_BY_KERNEL(winograd_gradient_##shape),                                                           \
        .weight_gradient = FC_BY_KERNEL(winograd_weight_gradient_##shape),                                             \
    };
#define FC_FIVE(shape, points)                                                                                         \
    FC_INPUT(shape, points)                                                                                            \
    FC_FORWARD(shape, points, 2, 4)                                                                                    \
    FC_GRADIENT(shape, points, 2, 4)                                                                                   \
    static const fc_winograd_kernels N(winograd_##shape) = {                                                           \
        FC_SHARED(shape), FC_FEW_##shape                                                                               \
        .weights = {[2] = N(winograd_weights_##shape##2)},                                                             \
        .output = {[2] = N(winograd_output_##shape##2)},                                                               \
        .gradient = {[2] = N(winograd_gradient_##shape##2)},                                                           \
        .weight_gradient = {[2] = N(winograd_weight_gradient_##shape##2)},                                             \
    };
FC_SIX(square, 36)
FC_SIX(line, 6)
FC_FIVE(small_square, 25)
FC_FIVE(small_line, 5)
#undef FC_SIX
#undef FC_FEW_square
#undef FC_FEW_line
#undef FC_THIN_square
#undef FC_THIN_line
#undef FC_FEW_small_square
#undef FC_FEW_small_line
#undef FC_FIVE
#undef FC_INPUT
#undef FC_FORWARD
#undef FC_GRADIENT
#undef FC_SHARED
#undef FC_BY_KERNEL
#undef FC_WINO_TILE
#undef FC_WINO_ROWS
#undef FC_BRICK
#undef FC_POINT
#undef FC_VECTOR
#undef FC_OPAQUE
#undef FC_LINE
#undef FC_CHANNEL
#undef FC_AT_ONE
#undef FC_AT_TWO
#undef FC_A
#undef FC_B
#undef FC_A2
#undef FC_B2
#undef FC_NORM_A
#undef FC_NORM_B
#undef FC_UNROLL
#undef K
