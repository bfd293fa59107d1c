/* Linear layers of few vectors and attention of single queries on a CPU, which read packed weights and caches once.

   Built and called by cpu_kernels.py. GCC's and clang's vectors of 64 bytes are used throughout: the compiler splits
   them on processors with shorter registers. Instructions are named where it does not find them: for products, sums and
   conversions of bytes.

   Inputs are in blocks of 128, padded with zeros. Within a block of bytes, group k of 32 inputs lies in the 32-bit
   lanes j with j % 4 = k of two vectors, so that one product of two vectors serves four groups, and the scales of a
   block are four floats repeated (see below). Weights lie in the order in which they are read, one stream, which the
   processor fetches ahead: tiles of 16 outputs; of each the segments of 8 blocks, so that their part of the vectors
   stays in the innermost cache; of each four outputs at once, block by block.

       lane      0   1   2   3   4   5  ...         lane j of vector v holds the inputs
       group     0   1   2   3   0   1  ...         32 * (j % 4) + 16 * v + 4 * (j / 4) + 0 ... 3

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
#define MAX_ROWS 4          /* vectors that share one reading of a weight in registers */
#define OUTPUTS 4           /* outputs that share one reading of the vectors */
#define SEGMENT 8           /* blocks */
#define CHUNK_BYTES 131072  /* of weights that a thread takes at a time, at most: longer streams are read faster */
#define TILE 16             /* outputs that are computed one segment after the other */
#define POSITIONS 16        /* keys that are multiplied at once */
#define INLINE static inline __attribute__((always_inline))

typedef float f32 __attribute__((vector_size(64)));
typedef int32_t i32 __attribute__((vector_size(64)));
typedef uint32_t u32 __attribute__((vector_size(64)));
typedef uint8_t u8 __attribute__((vector_size(64)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

enum { FP32, BF16, INT8, INT4 };

/* lane j: acc[j] + the sum of a[4j + k] * b[4j + k], k = 0 ... 3; `max_a` bounds a */
INLINE i32 dot4(i32 acc, u8 a, i32 b, int max_a) {
#if defined(__AVX512VNNI__)
    (void)max_a;
    return (i32)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    union { i32 v; __m256i half[2]; } sum = {acc}, second = {b};
    union { u8 v; __m256i half[2]; } first = {a};
    for (int h = 0; h < 2; h++) {
#if defined(__AVXVNNI__)
        (void)max_a;
        sum.half[h] = _mm256_dpbusd_avx_epi32(sum.half[h], first.half[h], second.half[h]);
#else
        const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16), nibble = _mm256_set1_epi8(15);
        /* sums of two products saturate at 16 bits; those of nibbles do not */
        __m256i low = max_a > 15 ? _mm256_and_si256(first.half[h], nibble) : first.half[h];
        __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(low, second.half[h]), ones);
        sum.half[h] = _mm256_add_epi32(sum.half[h], products);
        if (max_a > 15) {
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(first.half[h], 4), nibble);
            products = _mm256_madd_epi16(_mm256_maddubs_epi16(high, second.half[h]), sixteens);
            sum.half[h] = _mm256_add_epi32(sum.half[h], products);
        }
#endif
    }
    return sum.v;
#else
    (void)max_a;
    union { u8 v; uint8_t at[64]; } first = {a};
    union { i32 v; int8_t at[64]; } second = {b};
    union { i32 v; int32_t at[LANES]; } sum = {acc};
    for (int j = 0; j < LANES; j++)
        for (int k = 0; k < 4; k++) sum.at[j] += first.at[4 * j + k] * second.at[4 * j + k];
    return sum.v;
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
    i32 first = a > b;
    return (f32)(((i32)a & first) | ((i32)b & ~first));
}

INLINE float sum_lanes(f32 x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += x[j];
    return sum;
#endif
}

/* adds the sums of the lanes of four vectors to `sums` */
INLINE void add_sums(const f32 x[OUTPUTS], float *sums) {
#if defined(__AVX2__)
    __m256 half[OUTPUTS];
    for (int o = 0; o < OUTPUTS; o++) {
        union { f32 v; __m256 half[2]; } parts = {x[o]};
        half[o] = _mm256_add_ps(parts.half[0], parts.half[1]);
    }
    __m256 both = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm_loadu_ps(sums), four));
#else
    for (int o = 0; o < OUTPUTS; o++) sums[o] += sum_lanes(x[o]);
#endif
}

/* whole numbers, nearest, of values within 2^22 */
INLINE i32 round_lanes(f32 x) { return (i32)(x + 12582912.0f) - 0x4b400000; }

INLINE float largest_lane(f32 x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
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
INLINE f32 block_scales(const uint16_t *scales) {
#if defined(__AVX512F__)
    __m128i four = _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)scales)), 16);
    return (f32)_mm512_broadcast_f32x4(_mm_castsi128_ps(four));
#else
    u32 bits;
    for (int j = 0; j < LANES; j++) bits[j] = (uint32_t)scales[j % GROUPS] << 16;
    return (f32)bits;
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

INLINE i8x16 to_bytes(i32 x) {
#if defined(__AVX512F__)
    return (i8x16)_mm512_cvtepi32_epi8((__m512i)x);
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
static void normalize(float *x, int64_t count, int64_t padded, const float *weight, const float *bias, float epsilon) {
    f32 sum = {0}, squares = {0};
    for (int64_t i = 0; i < padded; i += LANES) sum += load(x + i);
    float mean = sum_lanes(sum) / count;
    for (int64_t i = 0; i < padded; i += LANES) squares += (load(x + i) - mean) * (load(x + i) - mean);
    float variance = (sum_lanes(squares) - (padded - count) * mean * mean) / count;
    float factor = 1 / sqrtf(variance + epsilon);
    for (int64_t i = 0; i < count; i++) x[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

INLINE int is_bytes(int kind) { return kind == INT8 || kind == INT4; }

INLINE int64_t bytes_of_block(int kind) {
    return kind == FP32 ? 4 * BLOCK : kind == BF16 ? 2 * BLOCK : kind == INT8 ? BLOCK : BLOCK / 2;
}

int64_t block_bytes(int kind) { return bytes_of_block(kind); }

/* blocks of the segment that `b` is in */
INLINE int64_t segment_length(int64_t b, int64_t blocks) {
    int64_t first = b / SEGMENT * SEGMENT;
    return blocks - first < SEGMENT ? blocks - first : SEGMENT;
}

/* place of a block in memory */
INLINE int64_t block_number(int64_t o, int64_t b, int64_t blocks) {
    int64_t segment = (o / TILE * blocks + b / SEGMENT * SEGMENT) * TILE;
    return segment + o % TILE / OUTPUTS * OUTPUTS * segment_length(b, blocks) + b % SEGMENT * OUTPUTS + o % OUTPUTS;
}

/* (O, D) float32 -> blocks; scales: (O) float32 of INT8, 4 bfloat16 of each block of INT4 */
void pack_weight(int kind, const float *weight, int64_t O, int64_t D, int64_t padded, uint8_t *packed, void *scales,
                 int threads) {
    int64_t size = bytes_of_block(kind), blocks = padded / BLOCK;
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < O; o++) {
        float *row = scratch(sizeof(float) * padded);
        memcpy(row, weight + o * D, sizeof(float) * D);
        memset(row + D, 0, sizeof(float) * (padded - D));
        float scale = byte_scale(row, padded);
        if (kind == INT8) ((float *)scales)[o] = scale;
        for (int64_t first = 0; first < padded; first += GROUP) {
            const float *group = row + first;
            int64_t number = block_number(o, first / BLOCK, blocks);
            int start = (int)(first % BLOCK);
            uint8_t *out = packed + number * size;
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
void unpack_weight(int kind, const uint8_t *packed, const void *scales, int64_t O, int64_t D, int64_t padded,
                   void *weight, int to_bf16, int threads) {
    const int64_t size = bytes_of_block(kind), blocks = padded / BLOCK;
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < O; o++)
        for (int64_t i = 0; i < D; i += LANES) {
            int64_t number = block_number(o, i / BLOCK, blocks), count = D - i < LANES ? D - i : LANES;
            f32 values = unpack_lanes(kind, packed + number * size, scales, o, number, (int)(i % BLOCK));
            if (to_bf16) {
                u32 bits = (u32)values;
                u16x16 rounded = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, u16x16);
                memcpy((uint16_t *)weight + o * D + i, &rounded, sizeof(uint16_t) * count);
            } else {
                memcpy((float *)weight + o * D + i, &values, sizeof(float) * count);
            }
        }
}

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

/* A vector in 8 bits: per block two vectors of bytes, the start of the sums, which takes back the weights' offset, and
   the scales of the lanes. */
typedef struct {
    i32 bytes[2], start;
    f32 scales;
} Block;

static void quantize_vector(const float *x, int64_t padded, int offset, Block *blocks) {
    const u8 offsets = (u8){} + (uint8_t)offset;
    for (int64_t b = 0; b < padded / BLOCK; b++) {
        union { i32 v; int32_t at[LANES]; } bytes[2];
        union { f32 v; float at[LANES]; } scales;
        for (int k = 0; k < GROUPS; k++) {
            const float *group = x + b * BLOCK + k * GROUP;
            float scale = byte_scale(group, GROUP);
            for (int v = 0; v < 2; v++) {
                union { i8x16 v; int32_t words[4]; } rounded = {round_bytes(group + v * LANES, 1 / scale)};
                for (int t = 0; t < 4; t++) bytes[v].at[k + GROUPS * t] = rounded.words[t];
            }
            for (int t = 0; t < 4; t++) scales.at[k + GROUPS * t] = scale;
        }
        i32 sums = dot4(dot4((i32){0}, offsets, bytes[0].v, 255), offsets, bytes[1].v, 255);
        blocks[b] = (Block){{bytes[0].v, bytes[1].v}, -sums, scales.v};
    }
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* adds to `sums` the products of a segment of `count` blocks, all outputs of a tile, with `rows` vectors; `kind` and
   `rows` are constants where this is inlined */
INLINE void multiply(int kind, int rows, const uint8_t *weight, const uint16_t *scales, int64_t count,
                     const void *const *vectors, float (*sums)[TILE]) {
    const int64_t size = bytes_of_block(kind);
    const int64_t ahead = kind == INT4 ? 4096 : 1024; /* bytes; measured on an AMD EPYC */
    const int max_byte = kind == INT8 ? 255 : 15;
    for (int output = 0; output < TILE; output += OUTPUTS) {
        f32 acc[MAX_ROWS][OUTPUTS] = {{{0}}};
        for (int64_t b = 0; b < count; b++, weight += OUTPUTS * size, scales += OUTPUTS * GROUPS) {
            for (int64_t line = 0; line < OUTPUTS * size; line += 64) __builtin_prefetch(weight + ahead + line);
            if (is_bytes(kind)) {
                u8 first[OUTPUTS], second[OUTPUTS];
                f32 scale[OUTPUTS];
                for (int o = 0; o < OUTPUTS; o++) {
                    const u8 *bytes = (const u8 *)(weight + o * size);
                    first[o] = kind == INT8 ? bytes[0] : (bytes[0] & 15);
                    second[o] = kind == INT8 ? bytes[1] : (bytes[0] >> 4);
                    if (kind == INT4) scale[o] = block_scales(scales + o * GROUPS);
                }
                for (int r = 0; r < rows; r++) {
                    const Block *x = (const Block *)vectors[r] + b;
                    i32 start = x->start, low = x->bytes[0], high = x->bytes[1];
                    f32 factors = x->scales;
                    for (int o = 0; o < OUTPUTS; o++) {
                        i32 sum = dot4(dot4(start, first[o], low, max_byte), second[o], high, max_byte);
                        acc[r][o] += to_float(sum) * (kind == INT4 ? scale[o] * factors : factors);
                    }
                }
            } else {
                for (int i = 0; i < BLOCK / GROUP; i++) {
                    f32 first[OUTPUTS], second[OUTPUTS];
                    for (int o = 0; o < OUTPUTS; o++) {
                        if (kind == BF16) {
                            u32 pairs = ((const u32 *)(weight + o * size))[i];
                            first[o] = (f32)(pairs << 16), second[o] = (f32)(pairs & 0xffff0000u);
                        } else {
                            const f32 *numbers = (const f32 *)(weight + o * size) + 2 * i;
                            first[o] = numbers[0], second[o] = numbers[1];
                        }
                    }
                    for (int r = 0; r < rows; r++) {
                        const f32 *x = (const f32 *)((const float *)vectors[r] + b * BLOCK + i * GROUP);
                        f32 low = x[0], high = x[1];
                        for (int o = 0; o < OUTPUTS; o++) acc[r][o] += first[o] * low;
                        for (int o = 0; o < OUTPUTS; o++) acc[r][o] += second[o] * high;
                    }
                }
            }
        }
        for (int r = 0; r < rows; r++) add_sums(acc[r], sums[r] + output);
    }
}

INLINE void multiply_rows(int kind, int rows, const uint8_t *weight, const uint16_t *scales, int64_t count,
                          const void *const *vectors, float (*sums)[TILE]) {
    switch (rows) {
        case 1: multiply(kind, 1, weight, scales, count, vectors, sums); break;
        case 2: multiply(kind, 2, weight, scales, count, vectors, sums); break;
        case 3: multiply(kind, 3, weight, scales, count, vectors, sums); break;
        default: multiply(kind, 4, weight, scales, count, vectors, sums);
    }
}

/* sums (R, TILE) of the outputs from `tile` on */
static void multiply_tile(int kind, const uint8_t *packed, const void *scales, int64_t blocks, int64_t tile,
                          const void *const *vectors, int64_t R, float (*sums)[TILE]) {
    const int64_t block_size = bytes_of_block(kind), vector_size = is_bytes(kind) ? sizeof(Block) : 4 * BLOCK;
    memset(sums, 0, sizeof(float) * TILE * R);
    for (int64_t b = 0; b < blocks; b += SEGMENT) {
        int64_t count = segment_length(b, blocks), number = block_number(tile, b, blocks);
        const uint8_t *weight = packed + number * block_size;
        const uint16_t *scale = (const uint16_t *)scales + (kind == INT4 ? number * GROUPS : 0);
        for (int64_t r = 0; r < R; r += MAX_ROWS) { /* the segment's weights stay in the processor's cache */
            int rows = R - r < MAX_ROWS ? (int)(R - r) : MAX_ROWS;
            const void *parts[MAX_ROWS];
            for (int i = 0; i < rows; i++) parts[i] = (const uint8_t *)vectors[r + i] + b * vector_size;
            switch (kind) {
                case FP32: multiply_rows(FP32, rows, weight, scale, count, parts, sums + r); break;
                case BF16: multiply_rows(BF16, rows, weight, scale, count, parts, sums + r); break;
                case INT8: multiply_rows(INT8, rows, weight, scale, count, parts, sums + r); break;
                default: multiply_rows(INT4, rows, weight, scale, count, parts, sums + r);
            }
        }
    }
}

/* x (R, D) times packed blocks -> (R, O). Before, with `norm_weight` (D) and `norm_bias`, a layer norm of x; after,
   with `with_gelu`, a GELU; then `residual` (R, O) is added unless it is NULL. */
void linear(int kind, const float *x, int64_t R, int64_t D, const uint8_t *packed, const void *scales, int64_t O,
            int64_t padded, const float *norm_weight, const float *norm_bias, float epsilon, int with_gelu,
            const float *residual, float *out, int threads) {
    int bytes = is_bytes(kind);
    size_t size = bytes ? sizeof(Block) * (padded / BLOCK) : sizeof(float) * padded;
    uint8_t *prepared = scratch(size * R);
    float *vector = scratch(sizeof(float) * padded);
    const void *vectors[R];
    for (int64_t r = 0; r < R; r++) {
        vectors[r] = prepared + r * size;
        float *target = bytes ? vector : (float *)vectors[r];
        memcpy(target, x + r * D, sizeof(float) * D);
        memset(target + D, 0, sizeof(float) * (padded - D));
        if (norm_weight) normalize(target, D, padded, norm_weight, norm_bias, epsilon);
        if (bytes) quantize_vector(vector, padded, kind == INT8 ? 128 : 8, (Block *)vectors[r]);
    }
    free(vector);
    int64_t chunk = CHUNK_BYTES / (TILE * (padded / BLOCK) * bytes_of_block(kind));
    int64_t share = O / TILE / (4 * threads); /* else one thread would wait for the other */
    chunk = chunk < share ? chunk : share;
#pragma omp parallel for schedule(dynamic, chunk > 1 ? (int)chunk : 1) num_threads(threads)
    for (int64_t tile = 0; tile < O; tile += TILE) {
        float sums[R][TILE];
        multiply_tile(kind, packed, scales, padded / BLOCK, tile, vectors, R, sums);
        for (int64_t r = 0; r < R; r++) {
            float *target = out + r * O + tile;
            f32 products = load(sums[r]);
            size_t count = sizeof(float) * (O - tile < TILE ? O - tile : TILE);
            if (kind == INT8) products *= load((const float *)scales + tile);
            if (with_gelu) products = gelu(products);
            if (residual) {
                f32 before = {0};
                memcpy(&before, residual + r * O + tile, count);
                products += before;
            }
            memcpy(target, &products, count);
        }
    }
    free(prepared);
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* Keys of a head: blocks of 16 positions, (L / 16, d / 4, 16, 4) bytes + 128; values: blocks of 4 positions, (L / 4, d,
   4) bytes; a scale for each position of both. Scores and sums of values are products of bytes then. Queries and
   weights have two bytes each, so that their own rounding adds no error that counts. */

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

/* (H, q, d) float32 keys and values of `heads` heads -> positions `start` ... of their caches of L positions */
void write_cache(const float *key, const float *value, int64_t heads, int64_t q, int64_t d, int64_t start, int64_t L,
                 uint8_t *keys, float *key_scales, int8_t *values, float *value_scales, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t h = 0; h < heads; h++)
        for (int64_t t = 0; t < q; t++)
            write_position(key + (h * q + t) * d, value + (h * q + t) * d, d, start + t, keys + h * L * d,
                           key_scales + h * L, values + h * L * d, value_scales + h * L);
}

/* scores (padded to 16 positions) of one query; returns the largest */
INLINE float score_keys(const float *query, int64_t d, const uint8_t *keys, const float *key_scales,
                        const float *mask, int64_t e, i32 *high, i32 *low, float *scores) {
    /* the second byte is 254 times finer */
    float scale = byte_scale(query, d), inverse = 1 / scale;
    i32 sums[2] = {{0}};
    for (int64_t i = 0; i < d; i += LANES) {
        f32 scaled = load(query + i) * inverse;
        i32 whole = round_lanes(scaled), rest = round_lanes((scaled - to_float(whole)) * 254);
        union { i8x16 v; int32_t words[4]; } first, second;
        first.v = to_bytes(whole), second.v = to_bytes(rest);
        sums[0] += whole, sums[1] += rest;
        for (int t = 0; t < 4; t++)
            high[i / 4 + t] = (i32){} + first.words[t], low[i / 4 + t] = (i32){} + second.words[t];
    }
    int32_t totals[2] = {0};
    for (int j = 0; j < LANES; j++) totals[0] += sums[0][j], totals[1] += sums[1][j];
    f32 best = (f32){} - INFINITY;
    for (int64_t p = 0; p < e; p += POSITIONS) {
        const u8 *block = (const u8 *)(keys + p * d);
        i32 sum = (i32){} - 128 * totals[0], fine = (i32){} - 128 * totals[1];
        for (int64_t c = 0; c < d / 4; c++)
            sum = dot4(sum, block[c], high[c], 255), fine = dot4(fine, block[c], low[c], 255);
        f32 result = (to_float(sum) + to_float(fine) * (1 / 254.0f)) * scale * *(const f32 *)(key_scales + p);
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
    for (int64_t first = 0; first < d; first += 4 * LANES) {
        const int64_t count = (d - first) / LANES < 4 ? (d - first) / LANES : 4;
        i32 coarse[4] = {{0}}, fine[4] = {{0}};
        for (int64_t p = 0; p < e; p += 4) {
            const i32 *block = (const i32 *)(values + p * d + 4 * first);
            uint32_t words[2];
            memcpy(words, high + p, 4), memcpy(words + 1, low + p, 4);
            u8 many = (u8)((u32){} + words[0]), rest = (u8)((u32){} + words[1]);
            for (int c = 0; c < 4; c++) {
                if (c >= count) break;
                coarse[c] = dot4(coarse[c], many, block[c], 255), fine[c] = dot4(fine[c], rest, block[c], 255);
            }
        }
        for (int c = 0; c < count; c++) {
            f32 sum = (to_float(coarse[c]) * 256 + to_float(fine[c])) * factor;
            memcpy(out + first + c * LANES, &sum, sizeof sum);
        }
    }
}

typedef struct {
    int64_t G, n, d, L, e;
    uint8_t *keys;
    float *key_scales;
    int8_t *values;
    float *value_scales;
} Cache;

/* one head of one row: `key` and `value` (d) or NULL; `query` and `out` (n, d); room for the scores and the query */
static void attend_head(const Cache *cache, int64_t head, const float *query, const float *key, const float *value,
                        const float *mask, float *scores, i32 *words, float *out) {
    int64_t d = cache->d, L = cache->L, e = cache->e, room = (e + POSITIONS - 1) / POSITIONS * POSITIONS;
    uint8_t *keys = cache->keys + head * L * d;
    int8_t *values = cache->values + head * L * d;
    float *key_scales = cache->key_scales + head * L, *value_scales = cache->value_scales + head * L;
    if (key) write_position(key, value, d, e - 1, keys, key_scales, values, value_scales);
    for (int64_t q = 0; q < cache->n; q++) {
        float largest = score_keys(query + q * d, d, keys, key_scales, mask, e, words, words + d / 4, scores);
        f32 total = {0}, best = {0};
        for (int64_t p = 0; p < e; p += POSITIONS) {
            f32 weight = exponential(*(f32 *)(scores + p) - largest);
            total += weight;
            weight *= *(const f32 *)(value_scales + p); /* 0 where nothing was written */
            best = maximum(weight, best);
            *(f32 *)(scores + p) = weight;
        }
        float step = fmaxf(largest_lane(best), 1e-30f) / 65535;
        uint8_t *high = (uint8_t *)(scores + room), *low = high + room;
        for (int64_t p = 0; p < e; p += POSITIONS) {
            i32 weight = round_lanes(*(f32 *)(scores + p) * (1 / step));
            *(i8x16 *)(high + p) = to_bytes(weight >> 8), *(i8x16 *)(low + p) = to_bytes(weight & 255);
        }
        sum_values(high, low, values, d, room, step / sum_lanes(total), out + q * d);
    }
}

/* Queries (R, G * n, d), divided by sqrt(d), over the first e positions of caches (R, G, L, d) -> out (R, G * n, d).
   Rows of queries lie `query_stride` numbers apart. `key` and `value` (R, G, d), rows `key_stride` apart, or NULL, are
   first written at position e - 1. `mask` is NULL or (R, e), added to scores. */
void attention(const float *query, int64_t query_stride, const float *key, const float *value, int64_t key_stride,
               const float *mask, int64_t R, int64_t G, int64_t n, int64_t d, int64_t L, int64_t e, uint8_t *keys,
               float *key_scales, int8_t *values, float *value_scales, float *out, int threads) {
    const Cache cache = {G, n, d, L, e, keys, key_scales, values, value_scales};
#pragma omp parallel num_threads(threads)
    {
        float *scores = scratch((sizeof(float) + 2) * (e + POSITIONS)); /* and two bytes of each */
        i32 *words = scratch(sizeof(i32) * d / 2);
#pragma omp for schedule(dynamic)
        for (int64_t head = 0; head < R * G; head++) {
            int64_t row = head / G, group = head % G, place = row * key_stride + group * d;
            attend_head(&cache, head, query + row * query_stride + group * n * d, key ? key + place : NULL,
                        key ? value + place : NULL, mask ? mask + row * e : NULL, scores, words, out + head * n * d);
        }
        free(words);
        free(scores);
    }
}
