// Ordered accumulation of FP16 products in FP32, on several outputs at a time. What is computed stands in ordered.py.
//
// A product of two FP16 values is exact in FP32, so fused and separate multiply and add give the same sum. Vectors and
// register tiles run over outputs only; each output is one chain over k. The depth is cut into blocks, between which the
// chains rest in `out` as float32, which loses nothing. Compile without any relaxed arithmetic.

#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "share.h"

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int WIDTH = 8, ROWS = 6;
#else
constexpr int WIDTH = 4, ROWS = 4;
#endif
constexpr int COLUMNS = 2 * WIDTH;             // a register tile is ROWS x COLUMNS chains
constexpr int64_t DEPTH = 256;                 // a block's steps: its panel of b stays in the first-level cache
constexpr int64_t BLOCK_ROWS = 8 * ROWS;       // rows of a that are packed at once, for the second-level cache
constexpr int64_t BLOCK_COLUMNS = 256;
constexpr int64_t SHARE_ROWS = 16 * BLOCK_ROWS;  // rows and columns that one thread takes at a time
constexpr int64_t SLACK = 16;                  // `widen` writes whole runs of 16

typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Loose __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline Vector load(const float *from) { return *reinterpret_cast<const Loose *>(from); }
inline void store(float *to, Vector value) { *reinterpret_cast<Loose *>(to) = value; }

inline Vector multiply_add(Vector a, Vector b, Vector sum) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, sum);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, sum);
#else
    return a * b + sum;
#endif
}

// The rounding mode and the treatment of subnormals are a thread's, and other libraries change them.
struct PlainArithmetic {
    std::fenv_t before;
    PlainArithmetic() { std::fegetenv(&before), std::fesetenv(FE_DFL_ENV); }
    ~PlainArithmetic() { std::fesetenv(&before); }
};

// --- FP16

inline void widen16(const uint16_t *from, float *to) {
#if defined(__AVX512F__)
    _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from))));
#elif defined(__F16C__)
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
#else
    for (int i = 0; i < 16; i++) {
        const uint32_t bits = uint32_t(from[i] & 0x7fff) << 13;  // the value times 2**-112, perhaps a subnormal
        float value;
        std::memcpy(&value, &bits, 4);
        to[i] = (from[i] & 0x8000 ? -0x1p112f : 0x1p112f) * value;
    }
#endif
}

// Finite FP16 to FP32; writes up to the next multiple of 16 values.
inline void widen(const uint16_t *from, float *to, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) widen16(from + i, to + i);
    if (i == count) return;
    uint16_t last[16] = {};
    std::memcpy(last, from + i, 2 * (count - i));
    widen16(last, to + i);
}

// FP32 to FP16, to nearest even, at most 65504 in magnitude. No NaN.
inline void narrow16(const float *from, uint16_t *to) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = std::min(std::max(from[i], -65504.0f), 65504.0f);
#if defined(__F16C__)
    for (int i = 0; i < 16; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), 0));
#else
    for (int i = 0; i < 16; i++) {
        uint32_t bits, tiny;
        std::memcpy(&bits, values + i, 4);
        const uint32_t sign = bits >> 31 << 15;
        bits &= 0x7fffffff;
        float shifted;
        std::memcpy(&shifted, &bits, 4);
        shifted += 0.5f;  // its last place is 2**-24, that of the subnormals
        std::memcpy(&tiny, &shifted, 4);
        const uint32_t normal = ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10);
        to[i] = uint16_t(sign | (bits < 0x38800000 ? tiny - 0x3f000000 : normal));
    }
#endif
}

// --- the left operand: lines of packed values, in tiles of ROWS

// Row after row: value (row, k) of a packed block lies at row * ROW + k * STEP.
struct RowLayout {
    static constexpr int64_t ROW = DEPTH + SLACK, STEP = 1, TILE = ROWS * ROW;
};

// Step after step within a tile.
struct StepLayout {
    static constexpr int64_t ROW = 1, STEP = ROWS, TILE = DEPTH * ROWS;
    static void spread(const float *line, int64_t tiles, float *to) {
        for (int64_t t = 0; t < tiles; t++)
            for (int r = 0; r < ROWS; r++) to[t * TILE + r] = line[t * ROWS + r];
    }
};

// a (rows, depth)
struct Rows : RowLayout {
    const uint16_t *a;
    int64_t depth;
    void pack(int64_t row, int64_t count, int64_t from, int64_t to, float *packed) const {
        for (int64_t r = 0; r < count; r++) widen(a + (row + r) * depth + from, packed + r * ROW, to - from);
    }
};

// a (depth, rows)
struct Steps : StepLayout {
    const uint16_t *a;
    int64_t rows;
    void pack(int64_t row, int64_t count, int64_t from, int64_t to, float *packed) const {
        float line[BLOCK_ROWS + SLACK] = {};
        for (int64_t k = from; k < to; k++) {
            widen(a + k * rows + row, line, count);
            spread(line, (count + ROWS - 1) / ROWS, packed + (k - from) * STEP);
        }
    }
};

}  // namespace

extern "C" {
// A convolution's image and its windows; `Windows` of ordered.py.
struct Windows {
    int64_t images, height, width, channels;  // x (images, height, width, channels)
    int64_t rows, columns;                    // windows per image
    int64_t stride_rows, stride_columns;
    int64_t taps;
    const int64_t *offsets;                   // (taps, 2): where a tap lies for window 0, 0; outside of x it reads zero
    int64_t to_image, to_row, to_column;      // distances of results in `out`
};
}

namespace {

struct Window {
    int64_t image, row, column;
};

// Values (tap, channel) of windows.
struct Gather {
    const uint16_t *x;
    Windows shape;

    Window window(int64_t index) const {
        const int64_t line = index / shape.columns;
        return {line / shape.rows, line % shape.rows, index % shape.columns};
    }

    void next(Window &window) const {
        if (++window.column < shape.columns) return;
        window.column = 0;
        if (++window.row < shape.rows) return;
        window.row = 0, window.image++;
    }

    // Values from..to-1 of a window, of which the first is channel `channel` of tap `tap`.
    void values(const Window &window, int64_t tap, int64_t channel, int64_t from, int64_t to, float *out) const {
        while (from < to) {
            const int64_t row = window.row * shape.stride_rows + shape.offsets[2 * tap];
            const int64_t column = window.column * shape.stride_columns + shape.offsets[2 * tap + 1];
            const bool line = uint64_t(row) < uint64_t(shape.height), inside = line && uint64_t(column) < uint64_t(shape.width);
            int64_t count = shape.channels - channel, last = tap;
            while (inside && last + 1 < shape.taps && adjacent(last) && column + last + 1 - tap < shape.width && count < to - from)
                count += shape.channels, last++;  // the next tap's values follow in memory
            count = std::min(count, to - from);
            if (inside) {
                const uint16_t *pixel = x + ((window.image * shape.height + row) * shape.width + column) * shape.channels;
                widen(pixel + channel, out, count);
            } else {
                std::fill(out, out + count, 0.0f);
            }
            from += count, out += count, tap = last + 1, channel = 0;
        }
    }

    bool adjacent(int64_t tap) const {
        const int64_t *offset = shape.offsets + 2 * tap;
        return offset[2] == offset[0] && offset[3] == offset[1] + 1;
    }
};

// One row per window, one step per (tap, channel).
struct WindowRows : RowLayout, Gather {
    WindowRows(const uint16_t *x, const Windows &shape) : Gather{x, shape} {}
    void pack(int64_t row, int64_t count, int64_t from, int64_t to, float *packed) const {
        Window at = window(row);
        const int64_t tap = from / shape.channels, channel = from % shape.channels;
        for (int64_t r = 0; r < count; r++, next(at)) values(at, tap, channel, from, to, packed + r * ROW);
    }
};

// One row per (tap, channel), one step per window.
struct WindowSteps : StepLayout, Gather {
    WindowSteps(const uint16_t *x, const Windows &shape) : Gather{x, shape} {}
    void pack(int64_t row, int64_t count, int64_t from, int64_t to, float *packed) const {
        float line[BLOCK_ROWS + SLACK] = {};
        Window at = window(from);
        const int64_t tap = row / shape.channels, channel = row % shape.channels;
        for (int64_t k = from; k < to; k++, next(at)) {
            values(at, tap, channel, row, row + count, line);
            spread(line, (count + ROWS - 1) / ROWS, packed + (k - from) * STEP);
        }
    }
};

// --- the product

// Continues ROWS x COLUMNS chains by `steps` products each.
template <class A> void tile(const float *a, const float *b, int64_t steps, float *const *out) {
    Vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) sums[r][0] = load(out[r]), sums[r][1] = load(out[r] + WIDTH);
    for (int64_t k = 0; k < steps; k++) {
        const Vector left = load(b + k * COLUMNS), right = load(b + k * COLUMNS + WIDTH);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const Vector value = a[r * A::ROW + k * A::STEP] - Vector{};  // in every lane
            sums[r][0] = multiply_add(value, left, sums[r][0]);
            sums[r][1] = multiply_add(value, right, sums[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) store(out[r], sums[r][0]), store(out[r] + WIDTH, sums[r][1]);
}

// The same where only part of the tile exists.
template <class A>
void edge(const float *a, const float *b, int64_t steps, float *const *out, int64_t rows, int64_t columns) {
    float whole[ROWS][COLUMNS] = {};
    float *places[ROWS];
    for (int r = 0; r < ROWS; r++) places[r] = whole[r];
    for (int64_t r = 0; r < rows; r++) std::copy(out[r], out[r] + columns, whole[r]);
    tile<A>(a, b, steps, places);
    for (int64_t r = 0; r < rows; r++) std::copy(whole[r], whole[r] + columns, out[r]);
}

struct Buffer {
    explicit Buffer(int64_t count) : data(new (std::align_val_t(64)) float[count]()) {}  // zero: lanes that nobody fills
    ~Buffer() { ::operator delete[](data, std::align_val_t(64)); }
    Buffer(const Buffer &) = delete;
    float *data;
};

// out[place(i)][j] continues by the sum over k of a[i][k] * b[k][j]; b is (depth, columns).
template <class A, class Place> struct Product {
    const A a;
    const uint16_t *b;
    float *out;
    int64_t rows, depth, columns;
    Place place;

    void block(float *packed_a, const float *packed_b, int64_t row, int64_t count, int64_t column, int64_t end, int64_t k,
               int64_t steps) const {
        float *lines[BLOCK_ROWS];
        for (int64_t r = 0; r < count; r++) lines[r] = out + place(row + r);
        a.pack(row, count, k, k + steps, packed_a);
        for (int64_t c = column; c < end; c += COLUMNS) {
            const float *panel = packed_b + (c - column) * DEPTH;
            const int64_t wide = std::min<int64_t>(COLUMNS, end - c);
            for (int64_t r = 0; r < count; r += ROWS) {
                const int64_t high = std::min<int64_t>(ROWS, count - r);
                float *places[ROWS];
                for (int64_t i = 0; i < high; i++) places[i] = lines[r + i] + c;
                const float *packed = packed_a + r / ROWS * A::TILE;
                if (high == ROWS && wide == COLUMNS) tile<A>(packed, panel, steps, places);
                else edge<A>(packed, panel, steps, places, high, wide);
            }
        }
    }

    void share(float *packed_a, float *packed_b, int64_t row, int64_t row_end, int64_t column, int64_t end) const {
        for (int64_t k = 0; k < depth; k += DEPTH) {
            const int64_t steps = std::min(DEPTH, depth - k);
            for (int64_t c = column; c < end; c += COLUMNS)
                for (int64_t i = 0; i < steps; i++)
                    widen(b + (k + i) * columns + c, packed_b + (c - column) * DEPTH + i * COLUMNS,
                          std::min<int64_t>(COLUMNS, end - c));
            for (int64_t r = row; r < row_end; r += BLOCK_ROWS)
                block(packed_a, packed_b, r, std::min(BLOCK_ROWS, row_end - r), column, end, k, steps);
        }
    }

    void run(int threads) const {
        const int64_t fair = (rows + 4 * threads - 1) / (4 * threads) + ROWS - 1;
        const int64_t high = threads == 1 ? SHARE_ROWS : std::min(SHARE_ROWS, fair / ROWS * ROWS);
        const int64_t down = (rows + high - 1) / high, across = (columns + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;
        together(down * across, threads, [&](const auto &next) {
            const PlainArithmetic arithmetic;
            const Buffer packed_a(BLOCK_ROWS / ROWS * A::TILE + SLACK), packed_b(BLOCK_COLUMNS * DEPTH + SLACK);
            for (int64_t i; (i = next()) >= 0;) {
                const int64_t row = i % down * high, column = i / down * BLOCK_COLUMNS;
                share(packed_a.data, packed_b.data, row, std::min(rows, row + high), column,
                      std::min(columns, column + BLOCK_COLUMNS));
            }
        });
    }
};

template <class A, class Place>
void multiply(const A &a, const uint16_t *b, float *out, int64_t rows, int64_t depth, int64_t columns, Place place, int threads) {
    Product<A, Place>{a, b, out, rows, depth, columns, place}.run(threads);
}

}  // namespace

extern "C" {

// a (rows, depth) b (depth, columns), onto out (rows, columns)
void ordered_matmul(const uint16_t *a, const uint16_t *b, float *out, int64_t rows, int64_t depth, int64_t columns, int threads) {
    multiply(Rows{{}, a, depth}, b, out, rows, depth, columns, [=](int64_t row) { return row * columns; }, threads);
}

// a (depth, rows)
void ordered_matmul_tn(const uint16_t *a, const uint16_t *b, float *out, int64_t rows, int64_t depth, int64_t columns,
                       int threads) {
    multiply(Steps{{}, a, rows}, b, out, rows, depth, columns, [=](int64_t row) { return row * columns; }, threads);
}

// For each window, its values (tap, channel) by b (taps * channels, columns), onto out where the shape says.
void ordered_windows(const uint16_t *x, const uint16_t *b, float *out, const Windows *shape, int64_t columns, int threads) {
    const WindowRows a(x, *shape);
    auto place = [&](int64_t row) {
        const Window at = a.window(row);
        return at.image * shape->to_image + at.row * shape->to_row + at.column * shape->to_column;
    };
    multiply(a, b, out, shape->images * shape->rows * shape->columns, shape->taps * shape->channels, columns, place, threads);
}

// Over all windows, their values by b (windows, columns), onto out (taps * channels, columns).
void ordered_windows_tn(const uint16_t *x, const uint16_t *b, float *out, const Windows *shape, int64_t columns, int threads) {
    multiply(WindowSteps(x, *shape), b, out, shape->taps * shape->channels, shape->images * shape->rows * shape->columns,
             columns, [=](int64_t row) { return row * columns; }, threads);
}

// Whether all FP16 values are finite.
int ordered_finite(const uint16_t *values, int64_t count) {
    uint16_t largest = 0;
    for (int64_t i = 0; i < count; i++) largest = std::max<uint16_t>(largest, values[i] & 0x7fff);
    return largest < 0x7c00;
}

void ordered_widen(const uint16_t *from, float *to, int64_t count) {
    const PlainArithmetic arithmetic;
    const int64_t whole = count / 16 * 16;
    float last[16];
    widen(from, to, whole);
    widen(from + whole, last, count - whole);
    std::copy(last, last + (count - whole), to + whole);
}

void ordered_narrow(const float *from, uint16_t *to, int64_t count) {
    const PlainArithmetic arithmetic;
    const int64_t whole = count / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16) narrow16(from + i, to + i);
    float last[16] = {};
    uint16_t narrowed[16];
    std::copy(from + whole, from + count, last);
    narrow16(last, narrowed);
    std::copy(narrowed, narrowed + (count - whole), to + whole);
}

}  // extern "C"
