/* An antialiased resize of 8-bit RGB from a box with fractional edges, to the last bit as Pillow computes it: weights in 22 bits,
 * columns first, rounded to 8 bits, then rows.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define BITS 22

struct weights {
    int taps;     /* room for each output */
    int *first;   /* the first input of each output */
    int *count;   /* and how many inputs */
    int32_t *of;  /* [outputs, taps] */
    void *split;  /* the same for AVX2 */
};

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double cubic(double x) {
    const double a = -0.5; /* Keys 1981 */
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static void free_weights(struct weights *weights) {
    free(weights->first);
    free(weights->count);
    free(weights->of);
    free(weights->split);
}

/* Weights that take `inputs` samples, of which those from `low` to `high` are shown, to `outputs`; 0 on success. */
static int find_weights(struct weights *weights, int inputs, float low, float high, int outputs, int bicubic) {
    const double scale = (double)(high - low) / outputs, stretch = scale < 1.0 ? 1.0 : scale;
    const double support = (bicubic ? 2.0 : 1.0) * stretch;
    weights->taps = (int)ceil(support) * 2 + 1;
    weights->first = malloc(sizeof(int) * (size_t)outputs);
    weights->count = malloc(sizeof(int) * (size_t)outputs);
    weights->of = malloc(sizeof(int32_t) * (size_t)outputs * (size_t)weights->taps);
    double *values = malloc(sizeof(double) * (size_t)weights->taps);
    if (!weights->first || !weights->count || !weights->of || !values) {
        free(values);
        return 1;
    }
    for (int out = 0; out < outputs; out++) {
        const double centre = low + (out + 0.5) * scale, sharpness = 1.0 / stretch;
        int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (last > inputs) last = inputs;
        double sum = 0.0;
        for (int tap = 0; tap < last - first; tap++) {
            const double x = (tap + first - centre + 0.5) * sharpness;
            values[tap] = bicubic ? cubic(x) : triangle(x);
            sum += values[tap];
        }
        for (int tap = 0; tap < last - first; tap++) {
            const double value = (sum != 0.0 ? values[tap] / sum : values[tap]) * (1 << BITS);
            weights->of[(size_t)out * (size_t)weights->taps + (size_t)tap] = (int32_t)(value < 0 ? value - 0.5 : value + 0.5);
        }
        weights->first[out] = first;
        weights->count[out] = last - first;
    }
    free(values);
    return 0;
}

/* Make the last output the first. */
static void mirror(struct weights *weights, int outputs) {
    const size_t taps = (size_t)weights->taps;
    for (int x = 0, other = outputs - 1; x < other; x++, other--) {
        int32_t *one = weights->of + (size_t)x * taps, *two = weights->of + (size_t)other * taps;
        for (size_t tap = 0; tap < taps; tap++) {
            const int32_t weight = one[tap];
            one[tap] = two[tap];
            two[tap] = weight;
        }
        const int first = weights->first[x], count = weights->count[x];
        weights->first[x] = weights->first[other];
        weights->count[x] = weights->count[other];
        weights->first[other] = first;
        weights->count[other] = count;
    }
}

static inline uint8_t clip(int32_t sum) {
    const int32_t value = sum >> BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

static int fast(void) { return __builtin_cpu_supports("avx2"); }

/* Products of 16 bits are added in pairs, two taps at a time, so a weight is split into its upper bits and its lower 11. Both sums
 * wrap around in 32 bits, and what is put together of them is exact. For every two taps of an output there are 8 upper halves, in
 * turn for red, green, blue and nothing, and 8 lower ones. */
static int split_weights(struct weights *weights, int outputs) {
    if (!fast()) return 0;
    const size_t taps = (size_t)weights->taps, pairs = (taps + 1) / 2, size = (size_t)outputs * pairs * 2 * sizeof(__m128i);
    if (posix_memalign(&weights->split, sizeof(__m128i), size)) return 1;
    memset(weights->split, 0, size);
    for (int x = 0; x < outputs; x++)
        for (int tap = 0; tap < weights->count[x]; tap++) {
            const int32_t weight = weights->of[(size_t)x * taps + (size_t)tap];
            int16_t *to = (int16_t *)weights->split + ((size_t)x * pairs + (size_t)(tap / 2)) * 16 + tap % 2;
            for (int channel = 0; channel < 3; channel++) {
                to[2 * channel] = (int16_t)(weight >> 11);
                to[2 * channel + 8] = (int16_t)(weight & 2047);
            }
        }
    return 0;
}

/* Two rows at once, the one in the lower lanes, the other in the upper. */
AVX2 static void resize_rows_avx2(const uint8_t *one, const uint8_t *two, uint8_t *out_one, uint8_t *out_two, size_t plane,
                                  int outputs, const struct weights *weights) {
    const int pairs = (weights->taps + 1) / 2;
    const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, /* two pixels, by colour */
                                            0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i half = _mm256_set1_epi32(1 << (BITS - 1));
    for (int x = 0; x < outputs; x++) {
        const size_t place = 3 * (size_t)weights->first[x];
        const __m128i *weight = (const __m128i *)weights->split + (size_t)x * (size_t)pairs * 2;
        __m256i upper = _mm256_setzero_si256(), lower = half;
        for (int tap = 0; tap < weights->count[x]; tap += 2, weight += 2) {
            const size_t from = place + 3 * (size_t)tap;
            const __m128i first = _mm_loadl_epi64((const __m128i *)(one + from));
            const __m128i second = _mm_loadl_epi64((const __m128i *)(two + from));
            const __m256i pixels = _mm256_shuffle_epi8(_mm256_set_m128i(second, first), spread);
            upper = _mm256_add_epi32(upper, _mm256_madd_epi16(pixels, _mm256_broadcastsi128_si256(weight[0])));
            lower = _mm256_add_epi32(lower, _mm256_madd_epi16(pixels, _mm256_broadcastsi128_si256(weight[1])));
        }
        __m256i sums = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(upper, 11), lower), BITS);
        sums = _mm256_packs_epi32(sums, sums);
        sums = _mm256_packus_epi16(sums, sums);
        const int a = _mm_cvtsi128_si32(_mm256_castsi256_si128(sums));
        const int b = _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1));
        for (size_t channel = 0; channel < 3; channel++) {
            out_one[channel * plane + (size_t)x] = (uint8_t)(a >> (8 * channel));
            out_two[channel * plane + (size_t)x] = (uint8_t)(b >> (8 * channel));
        }
    }
}

AVX2 static void mix_rows_avx2(const uint8_t *in, uint8_t *out, size_t stride, const int32_t *weight, int count) {
    for (size_t i = 0; i < stride; i += 8) {
        __m256i sum = _mm256_set1_epi32(1 << (BITS - 1));
        for (int tap = 0; tap < count; tap++) {
            const __m128i values = _mm_loadl_epi64((const __m128i *)(in + (size_t)tap * stride + i));
            const __m256i factor = _mm256_set1_epi32(weight[tap]);
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(values), factor));
        }
        sum = _mm256_srai_epi32(sum, BITS);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(words, words));
    }
}
#else
static int fast(void) { return 0; }
static int split_weights(struct weights *weights, int outputs) { return (void)weights, (void)outputs, 0; }
#define resize_rows_avx2(one, two, out_one, out_two, plane, outputs, weights) (void)0
#define mix_rows_avx2(in, out, stride, weight, count) (void)0
#endif

/* One row of pixels to `outputs` red, green and blue values that begin `plane` apart. */
static void resize_row(const uint8_t *in, uint8_t *out, size_t plane, int outputs, const struct weights *weights) {
    for (int x = 0; x < outputs; x++) {
        const uint8_t *from = in + 3 * (size_t)weights->first[x];
        const int32_t *weight = weights->of + (size_t)x * (size_t)weights->taps;
        int32_t red = 1 << (BITS - 1), green = red, blue = red;
        for (int tap = 0; tap < weights->count[x]; tap++) {
            red += from[3 * tap] * weight[tap];
            green += from[3 * tap + 1] * weight[tap];
            blue += from[3 * tap + 2] * weight[tap];
        }
        out[x] = clip(red);
        out[plane + (size_t)x] = clip(green);
        out[2 * plane + (size_t)x] = clip(blue);
    }
}

/* One row of `stride` values, a multiple of 8, from `count` rows that lie `stride` apart. */
static void mix_rows(const uint8_t *in, uint8_t *out, size_t stride, const int32_t *weight, int count) {
    if (fast()) {
        mix_rows_avx2(in, out, stride, weight, count);
        return;
    }
    for (size_t i = 0; i < stride; i += 8) {
        int32_t sums[8];
        for (int lane = 0; lane < 8; lane++) sums[lane] = 1 << (BITS - 1);
        for (int tap = 0; tap < count; tap++)
            for (size_t lane = 0; lane < 8; lane++) sums[lane] += in[(size_t)tap * stride + i + lane] * weight[tap];
        for (size_t lane = 0; lane < 8; lane++) out[i + lane] = clip(sums[lane]);
    }
}

/* Resize the box (left, top, right, bottom) of `in` (RGB, rows · columns · 3 bytes) to `out` (three planes of height · width). Pixels
 * around the box take part as far as the filter reaches. Return 0, or 1 when there is no memory. */
EXPORT int vitlab_resize(const uint8_t *in, int rows, int columns, const float *box, uint8_t *out, int height, int width,
                         int bicubic, int mirrored) {
    const size_t line = 3 * (size_t)columns, plane = ((size_t)width + 7) / 8 * 8, stride = 3 * plane;
    const size_t room = (line > stride ? line : stride) + 8; /* 8 bytes are read at a time */
    struct weights across = {0}, down = {0};
    uint8_t *row = calloc(2, room), *narrow = NULL;
    int failed = !row || find_weights(&across, columns, box[0], box[2], width, bicubic) ||
                 find_weights(&down, rows, box[1], box[3], height, bicubic);
    if (!failed && mirrored) mirror(&across, width);
    failed = failed || split_weights(&across, width);
    if (!failed) {
        const int top = down.first[0], bottom = down.first[height - 1] + down.count[height - 1];
        narrow = calloc((size_t)(bottom - top) + 1, stride); /* one more for the partner of an odd last row */
        failed = !narrow;
        for (int y = top; y < bottom && !failed; y += 2) {
            uint8_t *to = narrow + (size_t)(y - top) * stride;
            memcpy(row, in + (size_t)y * line, line);
            if (y + 1 < bottom) memcpy(row + room, in + (size_t)(y + 1) * line, line);
            if (fast()) {
                resize_rows_avx2(row, row + room, to, to + stride, plane, width, &across);
            } else {
                resize_row(row, to, plane, width, &across);
                resize_row(row + room, to + stride, plane, width, &across);
            }
        }
        for (int y = 0; y < height && !failed; y++) {
            const int32_t *weight = down.of + (size_t)y * (size_t)down.taps;
            mix_rows(narrow + (size_t)(down.first[y] - top) * stride, row, stride, weight, down.count[y]);
            for (size_t channel = 0; channel < 3; channel++)
                memcpy(out + (channel * (size_t)height + (size_t)y) * (size_t)width, row + channel * plane, (size_t)width);
        }
    }
    free_weights(&across);
    free_weights(&down);
    free(narrow);
    free(row);
    return failed;
}
