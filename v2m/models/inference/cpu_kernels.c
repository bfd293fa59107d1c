/* Linear layers of few vectors and attention of single queries on a CPU, which read packed weights and caches once.

   Built and called by cpu_kernels.py. GCC's and clang's vectors of `WIDTH` bytes, a register, are used throughout.
   Instructions are named where the compiler does not find them: for products, sums and conversions of bytes.

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

typedef float f32x4 __attribute__((vector_size(16)));
typedef float vf __attribute__((vector_size(WIDTH)));
typedef int32_t vi __attribute__((vector_size(WIDTH)));
typedef uint32_t vu __attribute__((vector_size(WIDTH)));
typedef uint8_t vb __attribute__((vector_size(WIDTH)));

#define STEP (WIDTH / 4)      /* numbers in a register */
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

INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }

INLINE vf maximum(vf a, vf b) {
#if WIDTH == 64
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif WIDTH == 32
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi first = a > b;
    return (vf)(((vi)a & first) | ((vi)b & ~first));
#endif
}

INLINE float sum_lanes(vf x) {
    union { vf v; f32x4 part[WIDTH / 16]; } parts = {x};
    f32x4 sum = parts.part[0];
    for (int p = 1; p < WIDTH / 16; p++) sum += parts.part[p];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE float largest_lane(vf x) {
#if WIDTH == 64
    return _mm512_reduce_max_ps((__m512)x);
#elif WIDTH == 32
    __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
#else
    float largest = x[0];
    for (int j = 1; j < STEP; j++) largest = x[j] > largest ? x[j] : largest;
    return largest;
#endif
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
INLINE vi round_lanes(vf x) { return (vi)(x + 12582912.0f) - 0x4b400000; }

INLINE vf magnitude(vf x) { return (vf)((vi)x & 0x7fffffff); }

INLINE vf load(const float *x) {
    vf out;
    memcpy(&out, x, sizeof out);
    return out;
}

INLINE void store(float *out, vf x) { memcpy(out, &x, sizeof x); }

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
    for (int j = 0; j < STEP; j++) bits[j] = (uint32_t)scales[j % GROUPS] << 16;
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
    vf largest = {0};
    for (int64_t i = 0; i < count; i += STEP) largest = maximum(magnitude(load(x + i)), largest);
    float scale = largest_lane(largest) / 127;
    return scale > 1e-30f ? scale : 1e-30f;
}

/* the lanes, of -128 ... 127, as `STEP` bytes */
INLINE void store_bytes(void *out, vi x) {
#if WIDTH == 64
    _mm_storeu_si128(out, _mm512_cvtepi32_epi8((__m512i)x));
#elif WIDTH == 32
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    _mm_storel_epi64(out, _mm_packs_epi16(words, words));
#else
    for (int j = 0; j < STEP; j++) ((int8_t *)out)[j] = (int8_t)x[j];
#endif
}

/* `count` numbers, a multiple of 16, as bytes */
INLINE void round_bytes(int8_t *out, const float *x, int64_t count, float scale) {
    for (int64_t i = 0; i < count; i += STEP) store_bytes(out + i, round_lanes(load(x + i) * (1 / scale)));
}

/* byte of input i within the two vectors of a block */
INLINE int byte_of_input(int i) {
    int group = i / GROUP, t = i % GROUP;
    return 64 * (t / 16) + 4 * (group + GROUPS * (t % 16 / 4)) + t % 4;
}

static void *scratch(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

/* ---- functions -------------------------------------------------------------------------------------------------- */

/* e^x of x <= 0; relative error below 2e-7 */
INLINE vf exponential(vf x) {
    x = maximum(x, (vf){} - 87.0f);
    vf scaled = x * 1.44269504f;
    vi whole = __builtin_convertvector(scaled - 0.5f, vi); /* towards 0: rounds to the nearest, x <= 0 */
    vf n = to_float(whole), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f, p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f, p = p * r * r + r + 1.0f;
    return p * (vf)((whole + 127) << 23);
}

/* GELU by the error function; Abramowitz and Stegun 7.1.26, absolute error below 2e-7 */
INLINE vf gelu(vf x) {
    vf z = magnitude(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    vf p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f, p = p * t - 0.284496736f, p = p * t + 0.254829592f;
    vf tail = p * t * exponential(-z * z); /* 1 - erf(z) */
    vi negative = x < 0.0f;
    vf share = (vf)(((vi)tail & negative) | ((vi)(2.0f - tail) & ~negative));
    return 0.5f * x * share;
}

/* layer norm of `count` numbers, in place; `padded` is a multiple of 16, and x is 0 between */
static void normalize(float *x, int64_t count, int64_t padded, const Norm *norm) {
    vf sum = {0}, squares = {0};
    for (int64_t i = 0; i < padded; i += STEP) sum += load(x + i);
    float mean = sum_lanes(sum) / count;
    for (int64_t i = 0; i < padded; i += STEP) squares += (load(x + i) - mean) * (load(x + i) - mean);
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

/* the numbers from `place` on, a multiple of 16, of a block -> 16 floats */
INLINE void unpack_lanes(int kind, const uint8_t *block, const void *scales, int64_t o, int64_t number, int place,
                         float out[LANES]) {
    const int half = place % GROUP / LANES, group = place / GROUP;
    for (int i = 0; i < LANES; i++) {
        if (kind == FP32) out[i] = ((const float *)block)[place + i];
        if (kind == BF16) out[i] = bf16_to_float(((const uint16_t *)block)[group * GROUP + 2 * i + half]);
        int byte = 4 * (group + GROUPS * (i / 4)) + i % 4;
        if (kind == INT8) out[i] = (float)(block[64 * half + byte] - 128) * ((const float *)scales)[o];
        if (kind == INT4)
            out[i] = (float)((block[byte] >> 4 * half & 15) - 8) *
                     bf16_to_float(((const uint16_t *)scales)[number * GROUPS + group]);
    }
}

/* blocks -> (O, D) in float32 or bfloat16 */
void unpack_weight(const Weight *weight, void *target, int to_bf16, int threads) {
    const int kind = (int)weight->kind, order = (int)weight->order;
    const int64_t O = weight->outputs, D = weight->inputs, blocks = count_blocks(weight), size = bytes_of_block(kind);
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < O; o++)
        for (int64_t i = 0; i < D; i += LANES) {
            int64_t number = block_number(order, o, i / BLOCK, blocks), count = D - i < LANES ? D - i : LANES;
            float values[LANES];
            const uint8_t *block = weight->packed + number * size;
            switch (kind) {
                case FP32: unpack_lanes(FP32, block, weight->scales, o, number, (int)(i % BLOCK), values); break;
                case BF16: unpack_lanes(BF16, block, weight->scales, o, number, (int)(i % BLOCK), values); break;
                case INT8: unpack_lanes(INT8, block, weight->scales, o, number, (int)(i % BLOCK), values); break;
                default: unpack_lanes(INT4, block, weight->scales, o, number, (int)(i % BLOCK), values);
            }
            if (to_bf16)
                for (int64_t j = 0; j < count; j++) ((uint16_t *)target)[o * D + i + j] = float_to_bf16(values[j]);
            else
                memcpy((float *)target + o * D + i, values, sizeof(float) * count);
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
        union { vf v; float at[STEP]; } scales;
        for (int k = 0; k < GROUPS; k++) {
            const float *group = x + b * BLOCK + k * GROUP;
            float scale = byte_scale(group, GROUP);
            union { int8_t at[GROUP]; int32_t words[GROUP / 4]; } rounded;
            round_bytes(rounded.at, group, GROUP, scale);
            for (int t = 0; t < GROUP / 4; t++) bytes.at[LANES * (t / 4) + k + GROUPS * (t % 4)] = rounded.words[t];
            for (int j = k; j < STEP; j += GROUPS) scales.at[j] = scale;
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
                    vf sum = to_float(sum_products(kind, bytes, x));
                    acc[r][o] += sum * (kind == INT4 ? scale * x->scales : x->scales);
                }
            }
        } else {
            for (int i = 0; i < BLOCK; i += 2 * STEP) {
                /* of bfloat16 a lane holds two inputs that lie 16 apart */
                int low = kind == BF16 ? i / GROUP * GROUP + i % GROUP / 2 : i;
                int high = low + (kind == BF16 ? LANES : STEP);
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
                for (int i = 0; i < TILE; i += STEP) {
                    vf products = load(sums[r] + i) * load(scale + i);
                    store(sums[r] + i, with_gelu ? gelu(products) : products);
                }
                for (int i = 0; i < TILE; i++) {
                    int64_t place = r * O + output[i];
                    if (output[i] < O) out[place] = sums[r][i] + (residual ? residual[place] : 0);
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
    int8_t rounded[d];
    round_bytes(rounded, key, d, key_scale);
    for (int64_t i = 0; i < d; i += 4) {
        uint32_t word;
        memcpy(&word, rounded + i, 4);
        word ^= 0x80808080u; /* adds 128 to each byte */
        memcpy(block + i / 4 * 64, &word, 4);
    }
    round_bytes(rounded, value, d, value_scale);
    int8_t *place = values + position / 4 * 4 * d + position % 4;
    for (int64_t i = 0; i < d; i++) place[4 * i] = rounded[i];
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
    float scale = byte_scale(query, d);
    vi sums = {0}, fine_sums = {0};
    for (int64_t i = 0; i < d; i += STEP) {
        vf scaled = load(query + i) * (1 / scale);
        vi whole = round_lanes(scaled), rest = round_lanes((scaled - to_float(whole)) * 254);
        store_bytes((int8_t *)high + i, whole), store_bytes((int8_t *)low + i, rest);
        sums += whole, fine_sums += rest;
    }
    int32_t total = 0, fine_total = 0;
    for (int j = 0; j < STEP; j++) total += sums[j], fine_total += fine_sums[j];
    vf best = (vf){} - INFINITY;
    for (int64_t p = 0; p < e; p += POSITIONS) {
        const uint8_t *block = keys + p * d;
        vi sum[POSITIONS / STEP], fine[POSITIONS / STEP];
        for (int h = 0; h < POSITIONS / STEP; h++)
            sum[h] = (vi){} - TAKE_BACK * total, fine[h] = (vi){} - TAKE_BACK * fine_total;
        for (int64_t c = 0; c < d / 4; c++) {
            __builtin_prefetch(block + KEY_AHEAD + 64 * c);
            for (int h = 0; h < POSITIONS / STEP; h++) {
                vb bytes = *(const vb *)(block + 64 * c + WIDTH * h);
                sum[h] = dot_offset(sum[h], bytes, (vi){} + high[c]);
                fine[h] = dot_offset(fine[h], bytes, (vi){} + low[c]);
            }
        }
        for (int h = 0; h < POSITIONS / STEP; h++) {
            int64_t first = p + h * STEP;
            vf result = (to_float(sum[h]) + to_float(fine[h]) * (1 / 254.0f)) * scale * load(key_scales + first);
            if (mask || first + STEP > e)
                for (int j = 0; j < STEP; j++)
                    result[j] = first + j < e ? result[j] + (mask ? mask[first + j] : 0) : -INFINITY;
            store(scores + first, result);
            best = maximum(result, best);
        }
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
            const int64_t count = d - first < WIDTH ? (d - first) / STEP : 4;
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
                vf *sum = (vf *)(out + first + c * STEP);
                *sum += (to_float(coarse[c]) * 128 + to_float(fine[c])) * factor;
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
        vf total = {0}, best = {0};
        for (int64_t p = 0; p < room; p += STEP) {
            vf weight = exponential(load(scores + p) - largest);
            total += weight;
            weight *= load(value_scales + p); /* 0 where nothing was written */
            best = maximum(weight, best);
            store(scores + p, weight);
        }
        float step = fmaxf(largest_lane(best), 1e-30f) / 16383;
        uint8_t *high = (uint8_t *)(scores + room), *low = high + room;
        for (int64_t p = 0; p < room; p += STEP) {
            vi weight = round_lanes(load(scores + p) * (1 / step));
            store_bytes(high + p, weight >> 7), store_bytes(low + p, weight & 127);
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
