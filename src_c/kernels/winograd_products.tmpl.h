/* winograd_products.tmpl.h: the products at each point of many tiles, over channels and over tiles; included by
 * winograd.tmpl.h.
 *
 * They serve squares and lines: the pitch of a part is their argument. FC_VECTOR(j): where vector j of channels is. */
#define FC_VECTOR(j) ((j) * VL / FC_LINE * part + (j) * VL % FC_LINE)

/* acc = m, or what the first step multiplies: how many steps that was. A product and not a multiply-add onto 0, as Zen
 * 4 reads what it stores through the port of an addend: the stores of the sums before this one run beside products,
 * but each takes the time of 1.7 multiply-adds. */
INLINE int N(wino_product_start)(vec (*acc)[2], const T *v, const T *u, const T *m, const T *m1,
                                 const fc_winograd_product *g, const int rows, const int vectors)
{
    if (g->accumulate) {
    FC_UNROLL for (int i = 0; i < rows; i++)
            FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = vload((j ? m1 : m) + i * FC_LINE);
        return 0;
    }
    const vec u0 = vload(u), u1 = vectors > 1 ? vload(u + VL) : u0;
    FC_UNROLL for (int i = 0; i < rows; i++)
    {
        const vec a = vset1(v[i * FC_LINE]);
        acc[i][0] = a * u0;
        if (vectors > 1)
            acc[i][1] = a * u1;
    }
    return 1;
}

/* A step of the sum costs `rows` broadcasts and one or two loads for rows * vectors fused multiply-adds. */
INLINE void N(wino_product)(const T *v, const T *u, const T *const *phase, T *m, const T *after,
                            const fc_winograd_product *g, const int rows, const int vectors)
{
    const int64_t part = g->part;
    T *m1 = m + FC_VECTOR(1);
    FC_OPAQUE(m1);
    vec acc[2 * FC_WINO_ROWS][2];
    int64_t begin = N(wino_product_start)(acc, v, u, m, m1, g, rows, vectors);
    u += begin * vectors * VL;
    for (int64_t c = g->channels, next_phase = c - g->phase_channels; c > 0; c -= FC_LINE, begin = 0) {
        if (c == next_phase) {
            u = *++phase;
            next_phase -= g->phase_channels;
        }
        const T *end = v + (c < FC_LINE ? c : FC_LINE), *next = c > FC_LINE ? v + part : after, *fetch = next;
        for (const T *p = v + begin; p < end; p++, u += vectors * VL, fetch += FC_LINE) {
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
#if FC_WINO_ROWS == 10
FC_PRODUCT(7) FC_PRODUCT(8) FC_PRODUCT(9) FC_PRODUCT(10)
#endif
#undef FC_PRODUCT
#undef FC_PRODUCT_OF

/* [n]: one vector of 2 n tiles; two vectors of n */
#define FC_BOTH(n) {N(wino_product_1_##n), N(wino_product_2_##n)}
static N(wino_product_fn) *const N(wino_products)[FC_WINO_ROWS + 1][2] = {
    {0, 0}, FC_BOTH(1), FC_BOTH(2), FC_BOTH(3), FC_BOTH(4), FC_BOTH(5), FC_BOTH(6),
#if FC_WINO_ROWS == 10
    FC_BOTH(7), FC_BOTH(8), FC_BOTH(9), FC_BOTH(10),
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
        for (int64_t left = g->tiles; left > 0;
             left -= brick, brick = g->share, at = 0, v += g->v_brick, m += g->m_brick) {
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

/* The sum over tiles. Channels are rows here, those of a part in equal groups: 8 by two vectors or 16 by one (AVX-512),
 * 6 by two or 8 by one. */
#define FC_AT_TWO (FC_WINO_ROWS > 6 ? 8 : 6)
#define FC_AT_ONE (FC_WINO_ROWS > 6 ? 16 : 8)
INLINE void N(wino_product_at)(const fc_winograd_product_at *g, const T *v, const T *d, T *sum, const int rows,
                               const int vectors)
{
    const int64_t row = g->sum_row, part = g->part;
    vec acc[FC_AT_ONE][2];
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++)
            acc[i][j] = g->accumulate ? vload(sum + i * row + j * VL) : (vec){0};
    /* of the next channels: a line or two of each row is no stream */
    _Pragma("GCC unroll 1") for (int i = rows; i < 2 * rows; i++)
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
FC_PRODUCT_AT(7, 2) FC_PRODUCT_AT(8, 2) FC_PRODUCT_AT(9, 1) FC_PRODUCT_AT(10, 1) FC_PRODUCT_AT(11, 1)
FC_PRODUCT_AT(12, 1) FC_PRODUCT_AT(13, 1) FC_PRODUCT_AT(14, 1) FC_PRODUCT_AT(15, 1) FC_PRODUCT_AT(16, 1)
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
