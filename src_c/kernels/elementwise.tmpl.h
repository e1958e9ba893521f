/* elementwise.tmpl.h: functions of one value, and their gradients.
 *
 * exp: x = n ln 2 + r, |r| <= ln 2 / 2, exp(x) = 2^n (1 + p(r)) with p the Taylor series of exp(r) - 1. Its first
 * omitted term is r^8 / 8! = 5e-9 (float) and r^14 / 14! = 4e-18 (double), below half an ulp of 1. ln 2 is split so
 * that n times its high part is exact without fused multiply-add.
 */
#if FC_F32
#define FC_EXP_MIN ((T) - 104) /* exp(-104) is less than half the least denormal */
#define FC_EXP_MAX ((T)89)   /* exp(89) is infinite */
#define FC_LN2_HIGH ((T)0.693359375)
#define FC_LN2_LOW ((T) - 2.12194440054690583e-4)
#define FC_ROUND ((T)12582912) /* 1.5 * 2^23: adding it rounds to a whole number, which ends up in the low bits */
#define FC_BIAS 127
#define FC_FRACTION 23
#define FC_TANH_MAX ((T)10) /* 1 - tanh(10) = 4e-9 */
#else
#define FC_EXP_MIN ((T) - 746)
#define FC_EXP_MAX ((T)710)
#define FC_LN2_HIGH ((T)0.693147180369123816490)
#define FC_LN2_LOW ((T)1.90821492927058770002e-10)
#define FC_ROUND ((T)6755399441055744) /* 1.5 * 2^52 */
#define FC_BIAS 1023
#define FC_FRACTION 52
#define FC_TANH_MAX ((T)20) /* 1 - tanh(20) = 8e-18 */
#endif

/* 2^n for -1022 <= n <= 1023 (float: -126 <= n <= 127) */
INLINE vec N(power_of_2)(ivec n) { return (vec)((n + FC_BIAS) << FC_FRACTION); }

/* n and p(r) of exp(x) = 2^n (1 + p(r)) */
INLINE vec N(exp_parts)(vec x, ivec *n)
{
    const vec shifted = x * vset1((T)1.44269504088896340736) + vset1(FC_ROUND), whole = shifted - vset1(FC_ROUND);
    const vec r = (x - whole * vset1(FC_LN2_HIGH)) - whole * vset1(FC_LN2_LOW);
    *n = (ivec)shifted - (ivec)vset1(FC_ROUND);
    vec q = vset1((T)(1.0 / 5040));
#if !FC_F32
    q = vset1((T)(1.0 / 6227020800));
    q = q * r + vset1((T)(1.0 / 479001600));
    q = q * r + vset1((T)(1.0 / 39916800));
    q = q * r + vset1((T)(1.0 / 3628800));
    q = q * r + vset1((T)(1.0 / 362880));
    q = q * r + vset1((T)(1.0 / 40320));
    q = q * r + vset1((T)(1.0 / 5040));
#endif
    q = q * r + vset1((T)(1.0 / 720));
    q = q * r + vset1((T)(1.0 / 120));
    q = q * r + vset1((T)(1.0 / 24));
    q = q * r + vset1((T)(1.0 / 6));
    q = q * r + vset1((T)0.5);
    return q * (r * r) + r;
}

INLINE vec N(exp)(vec x)
{
    ivec n;
    const vec p = N(exp_parts)(vclamp(x, vset1(FC_EXP_MIN), vset1(FC_EXP_MAX)), &n);
    const ivec half = n >> 1; /* two factors: 2^n itself may be out of range */
    return (p + vset1(1)) * N(power_of_2)(half) * N(power_of_2)(n - half);
}

INLINE vec N(absolute)(vec x) { return (vec)((ivec)x & ~(ivec)vset1((T)-0.0)); }

/* e = exp(-|x|), at most 1; sigmoid = (x > 0 ? 1 : e) / (1 + e), and 1 - sigmoid the same of -x */
INLINE vec N(sigmoid)(vec x, vec *complement)
{
    const vec e = N(exp)(-N(absolute)(x)), inv = vset1(1) / (vset1(1) + e);
    const vmask positive = vgreater(x, (vec){0});
    *complement = vpick(positive, e * inv, inv);
    return vpick(positive, inv, e * inv);
}

/* With d = exp(2|x|) - 1 = 2^n p + (2^n - 1), exact near 0: tanh|x| = d / (d + 2). */
INLINE vec N(tanh)(vec x)
{
    const vec sign_bit = vset1((T)-0.0);
    ivec n;
    const vec two_x = vclamp(N(absolute)(x), (vec){0}, vset1(FC_TANH_MAX)) * vset1(2);
    const vec p = N(exp_parts)(two_x, &n), scale = N(power_of_2)(n);
    const vec d = scale * p + (scale - vset1(1));
    return (vec)((ivec)(d / (d + vset1(2))) | ((ivec)x & (ivec)sign_bit));
}

/* exp(z^2) erfc(z) = t q(2 t - 1), t = 1 / (1 + z / 4), z >= 0. q is the Chebyshev expansion of the left side / t on
 * [-1, 1] (64 nodes, 40 digits), cut after degree 11 (float) or 23 (double) and written in powers: the terms left out
 * sum to 2e-9 and 6e-18, q is at least 0.14. */
INLINE vec N(scaled_erfc)(vec z)
{
#if FC_F32
    static const T c[] = {
        0.27399891437437024,   0.24413717078677621,    0.19330223663230298,     0.1352137818397915,
        0.08271221808244683,   0.04350011420504786,    0.019098051103093743,    0.006601642637787862,
        0.0015236253084588936, 5.4610510723016925e-05, -0.00011134857064166176, -3.101877016165519e-05,
    };
#else
    static const T c[] = {
        0.27399891525012277,     0.2441371822702205,      0.19330217556630766,     0.13521345782830863,
        0.08271289696957897,     0.043502734309983034,    0.019095378725927703,    0.006592513335175785,
        0.001528013927096598,    7.023971478125185e-05,   -0.00011376324291423201, -4.420319195327721e-05,
        -9.085509537367428e-07,  4.715163793597607e-06,   1.1730959784386598e-06,  -3.5588594522222084e-07,
        -2.1091290301404483e-07, 1.8600335198289197e-08,  3.063220517661313e-08,   6.907073184863086e-11,
        -3.81882222497662e-09,   -1.7637206400962878e-10, 3.018454148516381e-10,   1.9132295878422322e-11,
    };
#endif
    enum { DEGREE = sizeof c / sizeof c[0] - 1 };
    const vec t = vset1(1) / (vset1(1) + z * vset1((T)0.25)), s = t + t - vset1(1);
    vec q = vset1(c[DEGREE]);
    _Pragma("GCC unroll 32") for (int k = DEGREE - 1; k >= 0; k--) q = q * s + vset1(c[k]);
    return t * q;
}

/* Phi(x), the normal distribution, and exp(-x^2 / 2) */
INLINE vec N(normal)(vec x, vec *bell)
{
    *bell = N(exp)(x * x * vset1((T)-0.5));
    const vec tail = vset1((T)0.5) * *bell * N(scaled_erfc)(N(absolute)(x) * vset1((T)0.70710678118654752440));
    return vpick(vgreater(x, (vec){0}), vset1(1) - tail, tail);
}

/* (1 + tanh(u)) / 2 = sigmoid(2 u). Beyond |x| = 64 it is 0 or 1 and x^3 could overflow. */
INLINE vec N(gelu_argument)(vec x, vec *slope)
{
    const vec a = vclamp(x, vset1(-64), vset1(64)), k = vset1((T)1.59576912160573071176); /* 2 sqrt(2 / pi) */
    const vec cubic = vset1((T)0.044715) * a * a;
    *slope = k * (vset1(1) + vset1(3) * cubic);
    return k * (a + cubic * a);
}

INLINE vec N(elementwise_value)(const fc_elementwise function, vec x, vec alpha)
{
    const vec zero = {0};
    vec other;
    switch (function) {
    case FC_RELU:
        return vclamp(x, zero, vset1((T)INFINITY));
    case FC_RELU6:
        return vclamp(x, zero, vset1(6));
    case FC_LEAKY_RELU:
        return vpick(vgreater(x, zero), x, x * alpha);
    case FC_SIGMOID:
        return N(sigmoid)(x, &other);
    case FC_TANH:
        return N(tanh)(x);
    case FC_SILU:
        return x * N(sigmoid)(x, &other);
    case FC_GELU:
        return x * N(normal)(x, &other);
    default:
        return x * N(sigmoid)(N(gelu_argument)(x, &other), &other);
    }
}

/* g where x is greater than 0 or NaN, otherwise 0 */
INLINE vec N(gate)(vec x, vec g) { return vpick(vor(vgreater(x, (vec){0}), visnan(x)), g, (vec){0}); }

INLINE vec N(elementwise_slope)(const fc_elementwise function, vec x, vec g, vec alpha)
{
    vec s, c, slope;
    switch (function) {
    case FC_RELU:
        return N(gate)(x, g);
    case FC_RELU6:
        return N(gate)(x, N(gate)(vset1(6) - x, g));
    case FC_LEAKY_RELU:
        return g * vpick(vgreater(x, (vec){0}), vset1(1), alpha);
    case FC_SIGMOID:
        s = N(sigmoid)(x, &c);
        return g * (s * c);
    case FC_TANH: /* 1 - tanh^2 = 4 sigmoid(2 x) sigmoid(-2 x), without cancellation */
        s = N(sigmoid)(x + x, &c);
        return g * (vset1(4) * s * c);
    case FC_SILU:
        s = N(sigmoid)(x, &c);
        return g * (s + x * s * c);
    case FC_GELU:
        s = N(normal)(x, &c);
        return g * (s + x * c * vset1((T)0.39894228040143267794)); /* 1 / sqrt(2 pi) */
    default:
        s = N(sigmoid)(N(gelu_argument)(x, &slope), &c);
        return g * (s + x * s * c * slope);
    }
}

INLINE void N(elementwise_run)(const fc_elementwise function, int64_t count, double alpha_, const T *g, const T *x,
                               T *y, int stream)
{
    const vec alpha = vset1((T)alpha_);
    int64_t i = 0;
    if (function <= FC_LEAKY_RELU && !stream) /* cheap enough for the branches of the other loop to be seen */
        for (; i + VL <= count; i += VL) {
            vfetch(x + i);
            if (g)
                vfetch(g + i);
            const vec a = vload(x + i);
            vstore(y + i, g ? N(elementwise_slope)(function, a, vload(g + i), alpha)
                            : N(elementwise_value)(function, a, alpha));
        }
    for (; i < count; i += VL) { /* one copy of the function for whole vectors, the last part of one, and streams */
        const int tail = count - i < VL ? (int)(count - i) : 0;
        __asm__("" : "+r"(stream)); /* the compiler would make a loop for each */
        vfetch(x + i);
        if (g)
            vfetch(g + i);
        const vec a = tail ? vload_tail(x + i, tail) : vload(x + i);
        vec b = {0};
        if (g)
            b = tail ? vload_tail(g + i, tail) : vload(g + i);
        const vec out = g ? N(elementwise_slope)(function, a, b, alpha) : N(elementwise_value)(function, a, alpha);
        if (tail)
            vstore_tail(y + i, out, tail);
        else if (stream)
            vstream(y + i, out);
        else
            vstore(y + i, out);
    }
    if (stream)
        vfence();
}

#define FC_CASES(g)                                                                                                    \
    switch (function) {                                                                                                \
        FC_CASE(FC_RELU, g)                                                                                            \
        FC_CASE(FC_RELU6, g)                                                                                           \
        FC_CASE(FC_LEAKY_RELU, g)                                                                                      \
        FC_CASE(FC_SIGMOID, g)                                                                                         \
        FC_CASE(FC_TANH, g)                                                                                            \
        FC_CASE(FC_SILU, g)                                                                                            \
        FC_CASE(FC_GELU, g)                                                                                            \
        FC_CASE(FC_GELU_TANH, g)                                                                                       \
    }
#define FC_CASE(name, g)                                                                                               \
    case name:                                                                                                         \
        N(elementwise_run)(name, count, alpha, g, x, y, stream);                                                       \
        break;

static void N(elementwise_map)(fc_elementwise function, int64_t count, double alpha, const void *x, void *y, int stream)
{
    FC_CASES(NULL)
}

static void N(elementwise_grad)(fc_elementwise function, int64_t count, double alpha, const void *g, const void *x,
                                void *y, int stream)
{
    FC_CASES(g)
}

static void N(elementwise_add)(int64_t count, const void *a_, const void *b_, void *y_)
{
    const T *a = a_, *b = b_;
    T *y = y_;
    int64_t i = 0;
    for (; i + VL <= count; i += VL)
        vstore(y + i, vload(a + i) + vload(b + i));
    for (; i < count; i++)
        y[i] = a[i] + b[i];
}

static const fc_elementwise_kernels N(elementwise_table) = {
    .map = N(elementwise_map), .grad = N(elementwise_grad), .add = N(elementwise_add)};
#undef FC_EXP_MIN
#undef FC_EXP_MAX
#undef FC_LN2_HIGH
#undef FC_LN2_LOW
#undef FC_ROUND
#undef FC_BIAS
#undef FC_FRACTION
#undef FC_TANH_MAX
#undef FC_CASES
#undef FC_CASE
