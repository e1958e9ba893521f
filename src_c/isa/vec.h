/* vec.h: the vector verbs, the same names for every instruction set and for both dtypes.
 *
 * Included once per dtype by instantiate.h, which defines
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
/* a - 0 is a for every a, -0 included, so this is a plain broadcast */
INLINE vec vset1(T a) { return a - (vec){0}; }

/* mask is all ones or all zeros per lane (what a comparison gives): mask ? a : b */
INLINE vec vselect(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
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

/* The first `count` lanes, 0 < count < VL; the others read as zero and are not touched in memory. */
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
INLINE void vstore_tail(T *p, vec a, int count) { _mm256_maskstore_ps(p, N(tail_mask)(count), (__m256)a); }
#elif FC_VECTOR_BYTES == 32
INLINE __m256i N(tail_mask)(int count)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE vec vload_tail(const T *p, int count) { return (vec)_mm256_maskload_pd(p, N(tail_mask)(count)); }
INLINE void vstore_tail(T *p, vec a, int count) { _mm256_maskstore_pd(p, N(tail_mask)(count), (__m256d)a); }
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
