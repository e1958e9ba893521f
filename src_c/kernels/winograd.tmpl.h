/* winograd.tmpl.h: 6-point transforms with the points 0, +-a, +-b, infinity, a = 5/8, b = 3/2, and those of 5 points
 * without 0, a = 1/2, b = 5/4.
 *
 * With the polynomials M_j(x) = prod_{l != j} (x - p_l) over the finite points and M(x) = prod_l (x - p_l):
 *     B' row j = coefficients of M_j (row 0 divided by M_0(0)),   row 5 = coefficients of M
 *     G  row j = (1, p_j, p_j^2, ..),   row 5 = (.., 0, 1)
 *     A' row i = (p_0^i, p_1^i / M_1(p_1), .., p_4^i / M_4(p_4), i == last)
 * The divisions by M_j(p_j) may stand in any of the three; in A' (and for 0, whose M_0 has a coefficient to spare, in
 * B') they cost no operation. Without the point 0 M_j and M lose a factor x: the rows of B' are the same ones a place
 * further left, A' begins with what was its row 1, G is the same. The points decide the rounding error: the root mean
 * square error of F(4x4, 3x3) is 1.75 times that of a direct sum with these, 4 times with the textbook points 0, +-1,
 * +-2 (docs/accuracy.md).
 */
/* Of the tile that the function around them names `tile`. */
#define FC_A (tile == 6 ? 0.625 : 0.5)
#define FC_B (tile == 6 ? 1.5 : 1.25)
#define FC_A2 (FC_A * FC_A)
#define FC_B2 (FC_B * FC_B)
#define FC_NORM_A (1 / (2 * FC_A2 * (FC_A2 - FC_B2))) /* 1 / M_1(a) = 1 / M_2(-a) of 6 points; of 5, +-a times that */
#define FC_NORM_B (1 / (2 * FC_B2 * (FC_B2 - FC_A2)))
/* Or GCC keeps an address for every row, more than there are registers. */
#define FC_OPAQUE(p) __asm__("" : "+r"(p))
#define FC_UNROLL _Pragma("GCC unroll 28")
#define K(x) ((T)(x))

/* Register tiles of the products: 2 x FC_WINO_ROWS accumulators, one vector of twice as many tiles or two vectors of
 * them; with 2 of u and 1 broadcast they take 15 of 16 registers. Of 32, 28 accumulators have room, but as many stores
 * behind each other are waited for, so no more than 20: of 16 channels 28 run at 0.90 (one vector) and 0.89 (two) of
 * the peak of Zen 4, 20 at 0.99 and 0.98. A brick is three near-equal groups of tiles by two vectors, 10 + 9 + 9, or
 * two of 16 registers; by one vector two groups.
 *
 * The pitch of a brick has a cache line more, so that the 36 streams of a transform fall into different L1 sets. */
#if FC_VECTOR_BYTES == 64
#define FC_WINO_ROWS 10
#define FC_BRICK 28
#else
#define FC_WINO_ROWS 6
#define FC_BRICK 12
#endif
#define FC_LINE (64 / (int)sizeof(T))
#define FC_POINT (FC_BRICK * FC_LINE + FC_LINE)
/* Points along an axis, of squares or lines. */
#define FC_WINO_TILE (points % 6 == 0 ? 6 : 5)
/* Where channel c, the first of a vector, is in a brick of `points` points. */
#define FC_CHANNEL(c) ((c) / FC_LINE * (points * FC_POINT) + (c) % FC_LINE)

INLINE vec N(wino_load)(const T *p, int count) { return count >= VL ? vload(p) : vload_tail(p, count); }

/* B' d, row by row; rows 1 and 2, and 3 and 4, share their even and odd parts. Said operation by operation: the kernels
 * of inner tiles and of border tiles must round alike. */
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

/* even + point^2 (..) and odd + .. of 2 to 5 taps g[0], g[step], ..: what a point and its negative share. Said
 * operation by operation: all kernels that transform weights must round alike. */
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

/* One vector of channels of squares under neighbouring tiles, in two passes through the first-level cache: a column
 * that two tiles share is loaded and transformed once, and those outside the image are zeros in between. */
INLINE void N(wino_input_columns)(const fc_winograd_inputs *r, int64_t c, T *to, const int whole)
{
    const int tile = 6, count = (int)(r->channels - c);
    const T *x[6];
    FC_UNROLL for (int i = 0; i < tile; i++) x[i] = (const T *)r->x[i] + c;
    to += r->first * tile * VL;
    for (int64_t column = r->first; column < r->end; column++, to += tile * VL) {
        vec d[6];
        FC_UNROLL for (int i = 0; i < tile; i++) d[i] = whole ? vload(x[i]) : vload_tail(x[i], count);
        FC_OPAQUE(r); /* or pitches take registers from pointers */
        FC_UNROLL for (int i = 0; i < tile; i++) x[i] = (const T *)((const char *)x[i] + r->pitch[i]);
        N(wino_store_b)(d, to, VL, tile, 1);
    }
}

INLINE void N(wino_clear_columns)(T *between, int64_t first, int64_t end)
{
    for (T *to = between + first * 6 * VL; to < between + end * 6 * VL; to += VL) vstore(to, (vec){0});
}

static void N(winograd_inputs)(const fc_winograd_inputs *r)
{
    enum { TILE = FC_WINOGRAD_TILE, OUT = 4, COLUMN = TILE * VL };
    const int points = FC_WINOGRAD_MAX_POINTS;
    _Alignas(64) T between[(OUT * FC_WINOGRAD_RUN + TILE - OUT) * COLUMN];
    N(wino_clear_columns)(between, 0, r->first);
    N(wino_clear_columns)(between, r->end, r->columns);
    const int64_t channels = r->whole_parts ? (r->channels + FC_LINE - 1) / FC_LINE * FC_LINE : r->channels;
    for (int64_t c = 0; c < channels; c += VL) {
        if (c + VL <= r->channels)
            N(wino_input_columns)(r, c, between, 1);
        else
            N(wino_input_columns)(r, c, between, 0);
        for (int64_t i = 0; i < r->tiles; i++) {
            const T *from = between + r->start[i] * COLUMN;
            T *v = (T *)r->v[i] + FC_CHANNEL(c);
            FC_UNROLL for (int row = 0; row < TILE; row++)
            {
                if (row == TILE - 1 && !r->last_row)
                    break;
                vec d[6];
                FC_UNROLL for (int j = 0; j < TILE; j++) d[j] = vload(from + row * VL + j * COLUMN);
                N(wino_store_b)(d, v + row * TILE * FC_POINT, FC_POINT, TILE, 1);
            }
        }
    }
}

/* One vector of channels of a tile of 5 x 5. Row by row of B' over the columns first: 10 vectors are alive at a time,
 * while all 25 would be stored and loaded once more. FC_X(i, j) loads pixel (i, j), rows of tiles of 5 being 1 to 5;
 * their last row and column are read only where the last row or column of points is wanted. */
#define FC_WINO_SQUARE                                                                                                 \
    {                                                                                                                  \
        vec t[6] = {{0}}, q[6] = {{0}};                                                                                \
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
/* Whether the last row and column of points are wanted; lines of 6 are always written whole: a test costs more than the
 * cache line. */
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

#include "winograd_products.tmpl.h"
#include "winograd_pairs.tmpl.h"
#include "winograd_few.tmpl.h"
#include "winograd_thin.tmpl.h"

/* ---- outputs ----------------------------------------------------------------------------------------------------*/
/* Points that a tile does not have, of one vector of channels: the last row where `rows` is 0, the last column where
 * `columns` is. */
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
INLINE void N(wino_store_tile)(const fc_winograd_output *o, vec *out, const T *residual, T *y, const int count,
                               const int size)
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
static __attribute__((noinline)) void N(wino_store_part)(const fc_winograd_output *o, const T *out, const T *residual,
                                                         T *y, int rows, int columns, int count, int size)
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

INLINE void N(wino_output)(const fc_winograd_output *o, void *m_, const void *residual_, void *y_, int rows,
                           int columns, const int size, const int points)
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
        if (o->check && k == 0) { /* x * 0 is NaN for NaN and infinite x; two chains of sums: none is waited for */
            vec even = vload(o->check), odd = out[outputs - 1] * (T)0;
            FC_UNROLL for (int i = 0; i + 1 < outputs; i += 2)
            {
                even += out[i] * (T)0;
                odd += out[i + 1] * (T)0;
            }
            vstore(o->check, even + odd);
        }
        /* Sums of zeros may be -0 (winograd_multiply) or not (winograd_few), but not when +0 is added. */
        const vec s = scale ? N(wino_load)(scale + k, count) : vset1(1),
                  t = bias ? N(wino_load)(bias + k, count) + (T)0 : (vec){0};
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
            in[e] = (e < points - tile || rows || lines == 1) && (e % tile < tile - 1 || columns)
                        ? vload(u + e * pitch + k)
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

#include "winograd_rows.tmpl.h"

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
#define FC_SHARED                                                                                                      \
    .brick = FC_BRICK, .line = FC_LINE, .point = FC_POINT, .multiply = N(winograd_multiply),                           \
    .multiply_at = N(winograd_multiply_at)
#define FC_TAKES(shape) .input = N(winograd_input_##shape), .input_border = N(winograd_input_border_##shape)
#define FC_TAKES_square .inputs = N(winograd_inputs), FC_THIN_KERNELS
#define FC_TAKES_line FC_TAKES(line)
#define FC_BY_KERNEL(name) {[3] = N(name##3), [4] = N(name##4), [5] = N(name##5)}
#define FC_SIX(shape, points)                                                                                          \
    FC_FORWARD(shape, points, 3, 4)                                                                                    \
    FC_FORWARD(shape, points, 4, 3)                                                                                    \
    FC_FORWARD(shape, points, 5, 2)                                                                                    \
    FC_GRADIENT(shape, points, 3, 4)                                                                                   \
    FC_GRADIENT(shape, points, 4, 3)                                                                                   \
    FC_GRADIENT(shape, points, 5, 2)                                                                                   \
    static const fc_winograd_kernels N(winograd_##shape) = {                                                           \
        FC_SHARED, FC_TAKES_##shape, FC_FEW_##shape FC_ROWS_##shape                                                    \
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
        FC_SHARED, FC_TAKES(shape), FC_FEW_##shape                                                                     \
        .weights = {[2] = N(winograd_weights_##shape##2)},                                                             \
        .output = {[2] = N(winograd_output_##shape##2)},                                                               \
        .gradient = {[2] = N(winograd_gradient_##shape##2)},                                                           \
        .weight_gradient = {[2] = N(winograd_weight_gradient_##shape##2)},                                             \
    };
FC_SIX(square, 36)
FC_INPUT(line, 6)
FC_SIX(line, 6)
FC_FIVE(small_square, 25)
FC_FIVE(small_line, 5)
#undef FC_SIX
#undef FC_FEW_square
#undef FC_PAIRS_square
#undef FC_FEW_line
#undef FC_ROWS_square
#undef FC_ROWS_line
#undef FC_ROWS_VECTORS
#undef FC_FEW_small_square
#undef FC_FEW_small_line
#undef FC_FIVE
#undef FC_INPUT
#undef FC_FORWARD
#undef FC_GRADIENT
#undef FC_SHARED
#undef FC_TAKES
#undef FC_TAKES_square
#undef FC_THIN_KERNELS
#undef FC_TAKES_line
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
