/* winograd.tmpl.h: 6-point transforms with the points 0, +-a, +-b, infinity, a = 5/8, b = 3/2.
 *
 * With the polynomials M_j(x) = prod_{l != j} (x - p_l) over the finite points and M(x) = prod_l (x - p_l):
 *     B' row j = coefficients of M_j (row 0 divided by M_0(0)),   row 5 = coefficients of M
 *     G  row j = (1, p_j, p_j^2, ..),   row 5 = (.., 0, 1)
 *     A' row i = (p_0^i, p_1^i / M_1(p_1), .., p_4^i / M_4(p_4), i == last)
 * The divisions by M_j(p_j) may stand in any of the three; in A' (and for 0, whose M_0 has a coefficient to spare, in B')
 * they cost no operation.
 * The points decide the rounding error: the root mean square error of F(4x4, 3x3) is 1.75 times that of a direct sum with
 * these, 4 times with the textbook points 0, +-1, +-2 (docs/accuracy.md).
 */
#define FC_A 0.625
#define FC_B 1.5
#define FC_A2 (FC_A * FC_A)
#define FC_B2 (FC_B * FC_B)
#define FC_NORM_A (1 / (2 * FC_A2 * (FC_A2 - FC_B2)))   /* 1 / M_1(a) = 1 / M_2(-a) */
#define FC_NORM_B (1 / (2 * FC_B2 * (FC_B2 - FC_A2)))
#define FC_UNROLL _Pragma("GCC unroll 16")
#define K(x) ((T)(x))

INLINE vec N(wino_load)(const T *p, int count) { return count >= VL ? vload(p) : vload_tail(p, count); }

/* B' d, row by row; rows 1 and 2, and 3 and 4, share their even and odd parts. Said operation by operation: the kernels of inner
 * tiles and of border tiles must round alike. */
INLINE vec N(wino_b0)(vec d0, vec d2, vec d4)
{
    return vmuladd(vset1(K(1 / (FC_A2 * FC_B2))), d4, vmuladd(vset1(-K(1 / FC_A2 + 1 / FC_B2)), d2, d0));
}
INLINE vec N(wino_b5)(vec d1, vec d3, vec d5)
{
    return vmuladd(vset1(K(FC_A2 * FC_B2)), d1, vmuladd(vset1(-K(FC_A2 + FC_B2)), d3, d5));
}
INLINE void N(wino_b12)(vec *r1, vec *r2, vec d1, vec d2, vec d3, vec d4)
{
    const vec even = vmuladd(vset1(-K(FC_B2)), d2, d4), odd = vmuladd(vset1(-K(FC_B2)), d1, d3);
    *r1 = vmuladd(vset1(K(FC_A)), odd, even);
    *r2 = vmuladd(vset1(-K(FC_A)), odd, even);
}
INLINE void N(wino_b34)(vec *r3, vec *r4, vec d1, vec d2, vec d3, vec d4)
{
    const vec even = vmuladd(vset1(-K(FC_A2)), d2, d4), odd = vmuladd(vset1(-K(FC_A2)), d1, d3);
    *r3 = vmuladd(vset1(K(FC_B)), odd, even);
    *r4 = vmuladd(vset1(-K(FC_B)), odd, even);
}

/* v[j * pitch] = (B' d)[j] */
INLINE void N(wino_store_b)(const vec *d, T *v, int64_t pitch)
{
    vec r1, r2, r3, r4;
    N(wino_b12)(&r1, &r2, d[1], d[2], d[3], d[4]);
    N(wino_b34)(&r3, &r4, d[1], d[2], d[3], d[4]);
    vstore(v, N(wino_b0)(d[0], d[2], d[4]));
    vstore(v + pitch, r1);
    vstore(v + 2 * pitch, r2);
    vstore(v + 3 * pitch, r3);
    vstore(v + 4 * pitch, r4);
    vstore(v + 5 * pitch, N(wino_b5)(d[1], d[3], d[5]));
}

/* r = G g, 2 to 5 taps g[0], g[step], .. */
INLINE void N(wino_g)(vec *r, const vec *g, int step, const int taps)
{
    vec even_a = g[0], even_b = g[0], odd_a = g[step], odd_b = g[step];
    if (taps > 2) {
        vec high_a = g[2 * step], high_b = g[2 * step];
        if (taps > 4) {
            high_a += K(FC_A2) * g[4 * step];
            high_b += K(FC_B2) * g[4 * step];
        }
        even_a += K(FC_A2) * high_a;
        even_b += K(FC_B2) * high_b;
    }
    if (taps > 3) {
        odd_a += K(FC_A2) * g[3 * step];
        odd_b += K(FC_B2) * g[3 * step];
    }
    r[0] = g[0];
    r[1] = even_a + K(FC_A) * odd_a;
    r[2] = even_a - K(FC_A) * odd_a;
    r[3] = even_b + K(FC_B) * odd_b;
    r[4] = even_b - K(FC_B) * odd_b;
    r[5] = g[(taps - 1) * step];
}

/* r = A' m, 2 to 5 outputs */
INLINE void N(wino_a)(vec *r, const vec *m, int step, const int outputs)
{
    const vec sum_a = m[step] + m[2 * step], dif_a = m[step] - m[2 * step];
    const vec sum_b = m[3 * step] + m[4 * step], dif_b = m[3 * step] - m[4 * step], last = m[5 * step];
    r[0] = m[0] + K(FC_NORM_A) * sum_a + K(FC_NORM_B) * sum_b;
    r[1] = K(FC_NORM_A * FC_A) * dif_a + K(FC_NORM_B * FC_B) * dif_b;
    if (outputs > 2)
        r[2] = K(FC_NORM_A * FC_A2) * sum_a + K(FC_NORM_B * FC_B2) * sum_b;
    if (outputs > 3)
        r[3] = K(FC_NORM_A * FC_A * FC_A2) * dif_a + K(FC_NORM_B * FC_B * FC_B2) * dif_b;
    if (outputs > 4)
        r[4] = K(FC_NORM_A * FC_A2 * FC_A2) * sum_a + K(FC_NORM_B * FC_B2 * FC_B2) * sum_b;
    r[outputs - 1] += last;
}

/* One vector of channels of a tile. Row by row of B' over the columns first: 12 vectors are alive at a time, while all 36
 * would be stored and loaded once more. FC_X(i, j) loads pixel (i, j). */
#define FC_WINO_SQUARE(v, pitch)                                                                                       \
    {                                                                                                                  \
        vec t[6], q[6];                                                                                                \
        FC_UNROLL for (int j = 0; j < 6; j++) t[j] = N(wino_b0)(FC_X(0, j), FC_X(2, j), FC_X(4, j));                   \
        N(wino_store_b)(t, v, pitch);                                                                                  \
        FC_UNROLL for (int j = 0; j < 6; j++)                                                                          \
            N(wino_b12)(t + j, q + j, FC_X(1, j), FC_X(2, j), FC_X(3, j), FC_X(4, j));                                 \
        N(wino_store_b)(t, v + 6 * pitch, pitch);                                                                      \
        N(wino_store_b)(q, v + 12 * pitch, pitch);                                                                     \
        FC_UNROLL for (int j = 0; j < 6; j++)                                                                          \
            N(wino_b34)(t + j, q + j, FC_X(1, j), FC_X(2, j), FC_X(3, j), FC_X(4, j));                                 \
        N(wino_store_b)(t, v + 18 * pitch, pitch);                                                                     \
        N(wino_store_b)(q, v + 24 * pitch, pitch);                                                                     \
        FC_UNROLL for (int j = 0; j < 6; j++) t[j] = N(wino_b5)(FC_X(1, j), FC_X(3, j), FC_X(5, j));                   \
        N(wino_store_b)(t, v + 30 * pitch, pitch);                                                                     \
    }
#define FC_WINO_LINE(v, pitch)                                                                                         \
    {                                                                                                                  \
        vec t[6];                                                                                                      \
        FC_UNROLL for (int j = 0; j < 6; j++) t[j] = FC_X(0, j);                                                       \
        N(wino_store_b)(t, v, pitch);                                                                                  \
    }
#define FC_WINO_INPUT(v, pitch)                                                                                        \
    {                                                                                                                  \
        if (line)                                                                                                      \
            FC_WINO_LINE(v, pitch)                                                                                     \
        else                                                                                                           \
            FC_WINO_SQUARE(v, pitch)                                                                                   \
    }

INLINE void N(wino_input)(const void *x_, int64_t row, int64_t pixel, int64_t channels, void *v_, int64_t pitch, const int line)
{
    const T *x = x_;
    T *v = v_;
    int64_t c = 0;
#define FC_X(i, j) vload(x + (i) * row + (j) * pixel)
    for (; c + VL <= channels; c += VL, x += VL, v += VL)
        FC_WINO_INPUT(v, pitch)
#undef FC_X
#define FC_X(i, j) vload_tail(x + (i) * row + (j) * pixel, (int)(channels - c))
    if (c < channels)
        FC_WINO_INPUT(v, pitch)
#undef FC_X
}

INLINE void N(wino_input_border)(const void *const *x, int64_t channels, void *v_, int64_t pitch, const int line)
{
    T *v = v_;
    int64_t c = 0;
#define FC_X(i, j) vload((const T *)x[6 * (i) + (j)] + c)
    for (; c + VL <= channels; c += VL, v += VL)
        FC_WINO_INPUT(v, pitch)
#undef FC_X
#define FC_X(i, j) vload_tail((const T *)x[6 * (i) + (j)] + c, (int)(channels - c))
    if (c < channels)
        FC_WINO_INPUT(v, pitch)
#undef FC_X
}

INLINE void N(wino_weights)(const void *w_, int64_t tap_pitch, int64_t count, void *u_, int64_t pitch, const int taps,
                           const int line)
{
    const T *w = w_;
    T *u = u_;
    const int inputs = line ? taps : taps * taps;
    for (int64_t c = 0; c < count; c += VL) {
        vec g[25], t[30], r[6];
        FC_UNROLL for (int tap = 0; tap < inputs; tap++) g[tap] = vload(w + tap * tap_pitch + c);
        if (line) {
            N(wino_g)(r, g, 1, taps);
            FC_UNROLL for (int j = 0; j < 6; j++) vstore(u + j * pitch + c, r[j]);
            continue;
        }
        FC_UNROLL for (int j = 0; j < taps; j++)
        {
            N(wino_g)(r, g + j, taps, taps);
            FC_UNROLL for (int i = 0; i < 6; i++) t[taps * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < 6; i++)
        {
            N(wino_g)(r, t + taps * i, 1, taps);
            FC_UNROLL for (int j = 0; j < 6; j++) vstore(u + (6 * i + j) * pitch + c, r[j]);
        }
    }
}

INLINE void N(wino_output_tile)(const T *m, int64_t pitch, vec *y, const int size, const int line)
{
    const int points = line ? 6 : 36;
    vec in[36], t[24];
    FC_UNROLL for (int e = 0; e < points; e++) in[e] = vload(m + e * pitch);
    if (line) {
        N(wino_a)(y, in, 1, size);
        return;
    }
    FC_UNROLL for (int j = 0; j < 6; j++)
    {
        vec r[4];
        N(wino_a)(r, in + j, 6, size);
        FC_UNROLL for (int i = 0; i < size; i++) t[6 * i + j] = r[i];
    }
    FC_UNROLL for (int i = 0; i < size; i++) N(wino_a)(y + size * i, t + 6 * i, 1, size);
}

/* clamp(out + residual), out already scaled, of a whole tile and vector: `count` outputs, `size` in a row */
INLINE void N(wino_store_tile)(const fc_winograd_output *o, vec *out, const T *residual, T *y, const int count, const int size)
{
    const vec lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    if (residual)
        FC_UNROLL for (int i = 0; i < count; i++)
            out[i] += vload(residual + i / size * o->residual_row + i % size * o->residual_pixel);
    FC_UNROLL for (int i = 0; i < count; i++) out[i] = vclamp(out[i], lower, upper);
    if (o->stream)
        FC_UNROLL for (int i = 0; i < count; i++) vstream(y + i / size * o->y_row + i % size * o->y_pixel, out[i]);
    else
        FC_UNROLL for (int i = 0; i < count; i++) vstore(y + i / size * o->y_row + i % size * o->y_pixel, out[i]);
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

INLINE void N(wino_output)(const fc_winograd_output *o, const void *m_, const void *residual_, void *y_, int rows, int columns,
                          const int size, const int line)
{
    const int outputs = line ? size : size * size;
    const T *m = m_, *scale = o->scale, *bias = o->bias, *residual = residual_;
    T *y = y_;
    for (int64_t k = 0; k < o->channels; k += VL) {
        const int count = o->channels - k < VL ? (int)(o->channels - k) : VL;
        vec out[16];
        N(wino_output_tile)(m + k, o->pitch, out, size, line);
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
        FC_UNROLL for (int i = 0; i < outputs; i++) out[i] = out[i] * s + t;
        if (rows == outputs / size && columns == size && count == VL) {
            N(wino_store_tile)(o, out, residual ? residual + k : NULL, y + k, outputs, size);
        } else {
            T part[16 * VL];
            FC_UNROLL for (int i = 0; i < outputs; i++) vstore(part + i * VL, out[i]);
            N(wino_store_part)(o, part, residual ? residual + k : NULL, y + k, rows, columns, count, size);
        }
    }
}

INLINE void N(wino_gradient)(const void *const *dy, int64_t channels, void *d_, int64_t pitch, const int size, const int line)
{
    T *d = d_;
    const int outputs = line ? size : size * size;
    for (int64_t k = 0; k < channels; k += VL) {
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec g[16], t[24], r[6];
        FC_UNROLL for (int e = 0; e < outputs; e++) g[e] = N(wino_load)((const T *)dy[e] + k, count);
        if (line) {
            N(wino_g)(r, g, 1, size);
            FC_UNROLL for (int j = 0; j < 6; j++) vstore(d + j * pitch + k, r[j]);
            continue;
        }
        FC_UNROLL for (int j = 0; j < size; j++)
        {
            N(wino_g)(r, g + j, size, size);
            FC_UNROLL for (int i = 0; i < 6; i++) t[size * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < 6; i++)
        {
            N(wino_g)(r, t + size * i, 1, size);
            FC_UNROLL for (int j = 0; j < 6; j++) vstore(d + (6 * i + j) * pitch + k, r[j]);
        }
    }
}

INLINE void N(wino_weight_gradient)(const void *u_, int64_t pitch, int64_t channels, void *w_, int64_t tap_pitch,
                                   const int taps, const int line)
{
    const T *u = u_;
    T *w = w_;
    const int points = line ? 6 : 36, rows = line ? 1 : taps;
    for (int64_t k = 0; k < channels; k += VL) {
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec in[36], t[30], r[5];
        FC_UNROLL for (int e = 0; e < points; e++) in[e] = N(wino_load)(u + e * pitch + k, count);
        FC_UNROLL for (int j = 0; j < 6; j++)
        {
            if (line) {
                t[j] = in[j];
                continue;
            }
            N(wino_a)(r, in + j, 6, taps);
            FC_UNROLL for (int i = 0; i < taps; i++) t[6 * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < rows; i++)
        {
            N(wino_a)(r, t + 6 * i, 1, taps);
            FC_UNROLL for (int j = 0; j < taps; j++)
                if (count == VL)
                    vstore(w + (taps * i + j) * tap_pitch + k, r[j]);
                else
                    vstore_tail(w + (taps * i + j) * tap_pitch + k, r[j], count);
        }
    }
}

#define FC_WINOGRAD_INPUTS(shape, line)                                                                                \
    static void N(winograd_input_##shape)(const void *x, int64_t row, int64_t pixel, int64_t channels, void *v,        \
                                          int64_t pitch)                                                               \
    {                                                                                                                  \
        N(wino_input)(x, row, pixel, channels, v, pitch, line);                                                        \
    }                                                                                                                  \
    static void N(winograd_input_border_##shape)(const void *const *x, int64_t channels, void *v, int64_t pitch)       \
    {                                                                                                                  \
        N(wino_input_border)(x, channels, v, pitch, line);                                                             \
    }
#define FC_WINOGRAD(shape, line, r, m)                                                                                 \
    static void N(winograd_weights_##shape##r)(const void *w, int64_t tap_pitch, int64_t count, void *u, int64_t pitch) \
    {                                                                                                                  \
        N(wino_weights)(w, tap_pitch, count, u, pitch, r, line);                                                       \
    }                                                                                                                  \
    static void N(winograd_output_##shape##r)(const fc_winograd_output *o, const void *x, const void *residual,        \
                                              void *y, int rows, int columns)                                          \
    {                                                                                                                  \
        N(wino_output)(o, x, residual, y, rows, columns, m, line);                                                     \
    }                                                                                                                  \
    static void N(winograd_gradient_##shape##r)(const void *const *dy, int64_t channels, void *d, int64_t pitch)       \
    {                                                                                                                  \
        N(wino_gradient)(dy, channels, d, pitch, m, line);                                                             \
    }                                                                                                                  \
    static void N(winograd_weight_gradient_##shape##r)(const void *u, int64_t pitch, int64_t channels, void *w,        \
                                                       int64_t tap_pitch)                                              \
    {                                                                                                                  \
        N(wino_weight_gradient)(u, pitch, channels, w, tap_pitch, r, line);                                            \
    }
#define FC_BY_KERNEL(name) {[3] = N(name##3), [4] = N(name##4), [5] = N(name##5)}
#define FC_WINOGRAD_SHAPE(shape, line, count)                                                                          \
    FC_WINOGRAD_INPUTS(shape, line)                                                                                    \
    FC_WINOGRAD(shape, line, 3, 4) FC_WINOGRAD(shape, line, 4, 3) FC_WINOGRAD(shape, line, 5, 2)                       \
    static const fc_winograd_kernels N(winograd_##shape) = {                                                           \
        .points = count,                                                                                               \
        .input = N(winograd_input_##shape),                                                                            \
        .input_border = N(winograd_input_border_##shape),                                                              \
        .weights = FC_BY_KERNEL(winograd_weights_##shape),                                                             \
        .output = FC_BY_KERNEL(winograd_output_##shape),                                                               \
        .gradient = FC_BY_KERNEL(winograd_gradient_##shape),                                                           \
        .weight_gradient = FC_BY_KERNEL(winograd_weight_gradient_##shape),                                             \
    };
FC_WINOGRAD_SHAPE(square, 0, 36) FC_WINOGRAD_SHAPE(line, 1, 6)
#undef FC_WINOGRAD_SHAPE
#undef FC_BY_KERNEL
#undef FC_WINOGRAD
#undef FC_WINOGRAD_INPUTS
#undef FC_WINO_INPUT
#undef FC_WINO_LINE
#undef FC_WINO_SQUARE
#undef FC_A
#undef FC_B
#undef FC_A2
#undef FC_B2
#undef FC_NORM_A
#undef FC_NORM_B
#undef FC_UNROLL
#undef K
