/* Linear layers of few vectors and attention of single queries on a CPU, which read packed weights and caches once.

   Built and called by cpu_kernels.py. GCC's and clang's vectors are used throughout: of `WIDTH` bytes, a register, in
   products with weights, elsewhere of 64 bytes, which the compiler splits on processors with shorter registers.
   Instructions are named where it does not find them: for products, sums and conversions of bytes.

   Inputs are in blocks of 128, padded with zeros. Within a block of bytes, group k of 32 inputs lies in the 32-bit
   lanes j with j % 4 = k, so that the sums of products of a whole block have the groups side by side, and its scales
   are four floats repeated (see below).

       lane      0   1   2   3   4   5  ...         lane j of 64 bytes v holds the inputs
       group     0   1   2   3   0   1  ...         32 * (j % 4) + 16 * v + 4 * (j / 4) + 0 ... 3

   Four outputs are computed at once. Their weights lie in one of two orders; which one is read faster depends on the
   processor. ROWS: each output's blocks after one another, and the four are a quarter of a thread's part apart, so that
   the processor fetches four streams ahead. STREAM: the four side by side, block by block.

   R vectors, D inputs, O outputs, G heads, n queries of each, d dimension of a head, L positions that fit in a cache, e
   positions attended to. All pointers to packed data are aligned to 64 bytes. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 16
#define BLOCK 128           /* inputs */
#define GROUP 32            /* inputs with one scale */
#define GROUPS (BLOCK / GROUP)
#define MAX_ROWS 4         /* vectors that share one reading of a weight in registers */
#define OUTPUTS 4          /* outputs that share one reading of the vectors */
#define SEGMENT 8          /* blocks whose products with all vectors are computed before the next ones' */
#define PART_BYTES 262144  /* of weights that a thread takes at a time, at most: longer streams are read faster */
#define TILE 16            /* outputs */
#define POSITIONS 16       /* keys that are multiplied at once */
#define KEY_AHEAD 2048     /* bytes of keys that are fetched ahead */
#define VALUE_POSITIONS 32 /* whose values stay in the innermost cache */
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512VNNI__)
#define WIDTH 64
#elif defined(__AVX2__)
#define WIDTH 32
#define REGISTER(name) _mm256_##name
#define WORDS __m256i
#else
#define WIDTH 16
#define REGISTER(name) _mm_##name
#define WORDS __m128i
#endif
#if WIDTH == 64 || WIDTH == 32 && defined(__AVXVNNI__)
#define HAS_VNNI 1 /* one instruction multiplies and adds four bytes */
#else
#define HAS_VNNI 0
#endif

typedef float f32 __attribute__((vector_size(64)));
typedef int32_t i32 __attribute__((vector_size(64)));
typedef uint32_t u32 __attribute__((vector_size(64)));
typedef uint8_t u8 __attribute__((vector_size(64)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
/* a register */
typedef float vf __attribute__((vector_size(WIDTH)));
typedef int32_t vi __attribute__((vector_size(WIDTH)));
typedef uint32_t vu __attribute__((vector_size(WIDTH)));
typedef uint8_t vb __attribute__((vector_size(WIDTH)));

#define PARTS (BLOCK / WIDTH) /* registers of a block of bytes */

enum { FP32, BF16, INT8, INT4 };
enum { ROWS, STREAM };

/* O outputs of D inputs; `scales`: (O) float32 of INT8, 4 bfloat16 of each block of INT4 */
typedef struct {
    int64_t kind, order, outputs, inputs;
    uint8_t *packed;
    void *scales;
} Weight;

typedef struct {
    const float *weight, *bias; /* (D) */
    double epsilon;
} Norm;

/* of one layer: (R, G, L, d) bytes, with a scale for each position of a head, see `write_position` */
typedef struct {
    uint8_t *keys;
    float *key_scales;
    int8_t *values;
    float *value_scales;
    int64_t heads, dim, length; /* G, d, L */
} Cache;

/* lane j: acc[j] + the sum of a[4j + k] * b[4j + k], k = 0 ... 3; a is at most 127, with VNNI 255 */
INLINE vi dot(vi acc, vb a, vi b) {
#if WIDTH == 64
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif HAS_VNNI
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)a, (__m256i)b);
#elif defined(__SSSE3__)
    /* sums of two products saturate at 16 bits; those of numbers up to 127 do not */
    return acc + (vi)REGISTER(madd_epi16)(REGISTER(maddubs_epi16)((WORDS)a, (WORDS)b), REGISTER(set1_epi16)(1));
#else
    union { vb v; uint8_t at[WIDTH]; } first = {a};
    union { vi v; int8_t at[WIDTH]; } second = {b};
    for (int i = 0; i < WIDTH; i++) acc[i / 4] += first.at[i] * second.at[i];
    return acc;
#endif
}

/* the same of bytes to which 128 is added; what takes that back are the sums' first values, `-TAKE_BACK` * sum of b */
#define TAKE_BACK (HAS_VNNI ? 128 : 0)
INLINE vi dot_offset(vi acc, vb a, vi b) {
#if HAS_VNNI
    return dot(acc, a, b);
#elif defined(__SSSE3__)
    WORDS number = (WORDS)(a ^ 128);
    return dot(acc, (vb)REGISTER(abs_epi8)(number), (vi)REGISTER(sign_epi8)((WORDS)b, number));
#else
    union { vb v; int8_t at[WIDTH]; } first = {a ^ 128};
    union { vi v; int8_t at[WIDTH]; } second = {b};
    for (int i = 0; i < WIDTH; i++) acc[i / 4] += first.at[i] * second.at[i];
    return acc;
#endif
}

INLINE f32 to_float(i32 x) { return __builtin_convertvector(x, f32); }

/* 16 bytes; GCC widens bytes one by one unless told how */
INLINE f32 bytes_to_float(const int8_t *x) {
#if defined(__AVX512F__)
    return (f32)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
#elif defined(__AVX2__)
    union { __m256 half[2]; f32 v; } out;
    for (int h = 0; h < 2; h++)
        out.half[h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x + 8 * h))));
    return out.v;
#else
    i8x16 bytes;
    memcpy(&bytes, x, sizeof bytes);
    return __builtin_convertvector(bytes, f32);
#endif
}

INLINE f32 maximum(f32 a, f32 b) {
#if defined(__AVX512F__)
    return (f32)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    union { f32 v; __m256 half[2]; } first = {a}, second = {b};
    for (int h = 0; h < 2; h++) first.half[h] = _mm256_max_ps(first.half[h], second.half[h]);
    return first.v;
#else
    i32 first = a > b;
    return (f32)(((i32)a & first) | ((i32)b & ~first));
#endif
}

INLINE float sum_lanes(f32 x) {
    union { f32 v; f32x4 part[4]; } parts = {x};
    f32x4 sum = (parts.part[0] + parts.part[1]) + (parts.part[2] + parts.part[3]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* adds the sums of the lanes of four vectors to `sums` */
INLINE void add_sums(const vf x[OUTPUTS], float *sums) {
#if defined(__AVX2__)
    __m256 half[OUTPUTS];
    for (int o = 0; o < OUTPUTS; o++) {
        union { vf v; __m256 part[WIDTH / 32]; } parts = {x[o]};
        half[o] = WIDTH == 32 ? parts.part[0] : _mm256_add_ps(parts.part[0], parts.part[WIDTH / 32 - 1]);
    }
    __m256 both = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm_loadu_ps(sums), four));
#else
    for (int o = 0; o < OUTPUTS; o++) sums[o] += (x[o][0] + x[o][1]) + (x[o][2] + x[o][3]);
#endif
}

/* whole numbers, nearest, of values within 2^22 */
INLINE i32 round_lanes(f32 x) { return (i32)(x + 12582912.0f) - 0x4b400000; }

INLINE float largest_lane(f32 x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#elif defined(__SSE2__)
    union { f32 v; __m128 part[4]; } parts = {x};
    __m128 four = _mm_max_ps(_mm_max_ps(parts.part[0], parts.part[1]), _mm_max_ps(parts.part[2], parts.part[3]));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
#else
    float largest = x[0];
    for (int j = 1; j < LANES; j++) largest = x[j] > largest ? x[j] : largest;
    return largest;
#endif
}

INLINE f32 magnitude(f32 x) { return (f32)((i32)x & 0x7fffffff); }

INLINE f32 load(const float *x) {
    f32 out;
    memcpy(&out, x, sizeof out);
    return out;
}

/* four bfloat16 scales of a block -> all lanes */
INLINE vf block_scales(const uint16_t *scales) {
#if WIDTH == 64
    __m128i four = _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)scales)), 16);
    return (vf)_mm512_broadcast_f32x4(_mm_castsi128_ps(four));
#elif defined(__SSSE3__)
    int64_t four;
    memcpy(&four, scales, sizeof four);
    const vb upper_halves = (vb)((vi){} + (vi)REGISTER(set_epi32)(
#if WIDTH == 32
        0x07068080, 0x05048080, 0x03028080, 0x01008080,
#endif
        0x07068080, 0x05048080, 0x03028080, 0x01008080));
    return (vf)REGISTER(shuffle_epi8)(REGISTER(set1_epi64x)(four), (WORDS)upper_halves);
#else
    vu bits;
    for (int j = 0; j < WIDTH / 4; j++) bits[j] = (uint32_t)scales[j % GROUPS] << 16;
    return (vf)bits;
#endif
}

INLINE float bf16_to_float(uint16_t x) {
    union { uint32_t bits; float value; } out = {(uint32_t)x << 16};
    return out.value;
}

INLINE uint16_t float_to_bf16(float x) {
    union { float value; uint32_t bits; } in = {x};
    return (uint16_t)((in.bits + 0x7fff + ((in.bits >> 16) & 1)) >> 16);
}

/* the step with which `count` numbers, a multiple of 16, fit in -127 ... 127 */
INLINE float byte_scale(const float *x, int64_t count) {
    f32 largest = {0};
    for (int64_t i = 0; i < count; i += LANES) largest = maximum(magnitude(load(x + i)), largest);
    float scale = largest_lane(largest) / 127;
    return scale > 1e-30f ? scale : 1e-30f;
}

/* of -128 ... 127 */
INLINE i8x16 to_bytes(i32 x) {
#if defined(__AVX512F__)
    return (i8x16)_mm512_cvtepi32_epi8((__m512i)x);
#elif defined(__SSE2__)
    union { i32 v; __m128i part[4]; } parts = {x};
    __m128i first = _mm_packs_epi32(parts.part[0], parts.part[1]);
    return (i8x16)_mm_packs_epi16(first, _mm_packs_epi32(parts.part[2], parts.part[3]));
#else
    return __builtin_convertvector(x, i8x16);
#endif
}

INLINE i8x16 round_bytes(const float *x, float inverse) { return to_bytes(round_lanes(load(x) * inverse)); }

/* byte of input i within the two vectors of a block */
INLINE int byte_of_input(int i) {
    int group = i / GROUP, t = i % GROUP;
    return 64 * (t / 16) + 4 * (group + GROUPS * (t % 16 / 4)) + t % 4;
}

static void *scratch(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

/* ---- functions -------------------------------------------------------------------------------------------------- */

/* e^x of x <= 0; relative error below 2e-7 */
INLINE f32 exponential(f32 x) {
    x = maximum(x, (f32){} - 87.0f);
    f32 scaled = x * 1.44269504f;
    i32 whole = __builtin_convertvector(scaled - 0.5f, i32); /* towards 0: rounds to the nearest, x <= 0 */
    f32 n = to_float(whole), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    f32 p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f, p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f, p = p * r * r + r + 1.0f;
    return p * (f32)((whole + 127) << 23);
}

/* GELU by the error function; Abramowitz and Stegun 7.1.26, absolute error below 2e-7 */
INLINE f32 gelu(f32 x) {
    f32 z = magnitude(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    f32 p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f, p = p * t - 0.284496736f, p = p * t + 0.254829592f;
    f32 tail = p * t * exponential(-z * z); /* 1 - erf(z) */
    i32 negative = x < 0.0f;
    f32 share = (f32)(((i32)tail & negative) | ((i32)(2.0f - tail) & ~negative));
    return 0.5f * x * share;
}

/* layer norm of `count` numbers, in place; `padded` is a multiple of 16, and x is 0 between */
static void normalize(float *x, int64_t count, int64_t padded, const Norm *norm) {
    f32 sum = {0}, squares = {0};
    for (int64_t i = 0; i < padded; i += LANES) sum += load(x + i);
    float mean = sum_lanes(sum) / count;
    for (int64_t i = 0; i < padded; i += LANES) squares += (load(x + i) - mean) * (load(x + i) - mean);
    float variance = (sum_lanes(squares) - (padded - count) * mean * mean) / count;
    float factor = 1 / sqrtf(variance + (float)norm->epsilon);
    for (int64_t i = 0; i < count; i++) x[i] = (x[i] - mean) * factor * norm->weight[i] + norm->bias[i];
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

INLINE int is_bytes(int kind) { return kind == INT8 || kind == INT4; }

INLINE int64_t bytes_of_block(int kind) {
    return kind == FP32 ? 4 * BLOCK : kind == BF16 ? 2 * BLOCK : kind == INT8 ? BLOCK : BLOCK / 2;
}

int64_t block_bytes(int kind) { return bytes_of_block(kind); }

/* place of a block in memory */
INLINE int64_t block_number(int order, int64_t o, int64_t b, int64_t blocks) {
    return order == ROWS ? o * blocks + b : (o / OUTPUTS * blocks + b) * OUTPUTS + o % OUTPUTS;
}

INLINE int64_t count_blocks(const Weight *weight) { return (weight->inputs + BLOCK - 1) / BLOCK; }

/* (O, D) float32 -> blocks; fills `packed`, which is 0 before, and `scales` */
void pack_weight(const Weight *weight, const float *source, int threads) {
    const int kind = (int)weight->kind, order = (int)weight->order;
    const int64_t O = weight->outputs, D = weight->inputs, blocks = count_blocks(weight), padded = blocks * BLOCK;
    const int64_t size = bytes_of_block(kind);
    void *scales = weight->scales;
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < O; o++) {
        float *row = scratch(sizeof(float) * padded);
        memcpy(row, source + o * D, sizeof(float) * D);
        memset(row + D, 0, sizeof(float) * (padded - D));
        float scale = byte_scale(row, padded);
        if (kind == INT8) ((float *)scales)[o] = scale;
        for (int64_t first = 0; first < padded; first += GROUP) {
            const float *group = row + first;
            int64_t number = block_number(order, o, first / BLOCK, blocks);
            int start = (int)(first % BLOCK);
            uint8_t *out = weight->packed + number * size;
            if (kind == FP32) memcpy((float *)out + start, group, sizeof(float) * GROUP);
            if (kind == BF16) /* a lane holds two inputs that lie 16 apart */
                for (int i = 0; i < GROUP; i++)
                    ((uint16_t *)out)[start + i % LANES * 2 + i / LANES] = float_to_bf16(group[i]);
            if (kind == INT8)
                for (int i = 0; i < GROUP; i++)
                    out[byte_of_input(start + i)] = (uint8_t)(128 + (int)nearbyintf(group[i] / scale));
            if (kind == INT4) {
                /* the value of the largest magnitude becomes -8, so that all of the range is used */
                float extreme = 0;
                for (int i = 0; i < GROUP; i++)
                    if (fabsf(group[i]) > fabsf(extreme)) extreme = group[i];
                uint16_t rounded = float_to_bf16(extreme == 0 ? 1e-30f : -extreme / 8);
                ((uint16_t *)scales)[number * GROUPS + start / GROUP] = rounded;
                float inverse = 1 / bf16_to_float(rounded);
                for (int i = 0; i < GROUP; i++) {
                    int value = (int)nearbyintf(group[i] * inverse);
                    value = value > 7 ? 7 : value < -8 ? -8 : value;
                    int byte = byte_of_input(start + i);
                    out[byte % 64] = (uint8_t)(out[byte % 64] | (value + 8) << (byte < 64 ? 0 : 4));
                }
            }
        }
        free(row);
    }
}

/* the 16 numbers from `place` on, a multiple of 16, of a block */
INLINE f32 unpack_lanes(int kind, const uint8_t *block, const void *scales, int64_t o, int64_t number, int place) {
    if (kind == FP32) return load((const float *)block + place);
    int half = place % GROUP / LANES, group = place / GROUP;
    if (kind == BF16) {
        u32 pairs = ((const u32 *)block)[group];
        return (f32)(half ? pairs & 0xffff0000u : pairs << 16);
    }
    union { uint32_t words[4]; int8_t at[16]; } bytes;
    for (int t = 0; t < 4; t++) {
        uint32_t word;
        memcpy(&word, block + (kind == INT8 ? 64 * half : 0) + 4 * (group + GROUPS * t), 4);
        bytes.words[t] = kind == INT8 ? word ^ 0x80808080u : (word >> 4 * half & 0x0f0f0f0fu);
    }
    f32 values = bytes_to_float(bytes.at) - (kind == INT8 ? 0.0f : 8.0f);
    return values * (kind == INT8 ? ((const float *)scales)[o]
                                  : bf16_to_float(((const uint16_t *)scales)[number * GROUPS + group]));
}

/* blocks -> (O, D) in float32 or bfloat16 */
void unpack_weight(const Weight *weight, void *target, int to_bf16, int threads) {
    const int kind = (int)weight->kind, order = (int)weight->order;
    const int64_t O = weight->outputs, D = weight->inputs, blocks = count_blocks(weight), size = bytes_of_block(kind);
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < O; o++)
        for (int64_t i = 0; i < D; i += LANES) {
            int64_t number = block_number(order, o, i / BLOCK, blocks), count = D - i < LANES ? D - i : LANES;
            f32 values = unpack_lanes(kind, weight->packed + number * size, weight->scales, o, number, (int)(i % BLOCK));
            if (to_bf16) {
                u32 bits = (u32)values;
                u16x16 rounded = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, u16x16);
                memcpy((uint16_t *)target + o * D + i, &rounded, sizeof(uint16_t) * count);
            } else {
                memcpy((float *)target + o * D + i, &values, sizeof(float) * count);
            }
        }
}

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

/* A vector in 8 bits: per block its bytes, the start of the sums, which takes back the weights' offset, and the scales
   of the lanes. */
typedef struct {
    vi bytes[PARTS], start;
    vf scales;
} Block;

static void quantize_vector(const float *x, int64_t padded, int offset, Block *blocks) {
    for (int64_t b = 0; b < padded / BLOCK; b++) {
        union { vi v[PARTS]; int32_t at[BLOCK / 4]; } bytes;
        union { vf v; float at[WIDTH / 4]; } scales;
        for (int k = 0; k < GROUPS; k++) {
            const float *group = x + b * BLOCK + k * GROUP;
            float scale = byte_scale(group, GROUP);
            for (int v = 0; v < 2; v++) {
                union { i8x16 v; int32_t words[4]; } rounded = {round_bytes(group + v * LANES, 1 / scale)};
                for (int t = 0; t < 4; t++) bytes.at[LANES * v + k + GROUPS * t] = rounded.words[t];
            }
            for (int j = k; j < WIDTH / 4; j += GROUPS) scales.at[j] = scale;
        }
        vi sums = {0};
        for (int p = 0; p < PARTS; p++) {
            blocks[b].bytes[p] = bytes.v[p];
            sums = dot(sums, (vb){} + 1, bytes.v[p]);
        }
        blocks[b].start = -offset * sums, blocks[b].scales = scales.v;
    }
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* lanes of the products of a block's bytes with a vector's */
INLINE vi sum_products(int kind, const vb bytes[PARTS], const Block *x) {
    vi sum = x->start;
#if !HAS_VNNI && defined(__SSSE3__)
    if (kind == INT4) { /* sums of all of a lane's products of nibbles fit in 16 bits */
        WORDS pairs = REGISTER(maddubs_epi16)((WORDS)bytes[0], (WORDS)x->bytes[0]);
        for (int p = 1; p < PARTS; p++)
            pairs = REGISTER(add_epi16)(pairs, REGISTER(maddubs_epi16)((WORDS)bytes[p], (WORDS)x->bytes[p]));
        return sum + (vi)REGISTER(madd_epi16)(pairs, REGISTER(set1_epi16)(1));
    }
#endif
    for (int p = 0; p < PARTS; p++)
        sum = kind == INT8 ? dot_offset(sum, bytes[p], x->bytes[p]) : dot(sum, bytes[p], x->bytes[p]);
    return sum;
}

/* adds to `sums` the products of `count` blocks of four outputs with `rows` vectors; the outputs lie `distance` blocks
   apart, their blocks `stride`; `kind` and `rows` are constants where this is inlined */
INLINE void multiply(int kind, int rows, const uint8_t *weight, const uint16_t *scales, int64_t distance,
                     int64_t stride, int64_t count, const void *const *vectors, float (*sums)[TILE]) {
    const int64_t size = bytes_of_block(kind);
    const int64_t ahead = stride == 1 ? 384 : kind == INT4 ? 4096 : 1024; /* bytes; measured on AMD EPYCs */
    vf acc[MAX_ROWS][OUTPUTS] = {{{0}}};
    for (int64_t b = 0; b < count; b++, weight += stride * size, scales += stride * GROUPS) {
        for (int o = 0; o < OUTPUTS; o++)
            for (int64_t line = 0; line < size; line += 64)
                __builtin_prefetch(weight + o * distance * size + ahead + line);
        if (is_bytes(kind)) {
            for (int o = 0; o < OUTPUTS; o++) {
                const vb *packed = (const vb *)(weight + o * distance * size);
                vb bytes[PARTS];
                for (int p = 0; p < PARTS; p++)
                    bytes[p] = kind == INT8      ? packed[p]
                               : p < PARTS / 2 ? packed[p] & 15
                                                 : packed[p - PARTS / 2] >> 4;
                vf scale = kind == INT4 ? block_scales(scales + o * distance * GROUPS) : (vf){};
                for (int r = 0; r < rows; r++) {
                    const Block *x = (const Block *)vectors[r] + b;
                    vf sum = __builtin_convertvector(sum_products(kind, bytes, x), vf);
                    acc[r][o] += sum * (kind == INT4 ? scale * x->scales : x->scales);
                }
            }
        } else {
            for (int i = 0; i < BLOCK; i += WIDTH / 2) { /* two registers of float32 */
                /* of bfloat16 a lane holds two inputs that lie 16 apart */
                int low = kind == BF16 ? i / GROUP * GROUP + i % GROUP / 2 : i;
                int high = low + (kind == BF16 ? LANES : WIDTH / 4);
                for (int o = 0; o < OUTPUTS; o++) {
                    const uint8_t *block = weight + o * distance * size;
                    vf first, second;
                    if (kind == BF16) {
                        vu pairs = *(const vu *)(block + 2 * i);
                        first = (vf)(pairs << 16), second = (vf)(pairs & 0xffff0000u);
                    } else {
                        first = *(const vf *)(block + 4 * low), second = *(const vf *)(block + 4 * high);
                    }
                    for (int r = 0; r < rows; r++) {
                        const float *x = (const float *)vectors[r] + b * BLOCK;
                        acc[r][o] += first * *(const vf *)(x + low);
                        acc[r][o] += second * *(const vf *)(x + high);
                    }
                }
            }
        }
    }
    for (int r = 0; r < rows; r++) add_sums(acc[r], sums[r]);
}

INLINE void multiply_rows(int kind, int64_t rows, const uint8_t *weight, const uint16_t *scales, int64_t distance,
                          int64_t stride, int64_t count, const void *const *vectors, float (*sums)[TILE]) {
    switch (rows) {
        case 1: multiply(kind, 1, weight, scales, distance, stride, count, vectors, sums); break;
        case 2: multiply(kind, 2, weight, scales, distance, stride, count, vectors, sums); break;
        case 3: multiply(kind, 3, weight, scales, distance, stride, count, vectors, sums); break;
        default: multiply(kind, 4, weight, scales, distance, stride, count, vectors, sums);
    }
}

/* adds to sums (R, TILE), of which the first four are used, the products of four outputs, the first at block `number` */
static void multiply_outputs(int kind, const uint8_t *packed, const void *scales, int64_t number, int64_t distance,
                             int64_t stride, int64_t blocks, const void *const *vectors, int64_t R,
                             float (*sums)[TILE]) {
    const int64_t size = bytes_of_block(kind), vector_size = is_bytes(kind) ? sizeof(Block) : 4 * BLOCK;
    for (int64_t b = 0; b < blocks; b += SEGMENT) {
        int64_t count = blocks - b < SEGMENT ? blocks - b : SEGMENT, place = number + b * stride;
        const uint8_t *weight = packed + place * size;
        const uint16_t *scale = (const uint16_t *)scales + (kind == INT4 ? place * GROUPS : 0);
        for (int64_t r = 0; r < R; r += MAX_ROWS) { /* the segment's weights stay in the processor's cache */
            int64_t rows = R - r < MAX_ROWS ? R - r : MAX_ROWS;
            const void *parts[MAX_ROWS];
            for (int64_t i = 0; i < rows; i++) parts[i] = (const uint8_t *)vectors[r + i] + b * vector_size;
            switch (kind) {
                case FP32: multiply_rows(FP32, rows, weight, scale, distance, stride, count, parts, sums + r); break;
                case BF16: multiply_rows(BF16, rows, weight, scale, distance, stride, count, parts, sums + r); break;
                case INT8: multiply_rows(INT8, rows, weight, scale, distance, stride, count, parts, sums + r); break;
                default: multiply_rows(INT4, rows, weight, scale, distance, stride, count, parts, sums + r);
            }
        }
    }
}

/* x (R, D) times a weight -> (R, O). Before, unless `norm` is NULL, a layer norm of x; after, with `with_gelu`, a GELU;
   then `residual` (R, O), which may be `out`, is added unless it is NULL. */
void linear(const Weight *weight, const float *x, int64_t R, const Norm *norm, int with_gelu, const float *residual,
            float *out, int threads) {
    const int kind = (int)weight->kind, order = (int)weight->order, bytes = is_bytes(kind);
    const int64_t O = weight->outputs, D = weight->inputs, blocks = count_blocks(weight), padded = blocks * BLOCK;
    const int64_t tiles = (O + TILE - 1) / TILE;
    size_t size = bytes ? sizeof(Block) * blocks : sizeof(float) * padded;
    uint8_t *prepared = scratch(size * R);
    float *vector = scratch(sizeof(float) * padded);
    const void *vectors[R];
    for (int64_t r = 0; r < R; r++) {
        vectors[r] = prepared + r * size;
        float *target = bytes ? vector : (float *)vectors[r];
        memcpy(target, x + r * D, sizeof(float) * D);
        memset(target + D, 0, sizeof(float) * (padded - D));
        if (norm) normalize(target, D, padded, norm);
        if (bytes) quantize_vector(vector, padded, kind == INT8 ? TAKE_BACK : 8, (Block *)vectors[r]);
    }
    free(vector);
    int64_t part = PART_BYTES / (TILE * blocks * bytes_of_block(kind)); /* tiles */
    int64_t share = tiles / (4 * threads);                              /* else one thread would wait for the other */
    part = part < share ? part : share;
    part = part > 1 ? part : 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t start = 0; start < tiles; start += part) {
        int64_t count = tiles - start < part ? tiles - start : part, quarter = count * TILE / OUTPUTS;
        for (int64_t t = 0; t < count; t++) {
            float sums[R][TILE], scale[TILE];
            int64_t output[TILE];
            memset(sums, 0, sizeof sums);
            for (int q = 0; q < TILE; q += OUTPUTS) {
                for (int i = 0; i < OUTPUTS; i++)
                    output[q + i] = order == ROWS ? start * TILE + i * quarter + t * OUTPUTS + q / OUTPUTS
                                                  : (start + t) * TILE + q + i;
                int64_t number = block_number(order, output[q], 0, blocks);
                multiply_outputs(kind, weight->packed, weight->scales, number, order == ROWS ? quarter * blocks : 1,
                                 order == ROWS ? 1 : OUTPUTS, blocks, vectors, R, (float (*)[TILE])(sums[0] + q));
            }
            for (int i = 0; i < TILE; i++) scale[i] = kind == INT8 ? ((const float *)weight->scales)[output[i]] : 1;
            for (int64_t r = 0; r < R; r++) {
                f32 products = load(sums[r]) * load(scale);
                if (with_gelu) products = gelu(products);
                for (int i = 0; i < TILE; i++) {
                    int64_t place = r * O + output[i];
                    if (output[i] < O) out[place] = products[i] + (residual ? residual[place] : 0);
                }
            }
        }
    }
    free(prepared);
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* Keys of a head: blocks of 16 positions, (L / 16, d / 4, 16, 4) bytes + 128; values: blocks of 4 positions, (L / 4, d,
   4) bytes; a scale for each position of both. Scores and sums of values are products of bytes then. Queries and
   weights have two bytes each (of 7 bits, which do not saturate), so that their own rounding adds no error that counts. */

static void write_position(const float *key, const float *value, int64_t d, int64_t position, uint8_t *keys,
                           float *key_scales, int8_t *values, float *value_scales) {
    uint8_t *block = keys + position / POSITIONS * POSITIONS * d + position % POSITIONS * 4;
    float key_scale = byte_scale(key, d), value_scale = byte_scale(value, d);
    for (int64_t i = 0; i < d; i += LANES) {
        union { i8x16 v; uint32_t words[4]; } rounded = {round_bytes(key + i, 1 / key_scale)};
        for (int t = 0; t < 4; t++) {
            uint32_t word = rounded.words[t] ^ 0x80808080u; /* adds 128 to each byte */
            memcpy(block + (i / 4 + t) * 64, &word, 4);
        }
        union { i8x16 v; int8_t at[LANES]; } bytes = {round_bytes(value + i, 1 / value_scale)};
        int8_t *place = values + position / 4 * 4 * d + 4 * i + position % 4;
        for (int j = 0; j < LANES; j++) place[4 * j] = bytes.at[j];
    }
    key_scales[position] = key_scale, value_scales[position] = value_scale;
}

/* (R, G, q, d) float32 keys and values -> positions `start` ... of a cache */
void write_cache(const Cache *cache, const float *key, const float *value, int64_t R, int64_t q, int64_t start,
                 int threads) {
    const int64_t d = cache->dim, L = cache->length;
#pragma omp parallel for num_threads(threads)
    for (int64_t h = 0; h < R * cache->heads; h++)
        for (int64_t t = 0; t < q; t++)
            write_position(key + (h * q + t) * d, value + (h * q + t) * d, d, start + t, cache->keys + h * L * d,
                           cache->key_scales + h * L, cache->values + h * L * d, cache->value_scales + h * L);
}

/* scores (padded to 16 positions) of one query; returns the largest */
INLINE float score_keys(const float *query, int64_t d, const uint8_t *keys, const float *key_scales,
                        const float *mask, int64_t e, int32_t *high, int32_t *low, float *scores) {
    /* the second byte is 254 times finer */
    float scale = byte_scale(query, d), inverse = 1 / scale;
    i32 sums[2] = {{0}};
    for (int64_t i = 0; i < d; i += LANES) {
        f32 scaled = load(query + i) * inverse;
        i32 whole = round_lanes(scaled), rest = round_lanes((scaled - to_float(whole)) * 254);
        i8x16 first = to_bytes(whole), second = to_bytes(rest);
        memcpy(high + i / 4, &first, sizeof first), memcpy(low + i / 4, &second, sizeof second);
        sums[0] += whole, sums[1] += rest;
    }
    int32_t totals[2] = {0};
    for (int j = 0; j < LANES; j++) totals[0] += sums[0][j], totals[1] += sums[1][j];
    f32 best = (f32){} - INFINITY;
    for (int64_t p = 0; p < e; p += POSITIONS) {
        const uint8_t *block = keys + p * d;
        union { vi part[POSITIONS / (WIDTH / 4)]; i32 v; } sum, fine;
        sum.v = (i32){} - TAKE_BACK * totals[0], fine.v = (i32){} - TAKE_BACK * totals[1];
        for (int64_t c = 0; c < d / 4; c++)
            for (int h = 0; h < 64 / WIDTH; h++) {
                vb bytes = *(const vb *)(block + 64 * c + WIDTH * h);
                if (WIDTH * h % 64 == 0) __builtin_prefetch(block + KEY_AHEAD + 64 * c + WIDTH * h);
                sum.part[h] = dot_offset(sum.part[h], bytes, (vi){} + high[c]);
                fine.part[h] = dot_offset(fine.part[h], bytes, (vi){} + low[c]);
            }
        f32 result = (to_float(sum.v) + to_float(fine.v) * (1 / 254.0f)) * scale * *(const f32 *)(key_scales + p);
        if (mask || p + POSITIONS > e)
            for (int j = 0; j < POSITIONS; j++)
                result[j] = p + j < e ? result[j] + (mask ? mask[p + j] : 0) : -INFINITY;
        *(f32 *)(scores + p) = result;
        best = maximum(result, best);
    }
    return largest_lane(best);
}

/* sum of the values of e positions (a multiple of 16), each times the two bytes of its weight and `factor` */
INLINE void sum_values(const uint8_t *high, const uint8_t *low, const int8_t *values, int64_t d, int64_t e,
                       float factor, float *out) {
    memset(out, 0, sizeof(float) * d);
    for (int64_t start = 0; start < e; start += VALUE_POSITIONS) {
        const int64_t end = start + VALUE_POSITIONS < e ? start + VALUE_POSITIONS : e;
        for (int64_t first = 0; first < d; first += WIDTH) { /* four registers of four positions */
            const int64_t count = d - first < WIDTH ? (d - first) / (WIDTH / 4) : 4;
            vi coarse[4] = {{0}}, fine[4] = {{0}};
            for (int64_t p = start; p < end; p += 4) {
                const vi *block = (const vi *)(values + p * d + 4 * first);
                int32_t words[2];
                memcpy(words, high + p, 4), memcpy(words + 1, low + p, 4);
                vb many = (vb)((vi){} + words[0]), rest = (vb)((vi){} + words[1]);
                for (int64_t line = 0; line < 4 * WIDTH; line += 64)
                    __builtin_prefetch((const char *)block + VALUE_POSITIONS * d + line);
                for (int c = 0; c < 4; c++) {
                    if (c >= count) break;
                    coarse[c] = dot(coarse[c], many, block[c]), fine[c] = dot(fine[c], rest, block[c]);
                }
            }
            for (int c = 0; c < count; c++) {
                vf *sum = (vf *)(out + first + c * (WIDTH / 4));
                *sum += (__builtin_convertvector(coarse[c], vf) * 128 + __builtin_convertvector(fine[c], vf)) * factor;
            }
        }
    }
}

/* one head of one row: `key` and `value` (d) or NULL; `query` and `out` (n, d); room for the scores and the query */
static void attend_head(const Cache *cache, int64_t head, const float *query, int64_t n, const float *key,
                        const float *value, const float *mask, int64_t e, float *scores, int32_t *words, float *out) {
    const int64_t d = cache->dim, L = cache->length, room = (e + POSITIONS - 1) / POSITIONS * POSITIONS;
    uint8_t *keys = cache->keys + head * L * d;
    int8_t *values = cache->values + head * L * d;
    float *key_scales = cache->key_scales + head * L, *value_scales = cache->value_scales + head * L;
    if (key) write_position(key, value, d, e - 1, keys, key_scales, values, value_scales);
    for (int64_t q = 0; q < n; q++) {
        float largest = score_keys(query + q * d, d, keys, key_scales, mask, e, words, words + d / 4, scores);
        f32 total = {0}, best = {0};
        for (int64_t p = 0; p < e; p += POSITIONS) {
            f32 weight = exponential(*(f32 *)(scores + p) - largest);
            total += weight;
            weight *= *(const f32 *)(value_scales + p); /* 0 where nothing was written */
            best = maximum(weight, best);
            *(f32 *)(scores + p) = weight;
        }
        float step = fmaxf(largest_lane(best), 1e-30f) / 16383;
        uint8_t *high = (uint8_t *)(scores + room), *low = high + room;
        for (int64_t p = 0; p < e; p += POSITIONS) {
            i32 weight = round_lanes(*(f32 *)(scores + p) * (1 / step));
            *(i8x16 *)(high + p) = to_bytes(weight >> 7), *(i8x16 *)(low + p) = to_bytes(weight & 127);
        }
        sum_values(high, low, values, d, room, step / sum_lanes(total), out + q * d);
    }
}

/* Queries (R, G * n, d), divided by sqrt(d), over the first e positions of a cache -> out (R, G * n, d). Rows of queries
   lie `query_stride` numbers apart. `key` and `value` (R, G, d), rows `key_stride` apart, or NULL, are first written at
   position e - 1. `mask` is NULL or (R, e), added to scores. */
void attention(const Cache *cache, const float *query, int64_t query_stride, const float *key, const float *value,
               int64_t key_stride, const float *mask, int64_t R, int64_t n, int64_t e, float *out, int threads) {
    const int64_t G = cache->heads, d = cache->dim;
#pragma omp parallel num_threads(threads)
    {
        float *scores = scratch((sizeof(float) + 2) * (e + POSITIONS)); /* and two bytes of each */
        int32_t *words = scratch(sizeof(int32_t) * d / 2); /* two bytes of each number of a query */
#pragma omp for schedule(dynamic)
        for (int64_t head = 0; head < R * G; head++) {
            int64_t row = head / G, group = head % G, place = row * key_stride + group * d;
            attend_head(cache, head, query + row * query_stride + group * n * d, n, key ? key + place : NULL,
                        key ? value + place : NULL, mask ? mask + row * e : NULL, e, scores, words, out + head * n * d);
        }
        free(words);
        free(scores);
    }
}

/* ---- a decoding step -------------------------------------------------------------------------------------------- */

/* Keys and values of a condition, which the rows `start` to `end` attend to. */
typedef struct {
    Cache cache;
    int64_t start, end, positions;
    const float *mask; /* (end - start, positions) or NULL */
} CrossCache;

/* A layer of a transformer. The weights of queries include 1 / sqrt(d). */
typedef struct {
    Norm norm_self, norm_cross, norm_feedforward;
    Weight query_key_value, out, cross_query, cross_out, expand, contract;
    Cache cache;
    const CrossCache *cross;
    int64_t num_cross; /* 0: no cross-attention */
} Layer;

/* One step x (R, D), which is overwritten, through all layers -> logits (R, O) of `heads` after `norm`. e positions are
   attended to, this one included; `mask` is NULL or (R, e). */
void decode_step(const Layer *layers, int64_t count, const Norm *norm, const Weight *heads, float *x, int64_t R,
                 const float *mask, int64_t e, float *logits, int threads) {
    const int64_t D = heads->inputs, inner = layers[0].expand.outputs;
    float *wide = scratch(sizeof(float) * R * (inner > 3 * D ? inner : 3 * D)), *attended = scratch(sizeof(float) * R * D);
    for (const Layer *layer = layers; layer < layers + count; layer++) {
        linear(&layer->query_key_value, x, R, &layer->norm_self, 0, NULL, wide, threads);
        attention(&layer->cache, wide, 3 * D, wide + D, wide + 2 * D, 3 * D, mask, R, 1, e, attended, threads);
        linear(&layer->out, attended, R, NULL, 0, x, x, threads);
        if (layer->num_cross) { /* rows without a condition stand behind those that have one */
            const CrossCache *cross = layer->cross, *end = cross + layer->num_cross;
            const int64_t crossing = end[-1].end;
            linear(&layer->cross_query, x, crossing, &layer->norm_cross, 0, NULL, wide, threads);
            for (; cross < end; cross++)
                attention(&cross->cache, wide + cross->start * D, D, NULL, NULL, 0, cross->mask,
                          cross->end - cross->start, 1, cross->positions, attended + cross->start * D, threads);
            linear(&layer->cross_out, attended, crossing, NULL, 0, x, x, threads);
        }
        linear(&layer->expand, x, R, &layer->norm_feedforward, 1, NULL, wide, threads);
        linear(&layer->contract, wide, R, NULL, 0, x, x, threads);
    }
    linear(heads, x, R, norm, 0, NULL, logits, threads);
    free(attended);
    free(wide);
}
