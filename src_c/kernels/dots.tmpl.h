/* dots.tmpl.h: VL sums at a time, each a vector of partial sums over channels c, c + VL, ...: VL / channels neighbouring pixels
 * by all output channels. They share their loads, and enough of them hide the latency of a multiplication. At the end they are turned, as
 * the rows of a square, and added as a tree: the result is the outputs in the order of y.
 */
#define FC_OPAQUE(p) __asm__("" : "+r"(p)) /* or GCC keeps an address per pixel, more than there are registers */
#define FC_EACH_PIXEL(i) _Pragma("GCC unroll 16") for (int i = 0; i < pixels; i++)
#define FC_EACH_CHANNEL(k) _Pragma("GCC unroll 5") for (int k = 0; k < channels; k++)

/* sum[i * channels + k] += x[pixel i][c ..] * weight[k][c ..]. An address is one of every third pixel's, or one pixel on either side. */
INLINE void N(dots_step)(const char *const *at, int64_t pixel, const T *w, int64_t weight_k, int64_t c, const int tail,
                         vec *sum, const int pixels, const int channels)
{
    vec b[VL / 2];
    FC_EACH_CHANNEL(k) b[k] = vload(w + k * weight_k + c);
    FC_EACH_PIXEL(i)
    {
        const T *x = (const T *)(at[i / 3] + (i % 3 - 1) * pixel) + c;
        const vec a = tail ? vload_tail(x, tail) : vload(x);
        FC_EACH_CHANNEL(k) sum[i * channels + k] = vmuladd(a, b[k], sum[i * channels + k]);
    }
}

/* The sums of the lanes of each, as a tree */
INLINE vec N(dots_tree)(vec *sum)
{
    _Pragma("GCC unroll 4") for (int n = VL / 2; n > 0; n /= 2) _Pragma("GCC unroll 8") for (int l = 0; l < n; l++)
        sum[l] += sum[l + n];
    return sum[0];
}
INLINE vec N(dots_add)(vec *sum)
{
    N(transpose_registers)(sum);
    return N(dots_tree)(sum);
}
/* Once for all tiles of one pixel */
static __attribute__((noinline)) vec N(dots_add_few)(const vec *few, int channels)
{
    vec sum[VL];
    FC_EACH_LANE(l) sum[l] = l < channels ? few[l] : (vec){0};
    return N(dots_add)(sum);
}

INLINE vec N(dots_sum)(const fc_dots *d, const T *x, const int pixels, const int channels)
{
    const int64_t pixel = d->pixel * (int64_t)sizeof(T), whole = d->length / VL * VL, weight_k = d->weight_k;
    const int tail = (int)(d->length - whole);
    vec sum[VL];
    FC_EACH_LANE(l) sum[l] = (vec){0};
    const T *w = d->weight;
    for (int64_t u = 0; u < d->taps_h; u++, x += d->step_h, w += d->weight_u)
        for (int64_t v = 0; v < d->taps_w; v++) {
            const T *weight = w + v * d->weight_v;
            const char *at[(VL + 2) / 3];
            for (int i = 0; i < pixels; i += 3) {
                at[i / 3] = (const char *)(x + v * d->step_w) + (i + 1) * pixel;
                FC_OPAQUE(at[i / 3]);
            }
            for (int64_t c = 0; c < whole; c += VL)
                N(dots_step)(at, pixel, weight, weight_k, c, 0, sum, pixels, channels);
            if (tail)
                N(dots_step)(at, pixel, weight, weight_k, whole, tail, sum, pixels, channels);
        }
    return pixels == 1 ? N(dots_add_few)(sum, channels) : N(dots_add)(sum);
}

/* Pixels i .. i + pixels - 1; whole vectors are stored: what lies beyond them is overwritten by the next. */
INLINE void N(dots_tile)(const fc_dots *d, int64_t i, const int pixels, const int channels)
{
    vec y = N(dots_sum)(d, (const T *)d->x + i * d->pixel, pixels, channels);
    if (d->finish) {
        const vec a = d->scale ? vload(d->scale) : vset1(1), b = d->bias ? vload(d->bias) : (vec){0};
        y = vmuladd(y, a, b);
        if (d->residual)
            y += N(gemm_load)((const T *)d->residual + i * channels, pixels * channels);
        y = vclamp(y, vset1((T)d->lower), vset1((T)d->upper));
    }
    vstore((T *)d->y + i * channels, y);
}

/* The last pixels of a stretch may be computed in part once more; stretches shorter than a tile go pixel by pixel. */
INLINE void N(dots_of)(const fc_dots *d, int64_t count, const int channels)
{
    enum { ONE = 1 };
    const int pixels = VL / channels;
    int64_t i = 0;
    for (; i < count && count >= pixels; i += pixels)
        N(dots_tile)(d, i + pixels <= count ? i : count - pixels, pixels, channels);
    for (; i < count; i++)
        N(dots_tile)(d, i, ONE, channels);
}

/* Lanes are pixels here, and what were lanes are vectors: the same sums in the same order. */
INLINE vec N(dots_plane)(const fc_dots *d, const T *x, const T *w, const int lanes)
{
    const int64_t plane = d->plane, whole = d->length / VL * VL;
    vec sum[VL];
    FC_EACH_LANE(l) sum[l] = (vec){0};
    for (int64_t c = 0; c < whole; c += VL, x += VL * plane, w += VL)
        FC_EACH_LANE(l) sum[l] = vmuladd(N(gemm_load)(x + l * plane, lanes), vset1(w[l]), sum[l]);
    FC_EACH_LANE(l) if (whole + l < d->length) sum[l] =
        vmuladd(N(gemm_load)(x + l * plane, lanes), vset1(w[l]), sum[l]);
    return N(dots_tree)(sum);
}

/* Pixels i .. i + lanes - 1 */
INLINE void N(dots_planes)(const fc_dots *d, int64_t count, int64_t i, const int lanes)
{
    const T *scale = d->scale, *bias = d->bias;
    for (int64_t k = 0; k < d->channels; k++) {
        vec y = N(dots_plane)(d, (const T *)d->x + i, (const T *)d->weight + k * d->weight_k, lanes);
        if (d->finish)
            y = vclamp(vmuladd(y, vset1(scale ? scale[k] : 1), vset1(bias ? bias[k] : 0)), vset1((T)d->lower),
                       vset1((T)d->upper));
        T *to = (T *)d->y + k * count + i;
        if (lanes == VL)
            vstore(to, y);
        else
            vstore_tail(to, y, lanes);
    }
}

static void N(dots_row)(const fc_dots *d, int64_t count)
{
    if (d->plane) {
        int64_t i = 0;
        for (; i + VL <= count; i += VL)
            N(dots_planes)(d, count, i, VL);
        if (i < count)
            N(dots_planes)(d, count, i, (int)(count - i));
        return;
    }
    switch (d->channels) {
    case 1:
        N(dots_of)(d, count, 1);
        break;
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 4
    case 2:
        N(dots_of)(d, count, 2);
        break;
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 8
    case 3:
        N(dots_of)(d, count, 3);
        break;
    case 4:
        N(dots_of)(d, count, 4);
        break;
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 16
    case 5:
        N(dots_of)(d, count, 5);
        break;
#endif
    }
}
#undef FC_OPAQUE
#undef FC_EACH_LANE
#undef FC_EACH_PIXEL
#undef FC_EACH_CHANNEL
