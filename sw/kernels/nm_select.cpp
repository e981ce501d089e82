// N:M selection by magnitude in one pass over memory. What is computed stands in nm_select.py.
//
// A tensor is (outer, length, inner), contiguous; groups of m neighbours run along the middle axis. Groups are worked on 64
// at a time, one to a lane: a value stays if fewer than n of its group beat it. Magnitudes are compared as integers (the
// bits without the sign), so zeros of both signs are equal and NaN is above infinity.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "share.h"

namespace {

constexpr int LANES = 64;
constexpr int64_t CHUNK = 256;       // blocks of lanes that one thread takes at a time

template <class T> struct Bits;
template <> struct Bits<float> { using type = int32_t; static constexpr type magnitude = 0x7fffffff, infinity = 0x7f800000; };
template <> struct Bits<double> {
    using type = int64_t;
    static constexpr type magnitude = 0x7fffffffffffffff, infinity = 0x7ff0000000000000;
};

template <class T> struct Task {
    using Word = typename Bits<T>::type;
    const T *values;
    T *out;
    int64_t lanes, inner, n, m;

    // One block of lanes from number `first`; `words` has room for m * LANES. Returns whether all values are finite.
    bool block(int64_t first, Word *words) const {
        const int count = int(std::min<int64_t>(LANES, lanes - first));
        int64_t place[LANES];
        int64_t group = first / inner, within = first % inner;
        for (int lane = 0; lane < count; lane++) {
            place[lane] = group * m * inner + within;
            if (++within == inner) within = 0, group++;
        }
        const bool together = place[count - 1] - place[0] == count - 1;
        Word damaged = 0;
        for (int64_t i = 0; i < m; i++) {
            Word *row = words + i * LANES;
            const T *source = values + i * inner;
            if (count < LANES) std::fill(row + count, row + LANES, Word(0));
            if (together)
                std::memcpy(row, source + place[0], count * sizeof(T));
            else
                for (int lane = 0; lane < count; lane++) std::memcpy(row + lane, source + place[lane], sizeof(T));
            for (int lane = 0; lane < LANES; lane++) {
                const Word magnitude = row[lane] & Bits<T>::magnitude;
                damaged |= magnitude >= Bits<T>::infinity;
                row[lane] = magnitude;
            }
        }
        for (int64_t i = 0; i < m; i++) write(i, words, place, count, together);
        return !damaged;
    }

    void write(int64_t i, const Word *words, const int64_t *place, int count, bool together) const {
        Word better[LANES] = {};
        const Word *mine = words + i * LANES;
        for (int64_t j = 0; j < i; j++)
            for (int lane = 0; lane < LANES; lane++) better[lane] += words[j * LANES + lane] >= mine[lane];
        for (int64_t j = i + 1; j < m; j++)
            for (int lane = 0; lane < LANES; lane++) better[lane] += words[j * LANES + lane] > mine[lane];
        const T *source = values + i * inner;
        T *target = out + i * inner;
        if (together)
            for (int lane = 0; lane < count; lane++)
                target[place[0] + lane] = better[lane] < n ? source[place[0] + lane] : T(0);
        else
            for (int lane = 0; lane < count; lane++)
                target[place[lane]] = better[lane] < n ? source[place[lane]] : T(0);
    }

    int run(int threads) const {
        const int64_t blocks = (lanes + LANES - 1) / LANES, chunks = (blocks + CHUNK - 1) / CHUNK;
        std::atomic<int> damaged{0};
        share(chunks, lanes * m < ALONE ? 1 : threads, [&](int64_t chunk) {
            std::vector<Word> words(m * LANES);
            for (int64_t b = chunk * CHUNK; b < std::min(blocks, (chunk + 1) * CHUNK); b++)
                if (!block(b * LANES, words.data())) damaged = 1;
        });
        return damaged;
    }
};

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                                   \
    int select_##SUFFIX(const T *values, T *out, int64_t outer, int64_t length, int64_t inner, int64_t n, int64_t m,        \
                        int threads) {                                                                                      \
        return Task<T>{values, out, outer * (length / m) * inner, inner, n, m}.run(threads);                                \
    }

extern "C" {
EXPORT(float, f32)
EXPORT(double, f64)
}
