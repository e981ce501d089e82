// Drives one small unit from arrays, see stream.py. `ports.h` is written for the unit.

#include <cstdint>

#include "Vdut.h"
#include "ports.h"
#include "verilated.h"

namespace {

struct Unit {
    VerilatedContext context;
    Vdut top{&context};

    explicit Unit(uint64_t seed) {
        context.randReset(2);
        context.randSeed(static_cast<int>(seed));
        top.rst = 1;
        for (int cycle = 0; cycle < 2; ++cycle) tick();
        top.rst = 0;
    }

    void settle() {
        top.clk = 0;
        top.eval();
    }

    void tick() {
        settle();
        top.clk = 1;
        top.eval();
    }
};

}  // namespace

// One vector per cycle; the answer to each is what the outputs show `latency` cycles later.
extern "C" void stream_pipelined(uint64_t count, uint64_t latency, uint64_t seed, const uint64_t* in, uint64_t* out) {
    Unit unit{seed};
    for (uint64_t cycle = 0; cycle < count + latency; ++cycle) {
        if (cycle < count) put(unit.top, in + cycle * IN_WORDS);
        unit.settle();
        if (cycle >= latency) get(unit.top, out + (cycle - latency) * OUT_WORDS);
        unit.tick();
    }
}

#ifdef ITERATIVE
// One vector after the other, with 0 to 3 idle cycles between them (`seed` 0: none). Operands are there in the cycle of `start` only.
// `cycles` are counted from it to the first one with `done`. Returns how many vectors were answered within `limit` cycles each.
extern "C" uint64_t stream_iterative(
    uint64_t count, uint64_t limit, uint64_t seed, const uint64_t* in, uint64_t* out, uint32_t* cycles) {
    Unit unit{seed};
    uint64_t garbage[IN_WORDS], state = seed;
    for (uint64_t number = 0; number < count; ++number) {
        put(unit.top, in + number * IN_WORDS);
        unit.top.start = 1;
        unit.tick();
        unit.top.start = 0;
        for (unsigned word = 0; word < IN_WORDS; ++word) garbage[word] = ~in[number * IN_WORDS + word];
        put(unit.top, garbage);
        uint32_t waited = 1;
        for (unit.settle(); !unit.top.done; unit.settle(), ++waited) {
            if (waited == limit) return number;
            unit.tick();
        }
        cycles[number] = waited;
        state = state * 6364136223846793005u + 1442695040888963407u;
        for (unsigned idle = seed ? state >> 62 : 0; idle; --idle) unit.tick();
        unit.settle();
        get(unit.top, out + number * OUT_WORDS);
    }
    return count;
}
#endif
