/* vec.h: the vector verbs, the same names for every instruction set and for both dtypes.
 *
 * Included by instantiate.h, which defines
 *     T         float or double
 *     FC_F32    1 or 0
 *     N(name)   name_f32 or name_f64
 * and the ISA file defines FC_VECTOR_BYTES. `vec` holds VL lanes; GCC's vector extension gives + - * and, with
 * -ffp-contract=fast, fused multiply-add. Never use a vector wider than the ISA: GCC lowers it through memory.
 */
#define vec N(vec)
#define ivec N(ivec)
#define VL ((int)(FC_VECTOR_BYTES / sizeof(T)))
typedef T vec __attribute__((vector_size(FC_VECTOR_BYTES)));
typedef T N(vec_unaligned) __attribute__((vector_size(FC_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
#if FC_F32
typedef int32_t ivec __attribute__((vector_size(FC_VECTOR_BYTES)));
#else
typedef int64_t ivec __attribute__((vector_size(FC_VECTOR_BYTES)));
#endif

#define vload N(vload)
#define vstore N(vstore)
#define vset1 N(vset1)
#define vload_tail N(vload_tail)
#define vstore_tail N(vstore_tail)
#define vselect N(vselect)
#define vclamp N(vclamp)

INLINE vec vload(const T *p) { return *(const N(vec_unaligned) *)p; }
INLINE void vstore(T *p, vec a) { *(N(vec_unaligned) *)p = a; }
/* Half a vector, and the halves of one */
#define vhalf N(vhalf)
#define vload_half N(vload_half)
#define vstore_half N(vstore_half)
#define vlow N(vlow)
typedef T vhalf __attribute__((vector_size(FC_VECTOR_BYTES / 2)));
typedef T N(vhalf_unaligned) __attribute__((vector_size(FC_VECTOR_BYTES / 2), aligned(sizeof(T)), may_alias));
INLINE vhalf vload_half(const T *p) { return *(const N(vhalf_unaligned) *)p; }
INLINE void vstore_half(T *p, vhalf a) { *(N(vhalf_unaligned) *)p = a; }
INLINE vhalf vlow(vec a)
{
    vhalf half;
    memcpy(&half, &a, sizeof half);
    return half;
}
#define vhigh N(vhigh)
INLINE vhalf vhigh(vec a)
{
    vhalf half;
    memcpy(&half, (const char *)&a + sizeof half, sizeof half);
    return half;
}
#define vjoin N(vjoin)
INLINE vec vjoin(vhalf low, vhalf high)
{
#if FC_VECTOR_BYTES == 64
    return (vec)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)low), (__m256d)high, 1);
#elif FC_VECTOR_BYTES == 32
    return (vec)_mm256_insertf128_pd(_mm256_castpd128_pd256((__m128d)low), (__m128d)high, 1);
#else
    vec a;
    memcpy(&a, &low, sizeof low);
    memcpy((char *)&a + sizeof low, &high, sizeof high);
    return a;
#endif
}
/* a - 0 is a for every a, -0 included, so this is a plain broadcast */
INLINE vec vset1(T a) { return a - (vec){0}; }

/* a, with a product in it rounded before anything is added: no fused multiply-add across this point. For sums that two
 * loops of different shape must form to the same bits. */
#define vrounded N(vrounded)
INLINE vec vrounded(vec a)
{
#if defined(__AVX512F__)
    __asm__("" : "+v"(a));
#elif defined(__x86_64__)
    __asm__("" : "+x"(a));
#elif defined(__aarch64__)
    __asm__("" : "+w"(a));
#else
    a = *(volatile vec *)&a;
#endif
    return a;
}

/* a * b + sum by one operation where the machine has it. The compiler makes that of `sum += a * b` too, but not where
 * it has moved one of the two; sums that different loops must form to the same bits say it. */
#define vmuladd N(vmuladd)
INLINE vec vmuladd(vec a, vec b, vec sum)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif FC_VECTOR_BYTES == 64
    return (vec)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
#elif FC_VECTOR_BYTES == 32 && FC_F32
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#elif FC_VECTOR_BYTES == 32
    return (vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
#elif defined(__aarch64__) && FC_F32
    return (vec)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#elif defined(__aarch64__)
    return (vec)vfmaq_f64((float64x2_t)sum, (float64x2_t)a, (float64x2_t)b);
#else
    return sum + a * b;
#endif
}

/* A store past the caches: the line is not read first, which takes a third off the traffic of a copy. For arrays that
 * do not stay in the second-level cache; p is aligned to the vector. vfence() comes after the last one, before another
 * thread reads. */
#define vstream N(vstream)
#define vfence N(vfence)
#if FC_VECTOR_BYTES == 64 && FC_F32
INLINE void vstream(T *p, vec a) { _mm512_stream_ps(p, (__m512)a); }
INLINE void vfence(void) { _mm_sfence(); }
#elif FC_VECTOR_BYTES == 64
INLINE void vstream(T *p, vec a) { _mm512_stream_pd(p, (__m512d)a); }
INLINE void vfence(void) { _mm_sfence(); }
#elif FC_VECTOR_BYTES == 32 && FC_F32
INLINE void vstream(T *p, vec a) { _mm256_stream_ps(p, (__m256)a); }
INLINE void vfence(void) { _mm_sfence(); }
#elif FC_VECTOR_BYTES == 32
INLINE void vstream(T *p, vec a) { _mm256_stream_pd(p, (__m256d)a); }
INLINE void vfence(void) { _mm_sfence(); }
#else
INLINE void vstream(T *p, vec a) { vstore(p, a); }
INLINE void vfence(void) {}
#endif

/* Fetches what a loop over a long array reads 4 KiB later. The processor fetches ahead by itself, but starts again at
 * each page, and late. Zen 5, gradient of a ReLU on three arrays of 13 MB: 0.66 ms without, 0.54 at 512 bytes, 0.51 at
 * 1 KiB, 0.46 at 4 KiB. */
#define vfetch N(vfetch)
INLINE void vfetch(const T *p) { __builtin_prefetch((const char *)p + 4096); }

/* mask is all ones or all zeros per lane (what a comparison gives): mask ? a : b */
INLINE vec vselect(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
/* VL numbers of 16 bits (IEEE 754 binary16), no NaN nor infinity */
#if FC_F32
INLINE vec vload_f16(const uint16_t *p)
{
#if FC_VECTOR_BYTES == 64
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif FC_VECTOR_BYTES == 32
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    /* Exponent and fraction go where a float has them, and the bias grows by 112; a subnormal number, of exponent 0,
     * has a leading 0 where a float has a 1, which is 2^-14. No product: flushed denormals would be lost. */
    typedef uint16_t codes __attribute__((vector_size(2 * VL)));
    codes h;
    memcpy(&h, p, sizeof h);
    const ivec wide = __builtin_convertvector(h, ivec), bits = ((wide & 0x7fff) << 13) + (112 << 23);
    const vec subnormal = (vec)(bits + (1 << 23)) - vset1(0x1p-14f);
    const vec magnitude = vselect((wide & 0x7c00) == 0, subnormal, (vec)bits);
    return (vec)((ivec)magnitude | (wide & 0x8000) << 16);
#endif
}
#endif

/* NaN passes through: the x86 maximum returns its second operand when one is NaN, a comparison with NaN is false. */
INLINE vec vclamp(vec a, vec lower, vec upper)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    return (vec)_mm512_min_ps((__m512)upper, _mm512_max_ps((__m512)lower, (__m512)a));
#elif FC_VECTOR_BYTES == 64
    return (vec)_mm512_min_pd((__m512d)upper, _mm512_max_pd((__m512d)lower, (__m512d)a));
#elif FC_VECTOR_BYTES == 32 && FC_F32
    return (vec)_mm256_min_ps((__m256)upper, _mm256_max_ps((__m256)lower, (__m256)a));
#elif FC_VECTOR_BYTES == 32
    return (vec)_mm256_min_pd((__m256d)upper, _mm256_max_pd((__m256d)lower, (__m256d)a));
#else
    a = vselect(a < lower, lower, a);
    return vselect(a > upper, upper, a);
#endif
}

/* a > best ? a : best, best where either is NaN: the x86 maximum itself */
#define vgreatest N(vgreatest)
INLINE vec vgreatest(vec a, vec best)
{
#if FC_VECTOR_BYTES == 64 && FC_F32
    return (vec)_mm512_max_ps((__m512)a, (__m512)best);
#elif FC_VECTOR_BYTES == 64
    return (vec)_mm512_max_pd((__m512d)a, (__m512d)best);
#elif FC_VECTOR_BYTES == 32 && FC_F32
    return (vec)_mm256_max_ps((__m256)a, (__m256)best);
#elif FC_VECTOR_BYTES == 32
    return (vec)_mm256_max_pd((__m256d)a, (__m256d)best);
#else
    return vselect(a > best, a, best);
#endif
}

/* The first `count` lanes, 0 < count < VL; the others read as zero and are not touched in memory. Loads take VL too,
 * and stores of vectors that are a cache line; narrower ones would store nothing. vload_tail of vectors narrower than a
 * cache line takes count <= 0 too: none. */
#if FC_VECTOR_BYTES == 64 && FC_F32
INLINE vec vload_tail(const T *p, int count) { return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p); }
INLINE void vstore_tail(T *p, vec a, int count) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)a); }
#elif FC_VECTOR_BYTES == 64
INLINE vec vload_tail(const T *p, int count) { return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), p); }
INLINE void vstore_tail(T *p, vec a, int count) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1), (__m512d)a); }
#elif FC_VECTOR_BYTES == 32 && FC_F32
INLINE __m256i N(tail_mask)(int count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vec vload_tail(const T *p, int count) { return (vec)_mm256_maskload_ps(p, N(tail_mask)(count)); }
/* By parts of 4, 2 and 1: a masked store takes 16 cycles on a Zen 3, this 3 to 8. One copy of it: the norms alone would
 * have 60 KB. */
static __attribute__((noinline)) void vstore_tail(T *p, vec a, int count)
{
    __m128 part = _mm256_castps256_ps128((__m256)a);
    if (count & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps((__m256)a, 1);
        p += 4;
    }
    if (count & 2) {
        _mm_storel_pi((__m64 *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (count & 1)
        _mm_store_ss(p, part);
}
#elif FC_VECTOR_BYTES == 32
INLINE __m256i N(tail_mask)(int count)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE vec vload_tail(const T *p, int count) { return (vec)_mm256_maskload_pd(p, N(tail_mask)(count)); }
static __attribute__((noinline)) void vstore_tail(T *p, vec a, int count)
{
    __m128d part = _mm256_castpd256_pd128((__m256d)a);
    if (count & 2) {
        _mm_storeu_pd(p, part);
        part = _mm256_extractf128_pd((__m256d)a, 1);
        p += 2;
    }
    if (count & 1)
        _mm_store_sd(p, part);
}
#else
INLINE vec vload_tail(const T *p, int count)
{
    vec a = {0};
    for (int i = 0; i < count; i++)
        a[i] = p[i];
    return a;
}
INLINE void vstore_tail(T *p, vec a, int count)
{
    for (int i = 0; i < count; i++)
        p[i] = a[i];
}
#endif

/* The first `count` lanes of a, then zeros */
#define vfirst N(vfirst)
#if FC_VECTOR_BYTES == 64 && FC_F32
INLINE vec vfirst(vec a, int count) { return (vec)_mm512_maskz_mov_ps((__mmask16)((1u << count) - 1), (__m512)a); }
#elif FC_VECTOR_BYTES == 64
INLINE vec vfirst(vec a, int count) { return (vec)_mm512_maskz_mov_pd((__mmask8)((1u << count) - 1), (__m512d)a); }
#elif FC_VECTOR_BYTES == 32
INLINE vec vfirst(vec a, int count) { return (vec)((ivec)a & (ivec)N(tail_mask)(count)); }
#else
INLINE vec vfirst(vec a, int count)
{
    for (int i = count; i < VL; i++)
        a[i] = 0;
    return a;
}
#endif

/* ---- masks: one truth value per lane ------------------------------------------------------------------------------
 * vgreater(a, b)       a > b, false where either is NaN
 * vat_least(a, b)      a >= b, false where either is NaN
 * vunordered(a, b)     a or b is NaN
 * visnan(a)            a is NaN
 * vany(m)              m is true in a lane
 * vor(m, n)            m or n
 * vequal_lanes(a, b)   a == b of two ivec
 * vpick(m, a, b)       m ? a : b
 * ipick(m, a, b)       the same for ivec
 * vadd_where(m, a, b)  m ? a + b : a
 * vcount(m, n)         m ? n + 1 : n, of an ivec
 * vcodes               a byte per lane
 * vcodes_load(p, n)    the n bytes at p, 0 < n <= VL; the other lanes are undefined, nothing beyond is read
 * vcodes_store(p, a, n)
 * vcodes_set(b)        b in every lane
 * vcodes_pick(m, a, b) m ? a : b
 * vcodes_equal(a, b)   a[lane] == b[lane] */
#define vmask N(vmask)
#define vgreater N(vgreater)
#define vat_least N(vat_least)
#define vunordered N(vunordered)
#define visnan(a) vunordered(a, a)
#define vany N(vany)
#define vor N(vor)
#define vequal_lanes N(vequal_lanes)
#define vpick N(vpick)
#define ipick N(ipick)
#define vadd_where N(vadd_where)
#define vcount N(vcount)
#define vcodes N(vcodes)
#define vcodes_load N(vcodes_load)
#define vcodes_store N(vcodes_store)
#define vcodes_set N(vcodes_set)
#define vcodes_pick N(vcodes_pick)
#define vcodes_equal N(vcodes_equal)
#if FC_VECTOR_BYTES == 64 && FC_F32
typedef __mmask16 vmask;
INLINE vmask vgreater(vec a, vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
INLINE vmask vat_least(vec a, vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
INLINE vmask vunordered(vec a, vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q); }
INLINE vec vpick(vmask m, vec a, vec b) { return (vec)_mm512_mask_mov_ps((__m512)b, m, (__m512)a); }
INLINE ivec ipick(vmask m, ivec a, ivec b) { return (ivec)_mm512_mask_mov_epi32((__m512i)b, m, (__m512i)a); }
INLINE vec vadd_where(vmask m, vec a, vec b) { return (vec)_mm512_mask_add_ps((__m512)a, m, (__m512)a, (__m512)b); }
INLINE vmask vequal_lanes(ivec a, ivec b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
#elif FC_VECTOR_BYTES == 64
typedef __mmask8 vmask;
INLINE vmask vgreater(vec a, vec b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ); }
INLINE vmask vat_least(vec a, vec b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GE_OQ); }
INLINE vmask vunordered(vec a, vec b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_UNORD_Q); }
INLINE vec vpick(vmask m, vec a, vec b) { return (vec)_mm512_mask_mov_pd((__m512d)b, m, (__m512d)a); }
INLINE ivec ipick(vmask m, ivec a, ivec b) { return (ivec)_mm512_mask_mov_epi64((__m512i)b, m, (__m512i)a); }
INLINE vec vadd_where(vmask m, vec a, vec b) { return (vec)_mm512_mask_add_pd((__m512d)a, m, (__m512d)a, (__m512d)b); }
INLINE vmask vequal_lanes(ivec a, ivec b) { return _mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b); }
#else
typedef ivec vmask;
INLINE vmask vgreater(vec a, vec b) { return a > b; }
INLINE vmask vat_least(vec a, vec b) { return a >= b; }
#if FC_VECTOR_BYTES == 32 && FC_F32
INLINE vmask vunordered(vec a, vec b) { return (vmask)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q); }
INLINE int vany(vmask m) { return !_mm256_testz_si256((__m256i)m, (__m256i)m); }
INLINE vec vpick(vmask m, vec a, vec b) { return (vec)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m); }
#elif FC_VECTOR_BYTES == 32
INLINE vmask vunordered(vec a, vec b) { return (vmask)_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_UNORD_Q); }
INLINE int vany(vmask m) { return !_mm256_testz_si256((__m256i)m, (__m256i)m); }
INLINE vec vpick(vmask m, vec a, vec b) { return (vec)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)m); }
#else
INLINE vmask vunordered(vec a, vec b) { return (a != a) | (b != b); }
INLINE int vany(vmask m)
{
    int any = 0;
    for (int i = 0; i < VL; i++)
        any |= m[i] != 0;
    return any;
}
INLINE vec vpick(vmask m, vec a, vec b) { return vselect(m, a, b); }
#endif
INLINE ivec ipick(vmask m, ivec a, ivec b) { return (ivec)vpick(m, (vec)a, (vec)b); }
INLINE vec vadd_where(vmask m, vec a, vec b) { return vpick(m, a + b, a); }
#endif
typedef uint8_t N(bytes) __attribute__((vector_size(FC_VECTOR_BYTES / sizeof(T))));
#if FC_VECTOR_BYTES == 64
typedef __m128i vcodes;
INLINE vcodes vcodes_load(const uint8_t *p, int count)
{
    return _mm_maskz_loadu_epi8((__mmask16)((1u << count) - 1), p);
}
INLINE void vcodes_store(uint8_t *p, vcodes a, int count)
{
    _mm_mask_storeu_epi8(p, (__mmask16)((1u << count) - 1), a);
}
INLINE vcodes vcodes_set(int64_t b) { return _mm_set1_epi8((char)b); }
INLINE vcodes vcodes_pick(vmask m, vcodes a, vcodes b) { return _mm_mask_mov_epi8(b, m, a); }
INLINE vmask vcodes_equal(vcodes a, vcodes b) { return (vmask)_mm_cmpeq_epi8_mask(a, b); }
#else
typedef ivec vcodes;
INLINE vcodes vcodes_load(const uint8_t *p, int count)
{
    N(bytes) codes = {0};
    if (count == VL)
        memcpy(&codes, p, sizeof codes);
    else
        for (int i = 0; i < count; i++)
            codes[i] = p[i];
    return __builtin_convertvector(codes, ivec);
}
INLINE void vcodes_store(uint8_t *p, vcodes a, int count)
{
    const N(bytes) codes = __builtin_convertvector(a, N(bytes));
    if (count == VL)
        memcpy(p, &codes, sizeof codes);
    else
        for (int i = 0; i < count; i++)
            p[i] = codes[i];
}
INLINE vcodes vcodes_set(int64_t b) { return (ivec){0} + (__typeof__(((ivec){0})[0]))(uint8_t)b; }
INLINE vcodes vcodes_pick(vmask m, vcodes a, vcodes b) { return ipick(m, a, b); }
INLINE vmask vcodes_equal(vcodes a, vcodes b) { return a == b; }
#endif
#if FC_VECTOR_BYTES == 64
INLINE vmask vor(vmask a, vmask b) { return (vmask)(a | b); }
INLINE ivec vcount(vmask m, ivec n) { return ipick(m, n + 1, n); }
INLINE int vany(vmask m) { return m != 0; }
#else
INLINE vmask vor(vmask a, vmask b) { return a | b; }
INLINE ivec vcount(vmask m, ivec n) { return n - m; }
INLINE vmask vequal_lanes(ivec a, ivec b) { return a == b; }
#endif
