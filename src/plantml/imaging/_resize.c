/* Bicubic, antialiased resize of 8-bit RGB, equal to Pillow's `Image.resize(size, BICUBIC, box)` to the last bit.
 *
 * The arithmetic is Pillow's (Resample.c): weights in double precision, rounded to 22 bits; a horizontal, then a
 * vertical pass (or the other way round), each rounded to 8 bits. What differs is how it is computed: with AVX2, products of two taps at a time
 * by `pmaddwd`. As that takes 16-bit weights, each weight is split, weight = high * 2^11 + low; the two sums are joined
 * at the end, which is exact. With AVX-512 VNNI, the products are added by the same instruction. Without AVX2, plain C.
 *
 * The lock of the interpreter is released. Pixels are read where Pillow keeps them (RGBX, 4 bytes each), and written
 * where the caller wants them (RGB, rows at any distance).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2 1
#include <immintrin.h>
#endif

#define PRECISION 22
#define HALF (1 << (PRECISION - 1))
#define SPLIT 11
#define SUPPORT 2.0

/* The start of the Arrow C data interface, by which Pillow lends its pixels. */
struct arrow_array {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct arrow_array **children;
};

/* Weights of one axis: output i is the sum of `weights[i * taps + k]` times input `first[i] + k`, for k < taps. */
struct axis {
    int size, taps;
    int32_t *first, *weights;
    int begin, end; /* of the inputs that are used */
};

static int with_avx2(void) {
#ifdef HAS_AVX2
    return __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}

static int with_vnni(void) {
#ifdef HAS_AVX2
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl");
#else
    return 0;
#endif
}

static double bicubic(double x) {
    x = fabs(x);
    if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0.0;
}

static void release(struct axis *axis) {
    free(axis->first);
    free(axis->weights);
}

/* Weights for `size` outputs from inputs `low` to `high` of `inputs`; 0 if there is no memory. `taps` is a multiple of
 * `group`, where so many inputs exist: then a window that would leave the inputs starts earlier, with weights of 0. */
static int prepare(struct axis *axis, int inputs, float low, float high, int size, int group) {
    double scale = (double)(high - low) / size, stretch = scale < 1.0 ? 1.0 : scale;
    double support = SUPPORT * stretch, inverse = 1.0 / stretch;
    int most = (int)ceil(support) * 2 + 1;
    int taps = (most + group - 1) / group * group;
    if (taps > inputs) taps = inputs;
    double *exact = malloc((size_t)most * sizeof(double));
    axis->size = size;
    axis->taps = taps;
    axis->first = malloc((size_t)size * sizeof(int32_t));
    axis->weights = calloc((size_t)size * taps, sizeof(int32_t));
    axis->begin = inputs;
    axis->end = 0;
    if (!exact || !axis->first || !axis->weights) {
        free(exact);
        release(axis);
        return 0;
    }
    for (int i = 0; i < size; i++) {
        double center = low + (i + 0.5) * scale, total = 0.0;
        int from = (int)(center - support + 0.5), to = (int)(center + support + 0.5);
        if (from < 0) from = 0;
        if (to > inputs) to = inputs;
        for (int k = 0; k < to - from; k++) total += exact[k] = bicubic((k + from - center + 0.5) * inverse);
        int first = from + taps > inputs ? inputs - taps : from;
        int32_t *weights = axis->weights + (size_t)i * taps + (from - first);
        for (int k = 0; k < to - from; k++) {
            double weight = (total != 0.0 ? exact[k] / total : exact[k]) * (1 << PRECISION);
            weights[k] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        axis->first[i] = first;
        if (from < axis->begin) axis->begin = from;
        if (to > axis->end) axis->end = to;
    }
    free(exact);
    return 1;
}

static inline uint8_t clipped(int32_t sum) {
    sum >>= PRECISION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One row of RGBX to a row of RGB. */
static void across(const uint8_t *row, uint8_t *out, const struct axis *axis) {
    for (int i = 0; i < axis->size; i++) {
        const uint8_t *pixel = row + (size_t)axis->first[i] * 4;
        const int32_t *weights = axis->weights + (size_t)i * axis->taps;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int k = 0; k < axis->taps; k++, pixel += 4) {
            red += weights[k] * pixel[0];
            green += weights[k] * pixel[1];
            blue += weights[k] * pixel[2];
        }
        out[3 * i] = clipped(red);
        out[3 * i + 1] = clipped(green);
        out[3 * i + 2] = clipped(blue);
    }
}

/* Rows of `bytes` bytes, `pitch` apart, to one row. */
static void down(const uint8_t *rows, size_t pitch, const int32_t *weights, int taps, uint8_t *out, int from, int bytes) {
    for (int i = from; i < bytes; i++) {
        int32_t sum = HALF;
        for (int k = 0; k < taps; k++) sum += weights[k] * rows[k * pitch + i];
        out[i] = clipped(sum);
    }
}

#ifdef HAS_AVX2
/* Weights of one output, four taps at a time, halves apart: 4 high and 4 low ones of 16 bits. */
static int16_t *split(const struct axis *axis) {
    size_t number = (size_t)axis->size * axis->taps;
    int16_t *halves = malloc(number * 2 * sizeof(int16_t));
    for (size_t i = 0; halves && i < number; i += 4)
        for (int k = 0; k < 4; k++) {
            halves[2 * i + k] = (int16_t)(axis->weights[i + k] >> SPLIT);
            halves[2 * i + 4 + k] = (int16_t)(axis->weights[i + k] & ((1 << SPLIT) - 1));
        }
    return halves;
}

/* `sum` and the products of the 16-bit halves, in one instruction where it is `fused`. */
__attribute__((target("avx2"), always_inline)) static inline __m256i add_products(
    __m256i sum, __m256i a, __m256i b, const int fused) {
    if (!fused) return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    __asm__("vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); /* the intrinsic would need the file compiled for it */
    return sum;
}

/* `number` rows at once, 4 or 1; `taps` is a multiple of 4. */
__attribute__((target("avx2"), always_inline)) static inline void across_some(
    const uint8_t *rows, size_t pitch, const int number, uint8_t *out, size_t out_pitch, const struct axis *axis,
    const int16_t *halves, const int fused) {
    const __m256i pairs = _mm256_setr_epi8(
        0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    const __m256i first_half = _mm256_setr_epi8(
        0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    const __m256i second_half = _mm256_add_epi8(first_half, _mm256_set1_epi8(8));
    for (int i = 0; i < axis->size; i++) {
        __m256i high[4], low[4];
        for (int r = 0; r < number; r++) high[r] = low[r] = _mm256_setzero_si256();
        const uint8_t *window = rows + (size_t)axis->first[i] * 4;
        for (int k = 0; k < axis->taps; k += 4) {
            const int16_t *four = halves + 2 * ((size_t)i * axis->taps + k);
            __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)four));
            __m256i top = _mm256_shuffle_epi8(both, first_half), rest = _mm256_shuffle_epi8(both, second_half);
            for (int r = 0; r < number; r++) {
                __m128i bytes = _mm_loadu_si128((const __m128i *)(window + r * pitch + (size_t)k * 4));
                __m256i pixels = _mm256_shuffle_epi8(_mm256_cvtepu8_epi16(bytes), pairs);
                high[r] = add_products(high[r], pixels, top, fused);
                low[r] = add_products(low[r], pixels, rest, fused);
            }
        }
        for (int r = 0; r < number; r++) {
            __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high[r], SPLIT), low[r]);
            __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            four = _mm_srai_epi32(_mm_add_epi32(four, _mm_set1_epi32(HALF)), PRECISION);
            four = _mm_packus_epi16(_mm_packs_epi32(four, four), four);
            int32_t rgbx = _mm_cvtsi128_si32(four);
            uint8_t *pixel = out + r * out_pitch + 3 * (size_t)i;
            if (i + 1 < axis->size)
                memcpy(pixel, &rgbx, 4); /* the fourth byte is the next pixel's, which comes later */
            else
                memcpy(pixel, &rgbx, 3);
        }
    }
}

__attribute__((target("avx2"), always_inline)) static inline void across_all(
    const uint8_t *rows, size_t pitch, int number, uint8_t *out, size_t out_pitch, const struct axis *axis,
    const int16_t *halves, const int fused) {
    int row = 0;
    for (; row + 4 <= number; row += 4)
        across_some(rows + row * pitch, pitch, 4, out + row * out_pitch, out_pitch, axis, halves, fused);
    for (; row < number; row++)
        across_some(rows + row * pitch, pitch, 1, out + row * out_pitch, out_pitch, axis, halves, fused);
}

__attribute__((target("avx2"))) static void across_avx2(
    const uint8_t *rows, size_t pitch, int number, uint8_t *out, size_t out_pitch, const struct axis *axis,
    const int16_t *halves) {
    if (with_vnni())
        across_all(rows, pitch, number, out, out_pitch, axis, halves, 1);
    else
        across_all(rows, pitch, number, out, out_pitch, axis, halves, 0);
}

__attribute__((target("avx2"), always_inline)) static inline void down_some(
    const uint8_t *rows, size_t pitch, const int32_t *weights, int taps, uint8_t *out, int bytes, const int fused) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(HALF);
    int i = 0;
    for (; i + 32 <= bytes; i += 32) {
        __m256i high[4] = {zero, zero, zero, zero}, low[4] = {half, half, half, half};
        for (int k = 0; k < taps; k += 2) {
            int32_t one = weights[k], two = k + 1 < taps ? weights[k + 1] : 0;
            const uint8_t *row = rows + (size_t)k * pitch + i;
            __m256i a = _mm256_loadu_si256((const __m256i *)row);
            __m256i b = k + 1 < taps ? _mm256_loadu_si256((const __m256i *)(row + pitch)) : zero;
            __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
            __m256i top = _mm256_set1_epi32((int32_t)(((uint32_t)(two >> SPLIT) << 16) | (uint16_t)(one >> SPLIT)));
            const int32_t mask = (1 << SPLIT) - 1;
            __m256i rest = _mm256_set1_epi32((int32_t)(((uint32_t)(two & mask) << 16) | (uint32_t)(one & mask)));
            for (int part = 0; part < 4; part++) {
                __m256i words = part & 1 ? _mm256_unpackhi_epi8(ab[part / 2], zero)
                                         : _mm256_unpacklo_epi8(ab[part / 2], zero);
                high[part] = add_products(high[part], words, top, fused);
                low[part] = add_products(low[part], words, rest, fused);
            }
        }
        __m256i sums[4];
        for (int part = 0; part < 4; part++)
            sums[part] = _mm256_srai_epi32(
                _mm256_add_epi32(_mm256_slli_epi32(high[part], SPLIT), low[part]), PRECISION);
        /* The unpacking was within halves of 128 bits, and so is the packing: the bytes come back in their order. */
        __m256i one = _mm256_packs_epi32(sums[0], sums[1]), two = _mm256_packs_epi32(sums[2], sums[3]);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_packus_epi16(one, two));
    }
    down(rows, pitch, weights, taps, out, i, bytes);
}

__attribute__((target("avx2"))) static void down_avx2(
    const uint8_t *rows, size_t pitch, const int32_t *weights, int taps, uint8_t *out, int bytes) {
    if (with_vnni())
        down_some(rows, pitch, weights, taps, out, bytes, 1);
    else
        down_some(rows, pitch, weights, taps, out, bytes, 0);
}
#endif

static void resize_down(
    const uint8_t *rows, size_t pitch, const struct axis *lines, uint8_t *out, size_t out_pitch, int bytes) {
    /* `rows` begins with the first input that is used. */
    for (int i = 0; i < lines->size; i++) {
        const int32_t *weights = lines->weights + (size_t)i * lines->taps;
        int first = lines->first[i] - lines->begin, taps = lines->taps;
        /* Inputs outside those that are used have no weight. */
        if (first < 0) {
            weights -= first;
            taps += first;
            first = 0;
        }
        if (first + taps > lines->end - lines->begin) taps = lines->end - lines->begin - first;
        const uint8_t *from = rows + (size_t)first * pitch;
#ifdef HAS_AVX2
        if (with_avx2())
            down_avx2(from, pitch, weights, taps, out + i * out_pitch, bytes);
        else
#endif
            down(from, pitch, weights, taps, out + i * out_pitch, 0, bytes);
    }
}

/* 1, or 0 if there is no memory. */
static int resize_across(
    const uint8_t *rows, size_t pitch, int number, const struct axis *columns, uint8_t *out, size_t out_pitch) {
#ifdef HAS_AVX2
    if (with_avx2() && columns->taps % 4 == 0) {
        int16_t *halves = split(columns);
        if (!halves) return 0;
        across_avx2(rows, pitch, number, out, out_pitch, columns, halves);
        free(halves);
        return 1;
    }
#endif
    for (int row = 0; row < number; row++) across(rows + row * pitch, out + row * out_pitch, columns);
    return 1;
}

/* 1, or 0 if there is no memory. */
static int resize(
    const uint8_t *pixels, int width, int height, const float box[4], int vertical_first, uint8_t *out,
    size_t out_pitch, int out_width, int out_height) {
    struct axis columns, lines;
    size_t pitch = (size_t)width * 4, line = (size_t)out_width * 3;
    if (!prepare(&columns, width, box[0], box[2], out_width, 4)) return 0;
    if (!prepare(&lines, height, box[1], box[3], out_height, 1)) {
        release(&columns);
        return 0;
    }
    int used = lines.end - lines.begin, done = 0;
    const uint8_t *rows = pixels + (size_t)lines.begin * pitch;
    if (vertical_first) {
        uint8_t *between = malloc((size_t)out_height * pitch);
        if (between) {
            resize_down(rows, pitch, &lines, between, pitch, (int)pitch);
            done = resize_across(between, pitch, out_height, &columns, out, out_pitch);
        }
        free(between);
    } else {
        uint8_t *between = malloc((size_t)used * line);
        if (between && resize_across(rows, pitch, used, &columns, between, line)) {
            resize_down(between, line, &lines, out, out_pitch, (int)line);
            done = 1;
        }
        free(between);
    }
    release(&columns);
    release(&lines);
    return done;
}

static PyObject *resize_into(PyObject *self, PyObject *args) {
    PyObject *lent, *target;
    int width, height, vertical_first;
    float box[4];
    Py_buffer bytes = {0}, out;
    const uint8_t *pixels = NULL;
    PyObject *result = NULL;
    (void)self;
    if (!PyArg_ParseTuple(
            args, "Oii(ffff)pO", &lent, &width, &height, &box[0], &box[1], &box[2], &box[3], &vertical_first, &target))
        return NULL;
    if (PyObject_GetBuffer(target, &out, PyBUF_STRIDES | PyBUF_WRITABLE) < 0) return NULL;
    if (out.ndim != 3 || out.itemsize != 1 || out.shape[2] != 3 || out.strides[2] != 1 || out.strides[1] != 3 ||
        out.strides[0] < 3 * out.shape[1] || out.shape[0] < 1 || out.shape[1] < 1) {
        PyErr_SetString(PyExc_ValueError, "the output must be uint8 [height, width, 3], its pixels side by side");
        goto end;
    }
    if (width < 1 || height < 1 || !(box[0] >= 0 && box[1] >= 0 && box[2] <= width && box[3] <= height) ||
        !(box[0] < box[2] && box[1] < box[3])) {
        PyErr_SetString(PyExc_ValueError, "the box does not lie within the image");
        goto end;
    }
    int64_t needed = (int64_t)width * height * 4, given = -1;
    if (PyCapsule_IsValid(lent, "arrow_array")) {
        const struct arrow_array *array = PyCapsule_GetPointer(lent, "arrow_array");
        if (array->n_children == 1 && array->children[0]->n_buffers == 2) {
            given = array->children[0]->length;
            pixels = (const uint8_t *)array->children[0]->buffers[1] + array->children[0]->offset;
        }
    } else {
        if (PyObject_GetBuffer(lent, &bytes, PyBUF_SIMPLE) < 0) goto end;
        given = bytes.len;
        pixels = bytes.buf;
    }
    if (given < needed || pixels == NULL) {
        PyErr_SetString(PyExc_ValueError, "the pixels are not RGBX");
        goto end;
    }
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = resize(
        pixels, width, height, box, vertical_first, out.buf, (size_t)out.strides[0], (int)out.shape[1],
        (int)out.shape[0]);
    Py_END_ALLOW_THREADS
    if (done)
        result = Py_NewRef(Py_None);
    else
        PyErr_NoMemory();
end:
    if (bytes.obj != NULL) PyBuffer_Release(&bytes);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"resize_into", resize_into, METH_VARARGS,
     "resize_into(pixels, width, height, box, vertical_first, out): resize a part of an RGBX image into `out`.\n\n"
     "`pixels` is Pillow's Arrow capsule, or bytes; `box` is left, top, right, bottom in pixels; `out` is uint8\n"
     "[H, W, 3], whose rows may lie apart."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    return PyModule_AddStringConstant(module, "SIMD", with_vnni() ? "AVX-512 VNNI" : with_avx2() ? "AVX2" : "");
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "plantml.imaging._resize", "Bicubic resize, equal to Pillow's.", 0, methods, slots, NULL,
    NULL, NULL};

PyMODINIT_FUNC PyInit__resize(void) { return PyModuleDef_Init(&definition); }
