// Unbiased random pruning of gradients, in one pass over memory. What is computed stands in sw/sparse/mvue.py.
//
// A tensor is (outer, channels, inner), contiguous; a channel's positions are p = outer index * inner + inner index, and groups
// of m positions run along them. The random number of a group is a hash of key and group * channels + channel, so results do
// not depend on threads. Compile without contraction to fused multiply-adds.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "share.h"

namespace {

constexpr int LANES = 64;

// A multiple of 2**-24 in [0, 1): hw/spec/counter.py.
inline float uniform(uint32_t key, uint32_t element) {
    uint32_t word = element ^ key;
    word ^= word >> 16, word *= 0x7feb352du;
    word ^= word >> 15, word *= 0x846ca68bu;
    word ^= word >> 16;
    return float(int32_t(word >> 8)) * 0x1p-24f;
}

inline void one_of_two(float a, float b, float u, float &x, float &y) {
    const float size = std::fabs(a), total = size + std::fabs(b);
    const bool left = u * total < size;
    x = left ? std::copysign(total, a) : 0.0f;
    y = left ? 0.0f : std::copysign(total, b);
}

// Each of LANES groups: sums of magnitudes before and with its values in order, without the largest in `less` and `more`.
struct Block {
    float a[4][LANES], u[LANES], upto[5][LANES], more[5][LANES], largest[LANES], top[LANES];
};

// Separate functions over plain rows: so the compiler works on all lanes at once.
__attribute__((noinline)) void find_largest(const float *__restrict a, float i, float *__restrict largest, float *__restrict top) {
    for (int l = 0; l < LANES; l++) {
        const float size = std::fabs(a[l]);
        top[l] = size > largest[l] ? i : top[l];
        largest[l] = size > largest[l] ? size : largest[l];
    }
}

__attribute__((noinline)) void add(const float *__restrict a, float i, const float *__restrict top, const float *__restrict upto,
                                   const float *__restrict more, float *__restrict next_upto, float *__restrict next_more) {
    for (int l = 0; l < LANES; l++) {
        const float size = std::fabs(a[l]);
        next_upto[l] = upto[l] + size;
        next_more[l] = more[l] + (top[l] == i ? 0.0f : size);
    }
}

__attribute__((noinline)) void choose(float *__restrict a, float i, const Block &__restrict block, const float *__restrict before,
                                      const float *__restrict upto, const float *__restrict less,
                                      const float *__restrict more) {
    const float *__restrict totals = block.upto[4], *__restrict rests = block.more[4];
    for (int l = 0; l < LANES; l++) {
        const float total = totals[l], rest = rests[l], value = a[l];
        const float half = total * 0.5f, low = block.u[l] * half, high = low + half, point = block.u[l] * rest;
        const float even = std::copysign(half, value), uneven = std::copysign(rest, value);
        const float first = before[l] <= low ? (low < upto[l] ? even : 0.0f) : 0.0f;
        const float second = before[l] <= high ? (high < upto[l] ? even : 0.0f) : 0.0f;
        const float one = less[l] <= point ? (point < more[l] ? uneven : 0.0f) : 0.0f;
        const float two = std::fabs(first) > 0.0f ? first : second;
        const float heavy = block.top[l] == i ? value : one;
        const float pruned = block.largest[l] < rest ? two : heavy;
        a[l] = std::fabs(total) < INFINITY ? pruned : value;  // damage must stay visible
    }
}

inline void two_of_four(Block &block) {
    for (int l = 0; l < LANES; l++) block.largest[l] = -1, block.top[l] = 0, block.upto[0][l] = 0, block.more[0][l] = 0;
    for (int i = 0; i < 4; i++) find_largest(block.a[i], float(i), block.largest, block.top);
    for (int i = 0; i < 4; i++)
        add(block.a[i], float(i), block.top, block.upto[i], block.more[i], block.upto[i + 1], block.more[i + 1]);
    for (int i = 0; i < 4; i++)
        choose(block.a[i], float(i), block, block.upto[i], block.upto[i + 1], block.more[i], block.more[i + 1]);
}

struct Task {
    const float *values;
    float *out;
    int64_t outer, channels, inner;
    uint32_t key;

    // Groups lie within one row of `inner` values: channel `row % channels` of index `row / channels`.
    template <int M> void within(int64_t row) const {
        const float *source = values + row * inner;
        float *target = out + row * inner;
        const int64_t groups = inner / M, first = row / channels * groups;
        uint32_t element = uint32_t(first * channels + row % channels);
        const uint32_t stride = uint32_t(channels);
        if (M == 2) {
            for (int64_t g = 0; g < groups; g++)
                one_of_two(source[2 * g], source[2 * g + 1], uniform(key, element + uint32_t(g) * stride), target[2 * g],
                           target[2 * g + 1]);
            return;
        }
        for (int64_t start = 0; start < groups; start += LANES) {
            const int count = int(std::min<int64_t>(LANES, groups - start));
            Block block = {};
            for (int l = 0; l < LANES; l++) block.u[l] = uniform(key, element + uint32_t(start + l) * stride);
            for (int l = 0; l < count; l++)
                for (int i = 0; i < 4; i++) block.a[i][l] = source[4 * (start + l) + i];
            two_of_four(block);
            for (int l = 0; l < count; l++)
                for (int i = 0; i < 4; i++) target[4 * (start + l) + i] = block.a[i][l];
        }
    }

    // One group of every channel, wherever its positions lie.
    template <int M> void across(int64_t group) const {
        int64_t at[M];
        for (int j = 0; j < M; j++) {
            const int64_t p = group * M + j;
            at[j] = p / inner * channels * inner + p % inner;
        }
        if (M == 2) {
            for (int64_t c = 0; c < channels; c++) {
                const int64_t first = at[0] + c * inner, second = at[1] + c * inner;
                one_of_two(values[first], values[second], uniform(key, uint32_t(group * channels + c)), out[first], out[second]);
            }
            return;
        }
        for (int64_t start = 0; start < channels; start += LANES) {
            const int count = int(std::min<int64_t>(LANES, channels - start));
            Block block = {};
            for (int l = 0; l < LANES; l++) block.u[l] = uniform(key, uint32_t(group * channels + start + l));
            for (int j = 0; j < M; j++)
                for (int l = 0; l < count; l++) block.a[j][l] = values[at[j] + (start + l) * inner];
            two_of_four(block);
            for (int j = 0; j < M; j++)
                for (int l = 0; l < count; l++) out[at[j] + (start + l) * inner] = block.a[j][l];
        }
    }

    template <int M> void run(int threads) const {
        const int64_t positions = outer * inner;
        if (positions * channels < ALONE) threads = 1;
        if (inner % M == 0) {
            share(outer * channels, threads, [&](int64_t row) { within<M>(row); });
            return;
        }
        share(positions / M, threads, [&](int64_t group) { across<M>(group); });
        for (int64_t p = positions / M * M; p < positions; p++)
            for (int64_t c = 0; c < channels; c++) {
                const int64_t at = p / inner * channels * inner + c * inner + p % inner;
                out[at] = values[at];
            }
    }
};

}  // namespace

extern "C" void mvue_f32(const float *values, float *out, int64_t outer, int64_t channels, int64_t inner, int64_t m,
                         uint32_t key, int threads) {
    const Task task{values, out, outer, channels, inner, key};
    m == 2 ? task.run<2>(threads) : task.run<4>(threads);
}
