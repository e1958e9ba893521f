/* strassen.tmpl.h: the seven products of a register tile, one after the other.
 *
 * Sums of products that two or three quarters share go through tiles in the first-level cache, 4 stored and 8 loaded for
 * 7 * length * rows * 2 multiplications; quarters leave the registers with their epilogue. Each product is a sum by
 * itself, and that of s2 and t2, the largest, is two: continued, the sums would take less loads, and rounding errors
 * would be 1.3 times as large.
 */
#if FC_VECTOR_BYTES == 64 /* 32 bytes: 1.02 to 1.03 times as fast as direct, too little for its code and rounding */
#define FC_MR 14
#define FC_UNROLL _Pragma("GCC unroll 16")
#define FC_OPAQUE(x) __asm__("" : "+r"(x)) /* the compiler forgets how x came about */

/* acc = the product of `length` channels */
INLINE void N(strassen_product)(vec acc[FC_MR][2], const fc_factors *f, int64_t length)
{
    const int64_t down = f->a_row * (int64_t)sizeof(T), up = -down;
    const char *at[FC_MR / 3 + 1], *third = (const char *)f->a + down;
    const T *b = f->b, *ahead = f->ahead;
    const int64_t ahead_step = f->ahead_step;
    FC_UNROLL for (int i = 0; i < FC_MR; i += 3, third += 3 * down)
    {
        FC_OPAQUE(third);
        at[i / 3] = third;
    }
    FC_UNROLL for (int i = 0; i < FC_MR; i++) acc[i][0] = acc[i][1] = (vec){0};
    for (int64_t c = 0; c < length; c++, b += 2 * VL, ahead += ahead_step) {
        __builtin_prefetch(ahead, 0, 2);
        const vec b0 = vload(b), b1 = vload(b + VL);
        FC_UNROLL for (int i = 0; i < FC_MR; i++)
        {
            const vec ai = vset1(*(const T *)(at[i / 3] + (i % 3 == 0 ? up : i % 3 == 2 ? down : 0)));
            acc[i][0] = vmuladd(ai, b0, acc[i][0]);
            acc[i][1] = vmuladd(ai, b1, acc[i][1]);
        }
        FC_UNROLL for (int i = 0; i < FC_MR; i += 3) at[i / 3] += sizeof(T);
    }
}

INLINE void N(strassen_add)(vec acc[FC_MR][2], const T *t, int64_t row)
{
    FC_UNROLL for (int i = 0; i < FC_MR; i++, t += row)
    {
        FC_OPAQUE(t);
        acc[i][0] += vload(t);
        acc[i][1] += vload(t + VL);
    }
}

/* A quarter, whose rows and columns begin at `row` and `col`, with the epilogue. */
INLINE void N(strassen_finish)(const fc_strassen *s, vec acc[FC_MR][2], int64_t row, int64_t col)
{
    const T *scale = s->scale, *bias = s->bias, *residual = s->residual;
    FC_UNROLL for (int j = 0; scale && j < 2; j++)
    {
        const vec by = vload(scale + col + j * VL);
        FC_UNROLL for (int i = 0; i < FC_MR; i++) acc[i][j] *= by;
    }
    FC_UNROLL for (int j = 0; bias && j < 2; j++)
    {
        const vec t = vload(bias + col + j * VL);
        FC_UNROLL for (int i = 0; i < FC_MR; i++) acc[i][j] += t;
    }
    if (residual)
        N(strassen_add)(acc, residual + row * s->residual_row + col, s->residual_row);
    const vec lower = vset1((T)s->lower), upper = vset1((T)s->upper);
    FC_UNROLL for (int i = 0; i < FC_MR; i++)
        FC_UNROLL for (int j = 0; j < 2; j++) acc[i][j] = vclamp(acc[i][j], lower, upper);
}

INLINE void N(strassen_store)(vec acc[FC_MR][2], T *y, int64_t row, const int stream)
{
    FC_UNROLL for (int i = 0; i < FC_MR; i++, y += row)
    {
        FC_OPAQUE(y);
        FC_UNROLL for (int j = 0; j < 2; j++)
            if (stream)
                vstream(y + j * VL, acc[i][j]);
            else
                vstore(y + j * VL, acc[i][j]);
    }
}

static void N(strassen_tile)(const fc_strassen *s)
{
    enum { PANEL = 2 * VL, TILE = FC_MR * PANEL, NONE = -1 };
    /* tile `to` = tile `from` + the product; quarter = tile `sum` + the product */
    static const struct {
        int8_t from, to, sum, quarter;
    } steps[FC_STRASSEN_PRODUCTS] = {
        {4, 0, NONE, NONE}, {NONE, NONE, 0, 0}, {0, 1, NONE, NONE}, {1, 1, NONE, NONE},
        {1, 2, NONE, NONE}, {1, 3, 2, 3},       {NONE, NONE, 3, 1}, {NONE, NONE, 2, 2},
    };
    T *tiles = s->tiles;
    for (int p = 0; p < FC_STRASSEN_PRODUCTS; p++) {
        const int64_t length = p == 2 || p == 3 ? s->length / 2 : s->length;
        vec acc[FC_MR][2];
        N(strassen_product)(acc, &s->product[p], length);
        if (steps[p].to != NONE) {
            const T *from = tiles + steps[p].from * TILE;
            T *to = tiles + steps[p].to * TILE;
            FC_UNROLL for (int i = 0; i < FC_MR; i++)
                FC_UNROLL for (int j = 0; j < 2; j++)
                    vstore(to + i * PANEL + j * VL, acc[i][j] + vload(from + i * PANEL + j * VL));
        }
        if (steps[p].quarter == NONE)
            continue;
        const int64_t row = steps[p].quarter / 2 * FC_MR, col = steps[p].quarter % 2 * PANEL;
        T *y = (T *)s->y + row * s->y_row + col;
        N(strassen_add)(acc, tiles + steps[p].sum * TILE, PANEL);
        if (s->accumulate)
            N(strassen_add)(acc, y, s->y_row);
        if (s->finish)
            N(strassen_finish)(s, acc, row, col);
        if (s->stream)
            N(strassen_store)(acc, y, s->y_row, 1);
        else
            N(strassen_store)(acc, y, s->y_row, 0);
    }
}

static int N(strassen_is_zero)(vec check)
{
    T lanes[VL];
    vstore(lanes, check);
    return N(finite)(VL, lanes);
}

/* x * 0 is NaN where x is not finite. s4 is a sum of all four, and of s1 and s2. */
static int N(strassen_inputs)(int64_t length, const void *a_, int64_t a_row, void *s_, int64_t s_row, int64_t s_tile,
                              int copies)
{
    const T *a = a_, *b = a + FC_MR * a_row;
    T *s = s_;
    vec check = {0};
    for (int i = 0; i < FC_MR; i++, a += a_row, b += a_row, s += s_row)
        for (int64_t c = 0; c < length; c += VL) {
            const vec a11 = vload(a + c), a12 = vload(a + length + c), a21 = vload(b + c), a22 = vload(b + length + c);
            const vec s1 = a21 + a22, s2 = s1 - a11, s3 = a11 - a21, s4 = a12 - s2;
            T *to = s + c;
            vstore(to, s1);
            vstore(to + s_tile, s2);
            vstore(to + 2 * s_tile, s3);
            vstore(to + 3 * s_tile, s4);
            if (copies) {
                vstore(to + 4 * s_tile, a11);
                vstore(to + 5 * s_tile, a12);
                vstore(to + 6 * s_tile, a22);
            }
            check += s3 * (vec){0} + s4 * (vec){0};
        }
    return N(strassen_is_zero)(check);
}

static int N(strassen_weights)(int64_t length, const void *b_, int64_t panel, void *t_)
{
    const int64_t half = length * 2 * VL;
    const T *b = b_;
    T *t = t_;
    vec check = {0};
    for (int64_t i = 0; i < half; i += VL) {
        const vec b11 = vload(b + i), b12 = vload(b + panel + i), b21 = vload(b + half + i),
                  b22 = vload(b + panel + half + i);
        const vec t1 = b12 - b11, t2 = b22 - t1, t3 = b22 - b12, t4 = b21 - t2;
        vstore(t + i, t1);
        vstore(t + half + i, t2);
        vstore(t + 2 * half + i, t3);
        vstore(t + 3 * half + i, t4);
        check += t3 * (vec){0} + t4 * (vec){0};
    }
    return N(strassen_is_zero)(check);
}

static const fc_strassen_kernels N(strassen_table) = {N(strassen_tile), N(strassen_inputs), N(strassen_weights)};
#define FC_STRASSEN &N(strassen_table)
#undef FC_MR
#undef FC_UNROLL
#undef FC_OPAQUE
#else
#define FC_STRASSEN NULL
#endif
