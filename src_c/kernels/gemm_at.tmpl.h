/* gemm_at.tmpl.h: products whose reduction is over the rows of both sides, as gradients of weights are; included by
 * gemm.tmpl.h. */
INLINE void N(gemm_at_tile)(const fc_gemm_at *g, const T *a, const T *b, T *c, int last, fc_lines *ahead,
                            int64_t fetches, const int rows, const int vectors, const int tail)
{
    const int64_t a_step = g->a_step, b_step = g->b_step, c_row = g->c_row;
    vec acc[FC_MR][2];
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++)
            if (!g->accumulate)
                acc[i][j] = (vec){0};
            else
                acc[i][j] = tail && j == vectors - 1 ? vload_tail(c + i * c_row + j * VL, last)
                                                     : vload(c + i * c_row + j * VL);
    const T *fetch = ahead->first;
    const int64_t fetch_step = ahead->step;
    int64_t left = fetches;
    for (int64_t m = 0; m < g->images; m++)
        for (int64_t l = 0; l < g->lines; l++) {
            const T *p = a + m * g->a_image + l * g->a_line, *q = b + m * g->b_image + l * g->b_line;
            for (int64_t d = 0; d < g->depth; d++, p += a_step, q += b_step) {
                if (left > 0) {
                    left--;
                    __builtin_prefetch(fetch, 0, 2);
                    fetch += fetch_step;
                }
                vec b0 = tail && vectors == 1 ? vload_tail(q, last) : vload(q);
                vec b1 = vectors == 1 ? b0 : tail ? vload_tail(q + VL, last) : vload(q + VL);
                if (rows < 4) /* GCC would load them once more for each row */
                    b0 = vrounded(b0), b1 = vrounded(b1);
                FC_UNROLL for (int i = 0; i < rows; i++)
                {
                    vec ai = vset1(p[i]);
                    acc[i][0] = vmuladd(ai, b0, acc[i][0]);
                    if (vectors > 1)
                        acc[i][1] = vmuladd(ai, b1, acc[i][1]);
                }
            }
        }
    ahead->first = fetch;
    ahead->count -= fetches - left;
    /* a sum that underflowed to -0 is 0 whether or not it had products with padding */
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++)
            if (tail && j == vectors - 1)
                vstore_tail(c + i * c_row + j * VL, acc[i][j] + (vec){0}, last);
            else
                vstore(c + i * c_row + j * VL, acc[i][j] + (vec){0});
}

typedef void N(gemm_at_fn)(const fc_gemm_at *, const T *a, const T *b, T *c, int last, fc_lines *, int64_t fetches);
#define FC_AT(rows, vectors, tail)                                                                                     \
    static void N(gemm_at_##rows##_##vectors##_##tail)(const fc_gemm_at *g, const T *a, const T *b, T *c, int last,    \
                                                       fc_lines *ahead, int64_t fetches)                               \
    {                                                                                                                  \
        N(gemm_at_tile)(g, a, b, c, last, ahead, fetches, rows, vectors, tail);                                        \
    }
#define FC_AT4(rows) FC_AT(rows, 1, 0) FC_AT(rows, 1, 1) FC_AT(rows, 2, 0) FC_AT(rows, 2, 1)
FC_AT4(1) FC_AT4(2) FC_AT4(3) FC_AT4(4) FC_AT4(5) FC_AT4(6)
#if FC_MR == 14
FC_AT4(7) FC_AT4(8) FC_AT4(9) FC_AT4(10) FC_AT4(11) FC_AT4(12) FC_AT4(13) FC_AT4(14)
#endif
#undef FC_AT4
#undef FC_AT

#define FC_AT4(rows)                                                                                                   \
    {                                                                                                                  \
        {N(gemm_at_##rows##_1_0), N(gemm_at_##rows##_1_1)}, {N(gemm_at_##rows##_2_0), N(gemm_at_##rows##_2_1)}         \
    }
static N(gemm_at_fn) *const N(gemm_at_tiles)[FC_MR + 1][2][2] = {
    {{0, 0}, {0, 0}}, FC_AT4(1), FC_AT4(2), FC_AT4(3), FC_AT4(4), FC_AT4(5), FC_AT4(6),
#if FC_MR == 14
    FC_AT4(7), FC_AT4(8), FC_AT4(9), FC_AT4(10), FC_AT4(11), FC_AT4(12), FC_AT4(13), FC_AT4(14),
#endif
};
#undef FC_AT4

static void N(gemm_at)(const fc_gemm_at *g)
{
    const T *a = g->a, *b = g->b;
    T *c = g->c;
    const int64_t groups = (g->rows + FC_MR - 1) / FC_MR, tiles = groups * ((g->columns + 2 * VL - 1) / (2 * VL));
    fc_lines ahead[2] = {g->ahead[0], g->ahead[1]};
    /* of each tile, so many that one is left over for the end of ahead[0] */
    const int64_t share = (ahead[0].count + ahead[1].count) / (tiles > 1 ? tiles - 1 : 1) + 1;
    for (int64_t col = 0; col < g->columns; col += 2 * VL) {
        const int64_t columns = g->columns - col < 2 * VL ? g->columns - col : 2 * VL;
        const int two = columns > VL, last = (int)(columns - two * VL);
        for (int64_t i = 0, row = 0; i < groups; i++) {
            const int64_t count = (g->rows - row + groups - i - 1) / (groups - i);
            fc_lines *lines = &ahead[ahead[0].count == 0];
            const int64_t fetches = lines->count < share ? lines->count : share;
            T *to = c + row * g->c_row + col;
            N(gemm_at_tiles)[count][two][last < VL](g, a + row, b + col, to, last, lines, fetches);
            row += count;
        }
    }
}
