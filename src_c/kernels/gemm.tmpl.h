/* gemm.tmpl.h: matrix products with the accumulators in registers.
 *
 * A tile is MR rows by two vectors: AVX-512 14 x 2 = 28 accumulators + 2 of b + 1 broadcast = 31 of 32 registers; AVX2
 * and SSE2 6 x 2 = 12 + 2 + 1 = 15 of 16 (Goto and van de Geijn 2008). A step of the reduction costs MR broadcasts and
 * 2 loads for 2 MR fused multiply-adds, so two load ports keep two FMA ports busy from 4 rows on. An odd vector at the
 * end, which alone would take a load for each of its multiplications, joins the two before it where there are registers
 * for it: 9 x 3 = 27 + 3 + 1. Where it stays alone (16 registers) a tile has 12 rows: 6 sums would wait for
 * themselves, 6 multiplications in 4 cycles instead of 12 in 6. Loop bounds are constants after inlining: a
 * variable-length array of accumulators would live in memory.
 */
#if FC_VECTOR_BYTES == 64
#define FC_MR 14
#else
#define FC_MR 6
#endif
#if FC_VECTOR_BYTES == 64 && FC_F32
#define FC_WIDEST 3
#define FC_MR3 9
#else
#define FC_WIDEST 2
#define FC_MR3 FC_MR
#endif
#define FC_MR1 (FC_MR == 6 ? 12 : FC_MR)
#define FC_UNROLL _Pragma("GCC unroll 16")
#define FC_OPAQUE(x) __asm__("" : "+r"(x)) /* the compiler forgets how x came about */
#define FC_ORDER() __asm__ volatile("" ::: "memory") /* loads below it stay below the stores above */
#define FC_LINE_LANES ((int)(64 / sizeof(T))) /* of a cache line */

INLINE vec N(gemm_load)(const T *p, int count) { return count >= VL ? vload(p) : vload_tail(p, count); }

/* y = x with the epilogue, from memory: tiles with a partial vector without masked stores leave the registers so, and
 * all that are scaled, which no layer asks for. Kept out of line it is one copy of the code instead of one per tile
 * shape. */
static __attribute__((noinline)) void N(gemm_write)(const fc_gemm *g, const T *x, int64_t x_row, T *y, int64_t row,
                                                    int64_t rows)
{
    const T *scale = g->scale, *bias = g->bias, *residual = g->residual;
    const vec lower = vset1((T)g->lower), upper = vset1((T)g->upper);
    for (int64_t j = 0; j < g->columns; j += VL) {
        const int count = g->columns - j < VL ? (int)(g->columns - j) : VL;
        const vec s = scale ? N(gemm_load)(scale + j, count) : vset1(1),
                  t = bias ? N(gemm_load)(bias + j, count) : (vec){0};
        for (int64_t i = 0; i < rows; i++) {
            vec out = N(gemm_load)(x + i * x_row + j, count);
            if (g->finish) {
                out = vmuladd(out, s, t);
                if (residual)
                    out += N(gemm_load)(residual + (row + i) * g->residual_row + j, count);
                out = vclamp(out, lower, upper);
            }
            if (count >= VL)
                vstore(y + i * g->y_row + j, out);
            else
                vstore_tail(y + i * g->y_row + j, out, count);
        }
    }
}

/* Vector j of a row, whose last one has so many lanes. Without masks only whole ones where `whole` is set. */
INLINE vec N(gemm_part)(const T *p, int j, int vectors, int last, int whole)
{
    if (j < vectors - 1 || (FC_VECTOR_BYTES < 64 && (whole || last == VL)))
        return vload(p + j * VL);
    return vload_tail(p + j * VL, last);
}

/* Of one or two vectors whose last is at most half full the lower half is multiplied: a processor that makes a 512-bit
 * operation of two of 256 bits takes half as long for it (Zen 4), others as long as for all of it. */
INLINE vhalf N(half_muladd)(vhalf a, vhalf b, vhalf sum)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    return (vhalf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}
INLINE vec N(widened)(vhalf a)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    return (vec)_mm512_castps256_ps512((__m256)a);
#else
    vec whole = {0};
    memcpy(&whole, &a, sizeof a);
    return whole;
#endif
}

INLINE void N(half_store)(T *p, vec a, int count)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    _mm256_mask_storeu_ps(p, (__mmask8)((1u << count) - 1), (__m256)vlow(a));
#else
    vstore_tail(p, a, count);
#endif
}

/* `ahead` is a constant too: a prefetch that does nothing costs 3 to 8 % (Zen 3), and the bookkeeping of FC_FETCH_ROWS
 * in 16 registers 20. FC_PLAIN knows that a tile starts at 0, has a bias and bounds, no residual, and stays in the
 * caches; it fetches weights, if any. Of short sums the multiplications of the next tile have to begin before the
 * stores of this one are done, two cycles each, and a processor sees 320 instructions ahead (Zen 4): between the two
 * 300 stood, of which half are left. A store also takes a turn of the multiplications, and 84 operations of the bias
 * and the bounds run beside them only where these are near (gemm_end). 16 -> 96 channels, cycles of 14 rows and two
 * vectors, 448 of them multiplications: 624 before, 544 plain, 511 with gemm_end. FC_COPY fetches weights too, and
 * makes b: two stores in the 6 cycles of a step, which are free, where a copy by itself waits for the second-level
 * cache. */
enum { N(FC_FETCH_WEIGHTS) = 1, N(FC_FETCH_ROWS) = 2, N(FC_PLAIN) = 3, N(FC_COPY) = 4 };
enum { N(FC_LAST) = 3 }; /* steps of a plain tile that run beside its epilogue */

/* With no weights to fetch it is b, which is there: that costs less than a test in each step. */
INLINE int64_t N(if_fetching)(const fc_gemm *g, const T *fetch, int64_t step) { return fetch == g->b ? 0 : step; }

/* One step of the reduction in rows [first, end) of a tile. at: every third row from row 1 on, `down` bytes apart */
INLINE void N(gemm_step)(const char *const *at, int64_t down, const T *b, const int first, const int end,
                         const int vectors, const int half, vec (*acc)[FC_WIDEST], vhalf *low)
{
    const int64_t up = -down;
    const int whole = vectors - half;
    vec part[FC_WIDEST];
    FC_UNROLL for (int j = 0; j < whole; j++) part[j] = vload(b + j * VL);
    const vhalf rest = vload_half(b + (half ? whole * VL : 0));
    FC_UNROLL for (int i = first; i < end; i++)
    {
        const T a = *(const T *)(at[i / 3] + (i % 3 == 0 ? up : i % 3 == 2 ? down : 0));
        const vec ai = vset1(a);
        FC_UNROLL for (int j = 0; j < whole; j++) acc[i][j] = vmuladd(ai, part[j], acc[i][j]);
        if (half)
            low[i] = N(half_muladd)(whole ? vlow(ai) : a - (vhalf){0} /* in all lanes, -0 too */, rest, low[i]);
    }
}

/* The last FC_LAST steps of a plain tile and its epilogue, three rows after the other: 24 operations that are no
 * multiplications run beside 18 of the next rows. More steps, and the operations one by one between them, are as fast.
 * The compiler keeps loads below FC_ORDER below the stores above. */
INLINE void N(gemm_end)(const fc_gemm *g, const char **at, int64_t down, const T *b, T *y, int last, const int rows,
                        vec (*acc)[FC_WIDEST], const T *fetch, int64_t fetch_step)
{
    const int64_t y_row = g->y_row;
    const vec lower = vset1((T)g->lower), upper = vset1((T)g->upper);
    FC_UNROLL for (int first = 0; first < rows; first += 3)
    {
        const int end = first + 3 < rows ? first + 3 : rows;
        FC_UNROLL for (int c = 0; c < N(FC_LAST); c++, at[first / 3] += sizeof(T))
        {
            if (first == 0)
                __builtin_prefetch(fetch + c * fetch_step, 0, 2);
            N(gemm_step)((const char *const *)at, down, b + c * 2 * VL, first, end, 2, 0, acc, NULL);
        }
        FC_UNROLL for (int j = 0; j < 2; j++)
        {
            const vec t = N(gemm_part)(g->bias, j, 2, last, 1);
            FC_UNROLL for (int i = first; i < end; i++) acc[i][j] = vclamp(acc[i][j] + t, lower, upper);
        }
        FC_UNROLL for (int i = first; i < end; i++, y += y_row)
        {
            FC_OPAQUE(y);
            vstore(y, acc[i][0]);
            vstore_tail(y + VL, acc[i][1], last);
        }
        FC_ORDER();
    }
}

/* What a tile fetches while it multiplies, a line with each step: `at` is next of the weights, or of rows of a, their
 * first lines and then the second ones; `y`, which would be read when it is written, and the residual row by row. */
typedef struct {
    const T *at, *y, *residual;
    int64_t step; /* of `at` */
    int left;     /* rows of a, of which this line is still to be fetched */
    int unread;   /* rows of y and of the residual */
} N(gemm_ahead);

INLINE N(gemm_ahead) N(gemm_ahead_of)(const fc_gemm *g, const T *fetch, const T *y, const T *residual, int64_t row,
                                      const int rows, const int ahead)
{
    N(gemm_ahead) f = {.at = fetch, .y = y, .left = rows};
    if (residual)
        f.residual = residual + row * g->residual_row;
    f.unread = f.y || f.residual ? rows : 0;
    if (ahead == N(FC_FETCH_ROWS)) {
        f.at = g->fetch ? fetch + g->fetch - 1 : g->b; /* b is there: that costs less than a test */
        f.step = g->fetch ? g->a_row : 0;
    } else {
        f.step = N(if_fetching)(g, fetch, g->ahead_step);
    }
    return f;
}

INLINE void N(gemm_fetch)(const fc_gemm *g, N(gemm_ahead) *f, const int rows, const int vectors, const int ahead)
{
    if (!ahead)
        return;
    __builtin_prefetch(f->at, 0, 2);
    f->at += f->step;
    if (ahead == N(FC_FETCH_ROWS) && --f->left == 0) {
        f->left = rows;
        f->at += FC_LINE_LANES - rows * f->step;
    }
    if (ahead == N(FC_PLAIN) || FC_VECTOR_BYTES < 64 || f->unread <= 0)
        return;
    f->unread--;
    if (f->y) {
        FC_UNROLL for (int j = 0; j < vectors; j++) __builtin_prefetch(f->y + j * VL, 1, 2);
        f->y += g->y_row;
    }
    if (f->residual) {
        FC_UNROLL for (int j = 0; j < vectors; j++) __builtin_prefetch(f->residual + j * VL, 0, 2);
        f->residual += g->residual_row;
    }
}

/* The sums begin at 0, or at y. */
INLINE void N(gemm_begin)(const fc_gemm *g, const T *y, int last, const int rows, const int vectors, int accumulate,
                          vec (*acc)[FC_WIDEST])
{
    const int64_t y_row = g->y_row;
    if (!accumulate) {
        FC_UNROLL for (int i = 0; i < rows; i++)
            FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (vec){0};
        return;
    }
    FC_UNROLL for (int i = 0; i < rows; i++, y += y_row)
    {
        FC_OPAQUE(y);
        FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = N(gemm_part)(y, j, vectors, last, 0);
    }
}

/* Bias, residual (NULL: none) and bounds, on the sums. */
INLINE void N(gemm_finish)(const fc_gemm *g, const T *residual, int64_t row, int last, const int rows,
                           const int vectors, vec (*acc)[FC_WIDEST])
{
    const T *bias = g->bias;
    const int64_t residual_row = g->residual_row;
    const vec lower = vset1((T)g->lower), upper = vset1((T)g->upper);
    FC_UNROLL for (int j = 0; j < vectors; j++)
    {
        vec t = bias ? N(gemm_part)(bias, j, vectors, last, 1) : (vec){0};
        FC_UNROLL for (int i = 0; i < rows; i++) acc[i][j] += t;
    }
    if (residual) {
        residual += row * residual_row;
        FC_UNROLL for (int i = 0; i < rows; i++, residual += residual_row)
        {
            FC_OPAQUE(residual);
            FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += N(gemm_part)(residual, j, vectors, last, 1);
        }
    }
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = vclamp(acc[i][j], lower, upper);
}

INLINE void N(gemm_store)(const fc_gemm *g, T *y, int last, const int rows, const int vectors, const int half,
                          int stream, vec (*acc)[FC_WIDEST])
{
    const int64_t y_row = g->y_row;
    if (stream) {
        FC_UNROLL for (int i = 0; i < rows; i++, y += y_row)
        {
            FC_OPAQUE(y);
            FC_UNROLL for (int j = 0; j < vectors; j++) vstream(y + j * VL, acc[i][j]);
        }
        return;
    }
    FC_UNROLL for (int i = 0; i < rows; i++, y += y_row)
    {
        FC_OPAQUE(y);
        FC_UNROLL for (int j = 0; j < vectors - 1; j++) vstore(y + j * VL, acc[i][j]);
        if (half)
            N(half_store)(y + (vectors - 1) * VL, acc[i][vectors - 1], last);
        else if (FC_VECTOR_BYTES == 64)
            vstore_tail(y + (vectors - 1) * VL, acc[i][vectors - 1], last);
        else
            vstore(y + (vectors - 1) * VL, acc[i][vectors - 1]);
    }
}

INLINE void N(gemm_tile)(const fc_gemm *g, const T *a, T *y, int64_t row, const int rows, const int vectors,
                         const int half, const int ahead, const T *fetch)
{
    const int last = (int)g->columns - (vectors - 1) * VL; /* valid lanes of the last vector */
    const int whole = vectors - half, plain = ahead == N(FC_PLAIN), copies = ahead == N(FC_COPY);
    const int accumulate = !plain && g->accumulate, finish = plain || g->finish,
              stream = FC_VECTOR_BYTES == 64 && !plain && g->stream;
    const T *residual = plain ? NULL : g->residual;
    vec acc[FC_MR1][FC_WIDEST];
    vhalf low[FC_MR1];
    N(gemm_begin)(g, y, last, rows, vectors, accumulate, acc);
    if (half) {
        FC_UNROLL for (int i = 0; i < rows; i++) low[i] = vlow(acc[i][whole]);
    }
    N(gemm_ahead) f = N(gemm_ahead_of)(g, fetch, stream || accumulate ? NULL : y, residual, row, rows, ahead);
    /* Rows are addressed from every third one, by the pitch up and down: a register for each would go through memory,
     * or worse, those of the vectors. */
    const int64_t down = g->a_row * (int64_t)sizeof(T), between = FC_VECTOR_BYTES < 64 ? g->ahead_every - 1 : 0;
    const T *a_u = a, *b_u = g->b;
    for (int64_t u = g->taps_h; u > 0; u--, a_u += g->step_h, b_u += g->b_step_h * (vectors * VL)) {
        const T *a_v = a_u, *b_v = b_u;
        FC_OPAQUE(a_v);
        FC_OPAQUE(b_v);
        for (int64_t v = g->taps_w; v > 0; v--, a_v += g->step_w, b_v += g->b_step_w * (vectors * VL)) {
            const char *at[FC_MR1 / 3 + 1], *third = (const char *)a_v + down;
            FC_UNROLL for (int i = 0; i < rows; i += 3, third += 3 * down)
            {
                FC_OPAQUE(third);
                at[i / 3] = third;
            }
            const int ends = plain && u == 1 && v == 1;
            const int64_t steps = ends ? g->length - N(FC_LAST) : g->length;
            const T *b = b_v, *source = g->source;
            for (int64_t c = 0; c < steps; c++, b += vectors * VL) {
                if (!(c & between))
                    N(gemm_fetch)(g, &f, rows, vectors, ahead);
                N(gemm_step)(at, down, copies ? source : b, 0, rows, vectors, half, acc, low);
                if (copies) {
                    T *to = (T *)(uintptr_t)b;
                    FC_UNROLL for (int j = 0; j < vectors; j++) vstore(to + j * VL, vload(source + j * VL));
                    source += g->source_row;
                }
                FC_UNROLL for (int i = 0; i < rows; i += 3) at[i / 3] += sizeof(T);
            }
            if (ends) {
                N(gemm_end)(g, at, down, b, y, last, rows, acc, f.at, f.step);
                return;
            }
        }
    }
    if (plain)
        __builtin_unreachable(); /* such tiles see something */
    if (half) {
        FC_UNROLL for (int i = 0; i < rows; i++) acc[i][whole] = N(widened)(low[i]);
    }
#if FC_VECTOR_BYTES < 64
    if (last < VL) {
        T x[FC_MR1 * 2 * VL];
        FC_UNROLL for (int i = 0; i < rows; i++)
            FC_UNROLL for (int j = 0; j < vectors; j++) vstore(x + (2 * i + j) * VL, acc[i][j]);
        N(gemm_write)(g, x, 2 * VL, y, row, rows);
        return;
    }
#endif
    if (finish)
        N(gemm_finish)(g, residual, row, last, rows, vectors, acc);
    N(gemm_store)(g, y, last, rows, vectors, half, stream, acc);
}

/* From a tile to the one below: the same rows of the next line, or the next rows. */
INLINE int64_t N(gemm_down)(const fc_gemm *g, int64_t rows) { return g->lines > 1 ? g->a_line : rows * g->a_row; }
INLINE int64_t N(gemm_y_down)(const fc_gemm *g, int64_t rows) { return g->lines > 1 ? g->y_line : rows * g->y_row; }

/* `tiles` of them below each other. fetch: the weights for the first, or the rows of a after the last */
typedef void N(gemm_tile_fn)(const fc_gemm *, const T *a, T *y, int64_t row, int64_t tiles, const T *fetch);
#define FC_KIND(kind, rows, vectors, half, ahead)                                                                      \
    static void N(gemm_tile_##kind##_##rows)(const fc_gemm *g, const T *a, T *y, int64_t row, int64_t tiles,           \
                                             const T *fetch)                                                           \
    {                                                                                                                  \
        const int64_t down = N(gemm_down)(g, rows), y_down = N(gemm_y_down)(g, rows);                                  \
        for (; tiles > 0; tiles--) {                                                                                   \
            const T *next = a + down;                                                                                  \
            N(gemm_tile)(g, a, y, row, rows, vectors, half, ahead,                                                     \
                         (ahead) == N(FC_FETCH_ROWS) && tiles > 1 ? next : fetch);                                     \
            a = next;                                                                                                  \
            y += y_down;                                                                                               \
            row += rows;                                                                                               \
            if ((ahead) != 0 && (ahead) != N(FC_FETCH_ROWS))                                                           \
                fetch += N(if_fetching)(g, fetch, g->ahead_tile);                                                      \
        }                                                                                                              \
    }
#define FC_SMALL(rows) FC_KIND(1, rows, 1, 0, 0) FC_KIND(2, rows, 2, 0, 0)
#define FC_TILE(rows) FC_SMALL(rows) FC_KIND(3, rows, 2, 0, N(FC_FETCH_WEIGHTS))
#if FC_MR == 14
FC_SMALL(1) FC_SMALL(2) FC_SMALL(3) FC_SMALL(4) FC_SMALL(5) FC_SMALL(6)
FC_TILE(7) FC_TILE(8) FC_TILE(9) FC_TILE(10) FC_TILE(11) FC_TILE(12) FC_TILE(13) FC_TILE(14)
#else
FC_SMALL(1) FC_SMALL(2) FC_SMALL(3) FC_TILE(4) FC_TILE(5) FC_TILE(6)
FC_KIND(1, 7, 1, 0, 0) FC_KIND(1, 8, 1, 0, 0) FC_KIND(1, 9, 1, 0, 0)
FC_KIND(1, 10, 1, 0, 0) FC_KIND(1, 11, 1, 0, 0) FC_KIND(1, 12, 1, 0, 0)
FC_KIND(4, 4, 2, 0, N(FC_COPY)) FC_KIND(4, 5, 2, 0, N(FC_COPY)) FC_KIND(4, 6, 2, 0, N(FC_COPY))
#endif
/* Many rows are cut into groups of these. */
#if FC_WIDEST == 3
FC_KIND(4, 13, 2, 0, N(FC_FETCH_ROWS)) FC_KIND(4, 14, 2, 0, N(FC_FETCH_ROWS))
FC_KIND(6, 13, 2, 1, 0) FC_KIND(6, 14, 2, 1, 0)
FC_KIND(7, 12, 2, 0, N(FC_PLAIN)) FC_KIND(7, 13, 2, 0, N(FC_PLAIN)) FC_KIND(7, 14, 2, 0, N(FC_PLAIN))
FC_KIND(5, 1, 3, 0, 0) FC_KIND(5, 2, 3, 0, 0) FC_KIND(5, 3, 3, 0, 0) FC_KIND(5, 4, 3, 0, 0) FC_KIND(5, 5, 3, 0, 0)
FC_KIND(5, 6, 3, 0, 0) FC_KIND(5, 7, 3, 0, 0)
FC_KIND(5, 8, 3, 0, N(FC_FETCH_ROWS)) FC_KIND(5, 9, 3, 0, N(FC_FETCH_ROWS))
FC_KIND(8, 11, 1, 1, 0) FC_KIND(8, 12, 1, 1, 0) FC_KIND(8, 13, 1, 1, 0) FC_KIND(8, 14, 1, 1, 0)
#define FC_MANY(rows) N(gemm_tile_4_##rows), N(gemm_tile_6_##rows), N(gemm_tile_7_##rows)
#define FC_HALVES N(gemm_tile_8_11), N(gemm_tile_8_12), N(gemm_tile_8_13), N(gemm_tile_8_14)
#define FC_TWELVE N(gemm_tile_7_12)
#define FC_THREE(rows) N(gemm_tile_5_##rows)
#else
#define FC_MANY(rows) 0, 0, 0
#define FC_HALVES 0
#define FC_TWELVE 0
#define FC_THREE(rows) 0
#endif
#undef FC_TILE
#undef FC_SMALL
#undef FC_KIND

/* one vector; two; three; two that fetch weights or rows of a, where they do, or (not AVX-512) copy b; one and a half;
 * two that are plain */
enum { N(FC_WEIGHTS) = 3, N(FC_ROWS) = 4, N(FC_COPIES) = 4, N(FC_HALF) = 5, N(FC_WARM) = 6 };
#define FC_KINDS(rows, three, weights, ...) {N(gemm_tile_1_##rows), N(gemm_tile_2_##rows), three, weights, __VA_ARGS__}
#define FC_WITH(rows, three, ...) FC_KINDS(rows, three, N(gemm_tile_3_##rows), __VA_ARGS__)
static N(gemm_tile_fn) *const N(gemm_tiles)[FC_MR1 + 1][7] = {
    {0, 0, 0, 0, 0, 0, 0},
    FC_KINDS(1, FC_THREE(1), 0, 0, 0),
    FC_KINDS(2, FC_THREE(2), 0, 0, 0),
    FC_KINDS(3, FC_THREE(3), 0, 0, 0),
#if FC_MR == 14
    FC_KINDS(4, FC_THREE(4), 0, 0, 0),
    FC_KINDS(5, FC_THREE(5), 0, 0, 0),
    FC_KINDS(6, FC_THREE(6), 0, 0, 0),
    FC_WITH(7, FC_THREE(7), 0, 0),
    FC_WITH(8, FC_THREE(8), 0, 0),
    FC_WITH(9, FC_THREE(9), 0, 0),
    FC_WITH(10, 0, 0, 0),
    FC_WITH(11, 0, 0, 0),
    FC_WITH(12, 0, 0, 0, FC_TWELVE),
    FC_WITH(13, 0, FC_MANY(13)),
    FC_WITH(14, 0, FC_MANY(14)),
#else
    FC_WITH(4, 0, N(gemm_tile_4_4), 0),
    FC_WITH(5, 0, N(gemm_tile_4_5), 0),
    FC_WITH(6, 0, N(gemm_tile_4_6), 0),
    {N(gemm_tile_1_7)},
    {N(gemm_tile_1_8)},
    {N(gemm_tile_1_9)},
    {N(gemm_tile_1_10)},
    {N(gemm_tile_1_11)},
    {N(gemm_tile_1_12)},
#endif
};
/* Half a vector: of 11 rows and more */
enum { N(FC_LEAST_HALVES) = 11 };
static N(gemm_tile_fn) *const N(gemm_halves)[] = {FC_HALVES};
#undef FC_KINDS
#undef FC_WITH
#undef FC_MANY
#undef FC_HALVES
#undef FC_TWELVE
#undef FC_THREE

/* `tiles` of `count` rows, of which `row`, which finds residuals, is the first, after so many tiles `before` them in
 * the panel. after: the rows of a that are read next */
static void N(gemm_run)(const fc_gemm *g, const T *a, T *y, int64_t row, int64_t count, int64_t tiles, int64_t before,
                        const T *after)
{
    const int vectors = (int)(g->columns + VL - 1) / VL, half = g->columns <= VL + VL / 2;
    const int sees = g->taps_h > 0 && g->taps_w > 0 && g->length >= N(FC_LAST);
    const int plain =
        FC_WIDEST == 3 && g->warm && g->finish && g->bias && !g->residual && !g->accumulate && !g->stream && sees;
    /* short sums leave little time between the stores of y */
    const int rows_fetch = g->fetch || g->taps_h * g->taps_w == 1;
    const int weights = vectors == 2 && g->ahead && before < g->ahead_tiles && N(gemm_tiles)[count][N(FC_WEIGHTS)];
    if (FC_MR == 6 && g->source && before == 0) {
        const int64_t down = N(gemm_down)(g, count);
        N(gemm_tiles)[count][N(FC_COPIES)](g, a, y, row, 1, g->ahead ? g->ahead : g->b);
        if (tiles > 1)
            N(gemm_run)(g, a + down, y + N(gemm_y_down)(g, count), row + count, count, tiles - 1, 1, after);
        return;
    }
    if (weights && tiles > g->ahead_tiles - before) {
        const int64_t first = g->ahead_tiles - before, down = first * N(gemm_down)(g, count);
        N(gemm_run)(g, a, y, row, count, first, before, a + down);
        N(gemm_run)(g, a + down, y + first * N(gemm_y_down)(g, count), row + first * count, count, tiles - first,
                    before + first, after);
        return;
    }
    const int fetches = FC_MR == 14 && vectors == 2 && N(gemm_tiles)[count][N(FC_ROWS)];
    const int kind = fetches && half && !weights                                    ? N(FC_HALF)
                     : plain && vectors == 2 && N(gemm_tiles)[count][N(FC_WARM)] ? N(FC_WARM)
                     : weights                                                     ? N(FC_WEIGHTS)
                     : fetches && rows_fetch                                       ? N(FC_ROWS)
                                                                                   : vectors - 1;
    const T *fetch = weights ? (const T *)g->ahead + before * g->ahead_tile : kind == N(FC_WARM) ? g->b : after;
    const int halves = FC_WIDEST == 3 && g->columns <= VL / 2 && count >= N(FC_LEAST_HALVES);
    N(gemm_tile_fn) *const tile = halves ? N(gemm_halves)[count - N(FC_LEAST_HALVES)] : N(gemm_tiles)[count][kind];
    tile(g, a, y, row, tiles, fetch);
}

/* Rows [row, row + rows) of one panel, in near-equal groups: 49 rows are 13 + 12 + 12 + 12, so no group is too short
 * for the FMA pipes. after: the rows of a that are read next */
static void N(gemm_panel)(const fc_gemm *g, int64_t row, int64_t rows, const T *after)
{
    const T *a = (const T *)g->a + row * g->a_row;
    T *y = (T *)g->y + row * g->y_row;
    const int64_t most = g->columns > 2 * VL ? FC_MR3 : g->columns > VL ? FC_MR : FC_MR1,
                  groups = (rows + most - 1) / most, size = rows / groups, longer = rows % groups;
    for (int64_t i = 0, step, before = 0, tiles; i < groups; i += step, before += tiles) {
        const int64_t count = size + (i < longer);
        step = g->lines > 1 ? 1 : (i < longer ? longer : groups) - i;
        tiles = g->lines > 1 ? g->lines : step;
        const T *next = a + step * count * g->a_row;
        N(gemm_run)(g, a, y, row, count, tiles, before, i + step == groups ? after : next);
        a = next;
        y += step * count * g->y_row;
        row += step * count;
    }
}

/* All panels of some rows, whose part of a, and of y in a panel, stays in half of a first-level cache of 32 KiB, before
 * the next rows. */
static void N(gemm_rows)(const fc_gemm *g, int64_t rows)
{
    enum { STRIP_BYTES = 16 << 10 };
    const T *a = g->a, *after = a + g->after;
    if (g->finish && g->scale) {
        fc_gemm plain = *g;
        plain.finish = 0;
        N(gemm_rows)(&plain, rows);
        N(gemm_write)(g, g->y, g->y_row, g->y, 0, rows);
        return;
    }
    if (g->pairs == 0) {
        N(gemm_panel)(g, 0, rows, after);
        return;
    }
    const int64_t row_bytes = (g->taps_h * g->taps_w * g->length + 2 * VL) * (int64_t)sizeof(T);
    const int64_t strip = row_bytes * FC_MR < STRIP_BYTES ? STRIP_BYTES / row_bytes / FC_MR * FC_MR : FC_MR;
    fc_gemm part = *g;
    for (int64_t row = 0; row < rows; row += strip) {
        const int64_t count = rows - row < strip ? rows - row : strip;
        const T *next = row + count < rows ? a + (row + count) * g->a_row : after;
        for (int64_t panel = 0; panel <= g->pairs; panel++) {
            const int64_t col = panel * 2 * VL;
            part.columns = panel < g->pairs ? 2 * VL : g->columns - col;
            part.b = (const T *)g->b + panel * g->b_panel;
            part.y = (T *)g->y + col;
            part.bias = g->bias ? (const T *)g->bias + col : NULL;
            part.residual = g->residual ? (const T *)g->residual + col : NULL;
            N(gemm_panel)(&part, row, count, next);
            part.fetch = 0;
        }
        part.fetch = g->fetch;
    }
}

#include "gemm_at.tmpl.h"

static const fc_gemm_kernels N(gemm_table) = {
    .max_rows = FC_MR, .single_rows = FC_MR1, .widest = FC_WIDEST, .rows = N(gemm_rows), .at = N(gemm_at)};
#undef FC_MR
#undef FC_MR3
#undef FC_MR1
#undef FC_WIDEST
#undef FC_OPAQUE
#undef FC_ORDER
#undef FC_LINE_LANES
#undef FC_UNROLL
