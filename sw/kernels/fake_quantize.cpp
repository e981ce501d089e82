// Exact fake quantisation in one pass over memory, forward and backward. What is computed stands in fake_quantize.py.
//
// The tensor is seen as rows of equal length; row r has the binary point of channel r % channels. Rows are cut into chunks
// of fixed size, and sums are those of chunks in order: results do not depend on the number of threads or the processor.
// Compile without contraction to fused multiply-adds, and without any relaxed arithmetic.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "share.h"

namespace {

enum Rounding { TRN, TRN_ZERO, RND, RND_ZERO, RND_MIN_INF, RND_INF, RND_CONV };
enum Fault { FINE = 0, NOT_A_NUMBER = 1, FAR_POINT = 2 };

constexpr int64_t BLOCK = 512;       // values in work at a time: they stay in the first-level cache
constexpr int64_t CHUNK = 1 << 15;   // values that one thread takes at a time
constexpr int64_t FRAC_LIMIT = 100;  // as in sw/quant/fake.py: 2**frac and its inverse are exact, and codes keep exponents
constexpr int LANES = 16;            // partial sums, so that their order is the same on every processor

template <class T> struct Grid {
    T low, high;      // smallest and largest code
    T scale, inverse; // 2**frac and 2**-frac
};

// `scaled` is finite; the distance to the nearest integer is exact, and +1/2 or -1/2 at a tie that went down or up.
template <int MODE, class T> inline T round_to(T scaled) {
    if (MODE == TRN) return std::floor(scaled);
    if (MODE == TRN_ZERO) return std::trunc(scaled);
    const T nearest = std::nearbyint(scaled);  // ties to even
    const T distance = scaled - nearest;
    const bool went_down = distance == T(0.5), went_up = distance == T(-0.5);
    bool raise = false, lower = false;
    if (MODE == RND) raise = went_down;
    if (MODE == RND_MIN_INF) lower = went_up;
    if (MODE == RND_INF) raise = went_down & (scaled > 0), lower = went_up & (scaled < 0);
    if (MODE == RND_ZERO) raise = went_down & (scaled < 0), lower = went_up & (scaled > 0);
    return nearest + (raise ? T(1) : T(0)) - (lower ? T(1) : T(0));
}

// The rounded value, at most one code outside low..high.
template <int MODE, class T> inline T round_near(T value, const Grid<T> &grid) {
    T scaled = value * grid.scale;
    const bool lost = MODE == TRN && value < 0 && scaled == 0;  // underflow to zero; the value still lies below it
    scaled = scaled < grid.low - 1 ? grid.low - 1 : scaled;
    scaled = scaled > grid.high + 1 ? grid.high + 1 : scaled;
    return round_to<MODE>(scaled) - (lost ? T(1) : T(0));
}

template <class T> inline T clip(T rounded, const Grid<T> &grid) {
    return std::min(std::max(rounded, grid.low), grid.high);
}

// A block of operands: values, plus the addend, through the ReLU. Returns false if one of them is no number.
template <class T> bool gather(const T *values, const T *addend, bool relu, T *block, int64_t count) {
    int damaged = 0;
    for (int64_t i = 0; i < count; i++) {
        const T sum = addend ? values[i] + addend[i] : values[i];
        damaged |= sum != sum;
        block[i] = relu && !(sum > 0) ? T(0) : sum;
    }
    return !damaged;
}

// The sum of a block, in lanes; `values` has room up to the next multiple of LANES.
template <class T> double lane_sum(T *values, int64_t count) {
    std::fill(values + count, values + (count + LANES - 1) / LANES * LANES, T(0));
    double lanes[LANES] = {}, sum = 0;
    for (int64_t i = 0; i < count; i += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += double(values[i + lane]);
    for (double lane : lanes) sum += lane;
    return sum;
}

template <class T> struct Task {
    const T *values, *addend, *grad;
    T *out;             // quantised values; in the backward pass the gradient of the values, or null
    double *sums;       // one per chunk: of grad times the slope of the integer bits, over ln 2; null if not wanted
    bool relu;

    template <int MODE> bool forward(const Grid<T> &grid, int64_t start, int64_t count) const {
        T block[BLOCK];
        const bool good = gather(values + start, addend ? addend + start : nullptr, relu, block, count);
        for (int64_t i = 0; i < count; i++) out[start + i] = clip(round_near<MODE>(block[i], grid), grid) * grid.inverse;
        return good;
    }

    template <int MODE> void backward(const Grid<T> &grid, int64_t start, int64_t count, double &sum) const {
        T block[BLOCK], slope[BLOCK];
        gather(values + start, addend ? addend + start : nullptr, relu, block, count);
        for (int64_t i = 0; i < count; i++) {
            const T value = block[i], rounded = round_near<MODE>(value, grid), code = clip(rounded, grid);
            const bool inside = rounded == code;
            slope[i] = grad[start + i] * (code * grid.inverse - (inside ? value : T(0)));
            block[i] = relu && !(value > 0) ? T(0) : grad[start + i] * (inside ? T(1) : T(0));
        }
        if (out) std::copy(block, block + count, out + start);
        if (!sums) return;
        sum += lane_sum(slope, count);
    }

    template <int MODE> bool chunk(const Grid<T> &grid, int64_t start, int64_t count, int64_t index) const {
        double sum = 0;
        bool good = true;
        for (int64_t done = 0; done < count; done += BLOCK) {
            const int64_t part = std::min(BLOCK, count - done);
            if (grad) backward<MODE>(grid, start + done, part, sum);
            else good &= forward<MODE>(grid, start + done, part);
        }
        if (sums) sums[index] = sum;
        return good;
    }

    bool run(int mode, const Grid<T> &grid, int64_t start, int64_t count, int64_t index) const {
        switch (mode) {
            case TRN: return chunk<TRN>(grid, start, count, index);
            case TRN_ZERO: return chunk<TRN_ZERO>(grid, start, count, index);
            case RND: return chunk<RND>(grid, start, count, index);
            case RND_ZERO: return chunk<RND_ZERO>(grid, start, count, index);
            case RND_MIN_INF: return chunk<RND_MIN_INF>(grid, start, count, index);
            case RND_INF: return chunk<RND_INF>(grid, start, count, index);
            default: return chunk<RND_CONV>(grid, start, count, index);
        }
    }
};

// A learned binary point: frac = width - round(bits), the bits limited so that frac lies in lowest..highest.
struct Point {
    double bits;
    int64_t width;
    double lowest, highest;

    bool sane() const { return bits == bits && std::abs(frac()) <= FRAC_LIMIT; }
    bool moves() const { return width - highest <= bits && bits <= width - lowest; }  // whether it has a gradient
    double frac() const { return width - std::nearbyint(std::min(std::max(bits, width - highest), width - lowest)); }
};

template <class T> Grid<T> grid_of(double frac, double low, double high) {
    return {T(low), T(high), std::ldexp(T(1), int(frac)), std::ldexp(T(1), -int(frac))};
}

const double LN2 = std::log(2.0);

struct Shape {
    int64_t rows, length, channels;
};

// `slopes` (channels), if wanted, receives the gradients of the binary points.
template <class T>
int quantise(Task<T> task, double *slopes, const double *bits, Point form, Shape shape, double low, double high, int mode,
             int threads) {
    auto point = [&](int64_t channel) { return Point{bits[channel], form.width, form.lowest, form.highest}; };
    for (int64_t i = 0; i < shape.channels; i++)
        if (!point(i).sane()) return FAR_POINT;
    const int64_t cuts = (shape.length + CHUNK - 1) / CHUNK, chunks = shape.rows * cuts;
    std::vector<double> sums(slopes ? chunks : 0);
    task.sums = slopes ? sums.data() : nullptr;
    std::atomic<int> fault{FINE};
    share(chunks, shape.rows * shape.length < ALONE ? 1 : threads, [&](int64_t index) {
        const int64_t row = index / cuts, start = index % cuts * CHUNK;
        const Grid<T> grid = grid_of<T>(point(row % shape.channels).frac(), low, high);
        const int64_t count = std::min(CHUNK, shape.length - start);
        if (!task.run(mode, grid, row * shape.length + start, count, index)) fault = NOT_A_NUMBER;
    });
    if (slopes) {
        std::fill(slopes, slopes + shape.channels, 0.0);
        for (int64_t index = 0; index < chunks; index++) slopes[index / cuts % shape.channels] += sums[index];
        for (int64_t i = 0; i < shape.channels; i++) slopes[i] = point(i).moves() ? slopes[i] * LN2 : 0.0;
    }
    return fault;
}

// A layer's weights (channels x length) and bias, BatchNorm folded in, on their grids; the norm's pointers are null without one.
template <class T> struct Layer {
    const T *weight, *bias, *gamma, *beta, *mean, *variance;
    double epsilon;
    const double *bits;   // integer bits of each channel's weights
    int64_t channels, length, width, in_frac, out_frac;

    T inverse_deviation(int64_t c) const { return T(1) / std::sqrt(variance[c] + T(epsilon)); }
    T scale(int64_t c) const { return gamma ? gamma[c] * inverse_deviation(c) : T(1); }
    T folded_bias(int64_t c, T scale) const { return gamma ? beta[c] + (bias[c] - mean[c]) * scale : bias[c]; }

    // The weights' point, limited so that the shift and the bias' code fit a requantise record: see sw/quant/weighted.py.
    Point point(int64_t c, T folded, int64_t bias_bits, int64_t shift_min, int64_t shift_max) const {
        int exponent;
        const T part = std::frexp(std::max(std::abs(folded), T(std::ldexp(1.0, -60))), &exponent);
        const double room = bias_bits - exponent + (part == T(0.5)) - in_frac;  // floor(bias_bits - log2(|bias|))
        const double between = double(out_frac - in_frac);
        return {bits[c], width, between + shift_min, std::min(room, between + shift_max)};
    }
};

template <class T>
int fold_forward(const Layer<T> &layer, double low, double high, int64_t bias_bits, int64_t shift_min, int64_t shift_max,
                 T *weight_out, T *bias_out, double *fracs) {
    for (int64_t c = 0; c < layer.channels; c++) {
        const T scale = layer.scale(c), folded = layer.folded_bias(c, scale);
        const Point point = layer.point(c, folded, bias_bits, shift_min, shift_max);
        if (folded != folded) return NOT_A_NUMBER;
        if (!point.sane()) return FAR_POINT;
        fracs[c] = point.moves() ? point.frac() : point.frac() + 0.25;  // a quarter marks a point that a limit holds
        const Grid<T> grid = grid_of<T>(point.frac(), low, high);
        const T *weight = layer.weight + c * layer.length;
        T *out = weight_out + c * layer.length;
        int damaged = 0;
        for (int64_t i = 0; i < layer.length; i++) {
            const T value = weight[i] * scale;  // 1 without a norm
            damaged |= value != value;
            out[i] = clip(round_near<RND>(value, grid), grid) * grid.inverse;
        }
        if (damaged) return NOT_A_NUMBER;
        const double unit = std::ldexp(1.0, int(point.frac()) + int(layer.in_frac));
        const double code = round_to<RND>(std::min(std::max(double(folded) * unit, -0x1p33), 0x1p33));
        bias_out[c] = T(std::min(std::max(code, -0x1p31), 0x1p31 - 1) / unit);
    }
    return FINE;
}

template <class T>
void fold_backward(const Layer<T> &layer, double low, double high, const double *fracs, const T *weight_grad,
                   const T *bias_grad, T *of_weight, T *of_bias, T *of_gamma, T *of_beta, double *of_bits) {
    for (int64_t c = 0; c < layer.channels; c++) {
        const T scale = layer.scale(c);
        const double frac = std::floor(fracs[c]);
        const Grid<T> grid = grid_of<T>(frac, low, high);
        double slope = 0, of_scale = 0;
        for (int64_t start = c * layer.length, end = start + layer.length; start < end; start += BLOCK) {
            const int64_t count = std::min(BLOCK, end - start);
            T slopes[BLOCK], scales[BLOCK];
            for (int64_t i = 0; i < count; i++) {
                const T weight = layer.weight[start + i], grad = weight_grad[start + i], value = weight * scale;
                const T rounded = round_near<RND>(value, grid), code = clip(rounded, grid);
                const bool inside = rounded == code;
                const T passed = grad * (inside ? T(1) : T(0));
                slopes[i] = grad * (code * grid.inverse - (inside ? value : T(0)));
                scales[i] = passed * weight;
                of_weight[start + i] = passed * scale;
            }
            slope += lane_sum(slopes, count), of_scale += lane_sum(scales, count);
        }
        of_bits[c] = fracs[c] == frac ? slope * LN2 : 0.0;
        of_bias[c] = bias_grad[c] * scale;
        if (!layer.gamma) continue;
        of_beta[c] = bias_grad[c];
        of_gamma[c] = T((of_scale + double(bias_grad[c] * (layer.bias[c] - layer.mean[c]))) * layer.inverse_deviation(c));
    }
}

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                                  \
    int forward_##SUFFIX(const T *values, const T *addend, T *out, const double *bits, int64_t width, double lowest,       \
                         double highest, int64_t rows, int64_t length, int64_t channels, double low, double high, int mode, \
                         int relu, int threads) {                                                                          \
        return quantise<T>({values, addend, nullptr, out, nullptr, relu != 0}, nullptr, bits, {0, width, lowest, highest},  \
                           {rows, length, channels}, low, high, mode, threads);                                            \
    }                                                                                                                      \
    int backward_##SUFFIX(const T *values, const T *addend, const T *grad, T *out, double *slopes, const double *bits,     \
                          int64_t width, double lowest, double highest, int64_t rows, int64_t length, int64_t channels,    \
                          double low, double high, int mode, int relu, int threads) {                                      \
        return quantise<T>({values, addend, grad, out, nullptr, relu != 0}, slopes, bits, {0, width, lowest, highest},      \
                           {rows, length, channels}, low, high, mode, threads);                                            \
    }                                                                                                                      \
    int fold_forward_##SUFFIX(const Layer<T> *layer, double low, double high, int64_t bias_bits, int64_t shift_min,        \
                              int64_t shift_max, T *weight, T *bias, double *fracs) {                                      \
        return fold_forward<T>(*layer, low, high, bias_bits, shift_min, shift_max, weight, bias, fracs);                   \
    }                                                                                                                      \
    int fold_backward_##SUFFIX(const Layer<T> *layer, double low, double high, const double *fracs, const T *weight_grad,  \
                               const T *bias_grad, T *of_weight, T *of_bias, T *of_gamma, T *of_beta, double *of_bits) {   \
        fold_backward<T>(*layer, low, high, fracs, weight_grad, bias_grad, of_weight, of_bias, of_gamma, of_beta, of_bits); \
        return FINE;                                                                                                       \
    }

extern "C" {
EXPORT(float, f32)
EXPORT(double, f64)
}
