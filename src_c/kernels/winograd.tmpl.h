/* winograd.tmpl.h: 6-point transforms with the points 0, +-a, +-b, infinity, a = 5/8, b = 3/2.
 *
 * With the polynomials M_j(x) = prod_{l != j} (x - p_l) over the finite points and M(x) = prod_l (x - p_l):
 *     B' row j = coefficients of M_j,   row 5 = coefficients of M
 *     G  row j = (1, p_j, p_j^2, ..) / M_j(p_j),   row 5 = (.., 0, 1)
 *     A' row i = (p_0^i, .., p_4^i, i == last)
 * The points decide the rounding error: the root mean square error of F(4x4, 3x3) is 1.75 times that of a direct sum with
 * these, 4 times with the textbook points 0, +-1, +-2 (docs/accuracy.md).
 */
#define FC_A 0.625
#define FC_B 1.5
#define FC_A2 (FC_A * FC_A)
#define FC_B2 (FC_B * FC_B)
#define FC_NORM_0 (1 / (FC_A2 * FC_B2))                 /* 1 / M_0(0) */
#define FC_NORM_A (1 / (2 * FC_A2 * (FC_A2 - FC_B2)))   /* 1 / M_1(a) = 1 / M_2(-a) */
#define FC_NORM_B (1 / (2 * FC_B2 * (FC_B2 - FC_A2)))
#define FC_UNROLL _Pragma("GCC unroll 16")
#define K(x) ((T)(x))

INLINE vec N(wino_load)(const T *p, int count) { return count >= VL ? vload(p) : vload_tail(p, count); }

/* r = B' d */
INLINE void N(wino_b)(vec *r, vec d0, vec d1, vec d2, vec d3, vec d4, vec d5)
{
    const vec even_a = d4 - K(FC_B2) * d2, odd_a = d3 - K(FC_B2) * d1;
    const vec even_b = d4 - K(FC_A2) * d2, odd_b = d3 - K(FC_A2) * d1;
    r[0] = K(FC_A2 * FC_B2) * d0 + (d4 - K(FC_A2 + FC_B2) * d2);
    r[1] = even_a + K(FC_A) * odd_a;
    r[2] = even_a - K(FC_A) * odd_a;
    r[3] = even_b + K(FC_B) * odd_b;
    r[4] = even_b - K(FC_B) * odd_b;
    r[5] = K(FC_A2 * FC_B2) * d1 + (d5 - K(FC_A2 + FC_B2) * d3);
}

/* r = G g, 2 to 5 taps g[0], g[step], .. */
INLINE void N(wino_g)(vec *r, const vec *g, int step, const int taps)
{
    vec even_a = K(FC_NORM_A) * g[0], even_b = K(FC_NORM_B) * g[0];
    vec odd_a = K(FC_A * FC_NORM_A) * g[step], odd_b = K(FC_B * FC_NORM_B) * g[step];
    if (taps > 2) {
        even_a += K(FC_A2 * FC_NORM_A) * g[2 * step];
        even_b += K(FC_B2 * FC_NORM_B) * g[2 * step];
    }
    if (taps > 3) {
        odd_a += K(FC_A * FC_A2 * FC_NORM_A) * g[3 * step];
        odd_b += K(FC_B * FC_B2 * FC_NORM_B) * g[3 * step];
    }
    if (taps > 4) {
        even_a += K(FC_A2 * FC_A2 * FC_NORM_A) * g[4 * step];
        even_b += K(FC_B2 * FC_B2 * FC_NORM_B) * g[4 * step];
    }
    r[0] = K(FC_NORM_0) * g[0];
    r[1] = even_a + odd_a;
    r[2] = even_a - odd_a;
    r[3] = even_b + odd_b;
    r[4] = even_b - odd_b;
    r[5] = g[(taps - 1) * step];
}

/* r = A' m, 2 to 5 outputs */
INLINE void N(wino_a)(vec *r, const vec *m, int step, const int outputs)
{
    const vec sum_a = m[step] + m[2 * step], dif_a = m[step] - m[2 * step];
    const vec sum_b = m[3 * step] + m[4 * step], dif_b = m[3 * step] - m[4 * step], last = m[5 * step];
    r[0] = m[0] + sum_a + sum_b;
    r[1] = K(FC_A) * dif_a + K(FC_B) * dif_b;
    if (outputs > 2)
        r[2] = K(FC_A2) * sum_a + K(FC_B2) * sum_b;
    if (outputs > 3)
        r[3] = K(FC_A * FC_A2) * dif_a + K(FC_B * FC_B2) * dif_b;
    if (outputs > 4)
        r[4] = K(FC_A2 * FC_A2) * sum_a + K(FC_B2 * FC_B2) * sum_b;
    r[outputs - 1] += last;
}

INLINE void N(wino_input_vector)(const void *const *x, int64_t c, int count, T *v, int64_t pitch)
{
    vec t[36], r[6];
#define FC_X(e) N(wino_load)((const T *)x[e] + c, count)
    FC_UNROLL for (int j = 0; j < 6; j++)
    {
        N(wino_b)(r, FC_X(j), FC_X(6 + j), FC_X(12 + j), FC_X(18 + j), FC_X(24 + j), FC_X(30 + j));
        FC_UNROLL for (int i = 0; i < 6; i++) t[6 * i + j] = r[i];
    }
#undef FC_X
    FC_UNROLL for (int i = 0; i < 6; i++)
    {
        N(wino_b)(r, t[6 * i], t[6 * i + 1], t[6 * i + 2], t[6 * i + 3], t[6 * i + 4], t[6 * i + 5]);
        FC_UNROLL for (int j = 0; j < 6; j++) vstore(v + (6 * i + j) * pitch + c, r[j]);
    }
}

static void N(winograd_input)(const void *const *x, int64_t channels, void *v, int64_t pitch)
{
    int64_t c = 0;
    for (; c + VL <= channels; c += VL)
        N(wino_input_vector)(x, c, VL, v, pitch);
    if (c < channels)
        N(wino_input_vector)(x, c, (int)(channels - c), v, pitch);
}

INLINE void N(wino_weights)(const void *w_, int64_t tap_pitch, int64_t count, void *u_, int64_t pitch, const int taps)
{
    const T *w = w_;
    T *u = u_;
    for (int64_t c = 0; c < count; c += VL) {
        vec g[25], t[30], r[6];
        FC_UNROLL for (int tap = 0; tap < taps * taps; tap++) g[tap] = vload(w + tap * tap_pitch + c);
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

INLINE void N(wino_output_tile)(const T *m, int64_t pitch, vec *y, const int size)
{
    vec in[36], t[24];
    FC_UNROLL for (int e = 0; e < 36; e++) in[e] = vload(m + e * pitch);
    FC_UNROLL for (int j = 0; j < 6; j++)
    {
        vec r[4];
        N(wino_a)(r, in + j, 6, size);
        FC_UNROLL for (int i = 0; i < size; i++) t[6 * i + j] = r[i];
    }
    FC_UNROLL for (int i = 0; i < size; i++) N(wino_a)(y + size * i, t + 6 * i, 1, size);
}

INLINE int N(wino_output)(const void *m, int64_t pitch, int64_t channels, const void *scale_, const void *bias_,
                               const void *residual_, int64_t residual_row, int64_t residual_pixel, double lower_, double upper_,
                               void *y_, int64_t y_row, int64_t y_pixel, int rows, int columns, int check, const int size)
{
    const T *scale = scale_, *bias = bias_, *residual = residual_;
    T *y = y_;
    const vec lower = vset1((T)lower_), upper = vset1((T)upper_);
    T bad = 0;
    for (int64_t k = 0; k < channels; k += VL) {
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec out[16];
        N(wino_output_tile)((const T *)m + k, pitch, out, size);
        if (check && k == 0) { /* x * 0 is NaN for NaN and infinite x */
            vec sum = out[0] * (T)0;
            FC_UNROLL for (int i = 1; i < size * size; i++) sum += out[i] * (T)0;
            for (int i = 0; i < VL; i++)
                bad += sum[i];
        }
        const vec s = scale ? N(wino_load)(scale + k, count) : vset1(1), t = bias ? N(wino_load)(bias + k, count) : (vec){0};
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                vec a = out[size * i + j] * s + t;
                if (residual)
                    a += N(wino_load)(residual + i * residual_row + j * residual_pixel + k, count);
                a = vclamp(a, lower, upper);
                if (count == VL)
                    vstore(y + i * y_row + j * y_pixel + k, a);
                else
                    vstore_tail(y + i * y_row + j * y_pixel + k, a, count);
            }
    }
    return bad == 0;
}

INLINE void N(wino_gradient)(const void *const *dy, int64_t channels, void *d_, int64_t pitch, const int size)
{
    T *d = d_;
    for (int64_t k = 0; k < channels; k += VL) {
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec g[16], t[24], r[6];
        FC_UNROLL for (int e = 0; e < size * size; e++) g[e] = N(wino_load)((const T *)dy[e] + k, count);
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

INLINE void N(wino_weight_gradient)(const void *u_, int64_t pitch, int64_t channels, void *w_, int64_t tap_pitch, const int taps)
{
    const T *u = u_;
    T *w = w_;
    for (int64_t k = 0; k < channels; k += VL) {
        const int count = channels - k < VL ? (int)(channels - k) : VL;
        vec in[36], t[30], r[5];
        FC_UNROLL for (int e = 0; e < 36; e++) in[e] = N(wino_load)(u + e * pitch + k, count);
        FC_UNROLL for (int j = 0; j < 6; j++)
        {
            N(wino_a)(r, in + j, 6, taps);
            FC_UNROLL for (int i = 0; i < taps; i++) t[6 * i + j] = r[i];
        }
        FC_UNROLL for (int i = 0; i < taps; i++)
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

#define FC_WINOGRAD(r, m)                                                                                              \
    static void N(winograd_weights_##r)(const void *w, int64_t tap_pitch, int64_t count, void *u, int64_t pitch)       \
    {                                                                                                                  \
        N(wino_weights)(w, tap_pitch, count, u, pitch, r);                                                             \
    }                                                                                                                  \
    static int N(winograd_output_##r)(const void *x, int64_t pitch, int64_t channels, const void *scale,               \
                                      const void *bias, const void *residual, int64_t residual_row,                    \
                                      int64_t residual_pixel, double lower, double upper, void *y, int64_t y_row,      \
                                      int64_t y_pixel, int rows, int columns, int check)                               \
    {                                                                                                                  \
        return N(wino_output)(x, pitch, channels, scale, bias, residual, residual_row, residual_pixel, lower, upper, y, y_row, \
                              y_pixel, rows, columns, check, m);                                                       \
    }                                                                                                                  \
    static void N(winograd_gradient_##r)(const void *const *dy, int64_t channels, void *d, int64_t pitch)              \
    {                                                                                                                  \
        N(wino_gradient)(dy, channels, d, pitch, m);                                                                   \
    }                                                                                                                  \
    static void N(winograd_weight_gradient_##r)(const void *u, int64_t pitch, int64_t channels, void *w, int64_t tap_pitch) \
    {                                                                                                                  \
        N(wino_weight_gradient)(u, pitch, channels, w, tap_pitch, r);                                                  \
    }
FC_WINOGRAD(3, 4) FC_WINOGRAD(4, 3) FC_WINOGRAD(5, 2)
#undef FC_WINOGRAD

#define FC_BY_KERNEL(name) {[3] = N(name##_3), [4] = N(name##_4), [5] = N(name##_5)}
static const fc_winograd_kernels N(winograd_table) = {
    .input = N(winograd_input),
    .weights = FC_BY_KERNEL(winograd_weights),
    .output = FC_BY_KERNEL(winograd_output),
    .gradient = FC_BY_KERNEL(winograd_gradient),
    .weight_gradient = FC_BY_KERNEL(winograd_weight_gradient),
};
#undef FC_BY_KERNEL
#undef FC_A
#undef FC_B
#undef FC_A2
#undef FC_B2
#undef FC_NORM_0
#undef FC_NORM_A
#undef FC_NORM_B
#undef FC_UNROLL
#undef K
